//! GetInspectionPolicy and UpdateInspectionPolicy.

use domain::access::Permission;
use rpc::server::v1::{
    GetInspectionPolicyRequest, GetInspectionPolicyResponse, InspectionPolicy, UpdateInspectionPolicyRequest,
    UpdateInspectionPolicyResponse,
};
use store::inspection_policies::InspectionPolicy as Policy;

use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::{access, resource};

/// Most entries of a list.
const MOST: usize = 200;
/// Longest entry, in bytes.
const LONGEST: usize = 1000;

/// Reads what inspections of a server let pass.
pub(super) async fn get_inspection_policy(
    api: &Context,
    call: Call<GetInspectionPolicyRequest>,
) -> Result<GetInspectionPolicyResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let server = access::server(api, &call.caller, id, Permission::ServersRead).await?;
    let policy = api.store.inspection_policies().get(server.id).await?;
    Ok(GetInspectionPolicyResponse {
        policy: Some(message(policy)),
    })
}

/// Sets what inspections of a server let pass.
pub(super) async fn update_inspection_policy(
    api: &Context,
    call: Call<UpdateInspectionPolicyRequest>,
) -> Result<UpdateInspectionPolicyResponse, Error> {
    let id = resource::server("name", &call.message.name)?;
    let policy = call.message.policy.unwrap_or_default();
    let mut violations = Violations::default();
    let (field, names) = ("policy.trusted_functions", &policy.trusted_functions);
    if names.len() > MOST {
        violations.add(field, format!("at most {MOST} are allowed"));
    }
    // They are sent to the server as one text, with a control character between them.
    let odd =
        |name: &String| name.is_empty() || name.len() > LONGEST || name.chars().any(|char| char.is_control());
    if names.iter().any(odd) {
        violations.add(field, "each must have 1 to 1000 bytes and no control characters");
    }
    violations.done()?;
    let server = access::server(api, &call.caller, id, Permission::ServersUpdate).await?;
    let policy = Policy {
        trusted_functions: policy.trusted_functions,
    };
    if !api.store.inspection_policies().set(server.id, &policy).await? {
        return Err(access::no_server(id));
    }
    Ok(UpdateInspectionPolicyResponse {
        policy: Some(message(policy)),
    })
}

fn message(policy: Policy) -> InspectionPolicy {
    InspectionPolicy {
        trusted_functions: policy.trusted_functions,
    }
}
