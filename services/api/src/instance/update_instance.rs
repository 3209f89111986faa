//! UpdateInstance.

use rpc::server::v1::{UpdateInstanceRequest, UpdateInstanceResponse};
use store::Etag;
use store::instances::{InstanceChange, UpdateInstanceError};

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};
use crate::{mask, resource};

/// Changes an instance's connection budget.
pub(super) async fn update_instance(
    api: &Context,
    call: Call<UpdateInstanceRequest>,
) -> Result<UpdateInstanceResponse, Error> {
    let Some(message) = call.message.instance else {
        return Err(Error::invalid("instance", "must be given"));
    };
    let id = resource::instance("instance.name", &message.name)?;
    let mut violations = Violations::default();
    let set = [
        ("max_connections", message.max_connections != 0),
        ("reserved_connections", message.reserved_connections != 0),
    ];
    let paths = mask::paths(call.message.update_mask, &set, &mut violations);
    let mut number = |path: &str, value: i32| {
        let wanted = paths.contains(&path);
        let count = u16::try_from(value).map_err(|_| "must be between 0 and 10000");
        wanted
            .then(|| violations.check(&format!("instance.{path}"), count))
            .flatten()
    };
    let max_connections = number("max_connections", message.max_connections);
    let reserved_connections = number("reserved_connections", message.reserved_connections);
    violations.done()?;
    let change = InstanceChange {
        max_connections,
        reserved_connections,
        etag: (!message.etag.is_empty()).then(|| Etag::new(message.etag)),
    };
    let changed = api
        .store
        .instances()
        .update(id, change)
        .await
        .map_err(|error| match error {
            UpdateInstanceError::NotFound => Error::not_found(ResourceKind::Instance, &message.name),
            UpdateInstanceError::EtagMismatch => Error::EtagMismatch,
            UpdateInstanceError::BudgetOutOfRange => Error::invalid("instance.max_connections", error),
            UpdateInstanceError::Store(error) => Error::Store(error),
        })?;
    Ok(UpdateInstanceResponse {
        instance: Some(convert::instance(&changed)),
    })
}
