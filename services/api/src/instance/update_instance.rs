//! UpdateInstance.

use domain::limits::{Limit, Limits};
use rpc::server::v1::{UpdateInstanceRequest, UpdateInstanceResponse};
use store::Etag;
use store::instances::{InstanceChange, UpdateInstanceError};

use super::{convert, limits};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};
use crate::{mask, resource};

/// The path of all limits together: those that are not given go back to their defaults.
const ALL_LIMITS: &str = "limits";

/// Changes an instance's connection budget and limits.
pub(super) async fn update_instance(
    api: &Context,
    call: Call<UpdateInstanceRequest>,
) -> Result<UpdateInstanceResponse, Error> {
    let Some(message) = call.message.instance else {
        return Err(Error::invalid("instance", "must be given"));
    };
    let id = resource::instance("instance.name", &message.name)?;
    let mut violations = Violations::default();
    let given = message.limits.unwrap_or_default();
    let limit_paths = Limit::ALL.map(|limit| format!("limits.{limit}"));
    let mut set = vec![
        ("max_connections", message.max_connections != 0),
        ("reserved_connections", message.reserved_connections != 0),
        (ALL_LIMITS, false),
    ];
    for (limit, path) in Limit::ALL.into_iter().zip(&limit_paths) {
        set.push((path, limits::read(&given, limit).is_some()));
    }
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
    let mut chosen = Vec::new();
    for (limit, path) in Limit::ALL.into_iter().zip(&limit_paths) {
        if !paths.contains(&ALL_LIMITS) && !paths.contains(&path.as_str()) {
            continue;
        }
        let value = limits::read(&given, limit).transpose();
        let checked = value.and_then(|value| {
            let chosen = Limits::default().choose(limit, value);
            chosen.map(|()| value).map_err(|error| error.to_string())
        });
        if let Some(value) = violations.check(&format!("instance.{path}"), checked) {
            chosen.push((limit, value));
        }
    }
    violations.done()?;
    let change = InstanceChange {
        max_connections,
        reserved_connections,
        limits: chosen,
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
