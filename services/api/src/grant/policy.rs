//! GetServerPolicy, UpdateServerPolicy.

use domain::access::Permission;
use rpc::access::v1 as proto;
use store::Etag;
use store::servers::UpdateServerError;

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::{access, resource};

/// Reads what a server allows.
pub(super) async fn get_server_policy(
    api: &Context,
    call: Call<proto::GetServerPolicyRequest>,
) -> Result<proto::GetServerPolicyResponse, Error> {
    let id = resource::server("server", &call.message.server)?;
    let server = access::server(api, &call.caller, id, Permission::ServersRead).await?;
    Ok(proto::GetServerPolicyResponse {
        policy: Some(convert::policy(&server.policy)),
        etag: server.etag.to_string(),
    })
}

/// Sets what a server allows.
pub(super) async fn update_server_policy(
    api: &Context,
    call: Call<proto::UpdateServerPolicyRequest>,
) -> Result<proto::UpdateServerPolicyResponse, Error> {
    let request = call.message;
    let id = resource::server("server", &request.server)?;
    let server = access::server(api, &call.caller, id, Permission::PoliciesUpdate).await?;
    let current = server.policy.credential_mode;
    let mut violations = Violations::default();
    let given = request.policy.unwrap_or_default();
    let Some(policy) = convert::read_policy(request.preset, &given, current, &mut violations) else {
        return Err(violations.into_error());
    };
    violations.done()?;
    let etag = (!request.etag.is_empty()).then(|| Etag::new(request.etag));
    let set = api.store.servers().set_policy(id, &policy, etag.as_ref()).await;
    let server = set.map_err(|error| match error {
        UpdateServerError::NotFound => access::no_server(id),
        UpdateServerError::EtagMismatch => Error::EtagMismatch,
        UpdateServerError::Store(error) => Error::Store(error),
        error @ (UpdateServerError::NameTaken | UpdateServerError::OwnerNotFound) => Error::Fault {
            context: "setting a policy",
            source: error.into(),
        },
    })?;
    Ok(proto::UpdateServerPolicyResponse {
        policy: Some(convert::policy(&server.policy)),
        etag: server.etag.to_string(),
    })
}
