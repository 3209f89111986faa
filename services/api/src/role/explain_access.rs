//! ExplainAccess.

use auth::AuthError;
use domain::access::{Permission, Reason, Rule, decide};
use domain::id::ServerId;
use domain::name::Identifier;
use rpc::access::v1 as proto;
use rpc::access::v1::RuleEffect;
use rpc::descriptors;
use rpc::policy::PolicyTable;

use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind};
use crate::{access, resource};

/// Explains what a user may do with a server.
pub(super) async fn explain_access(
    api: &Context,
    call: Call<proto::ExplainAccessRequest>,
) -> Result<proto::ExplainAccessResponse, Error> {
    let request = call.message;
    let user = resource::user("principal", &request.principal, &call.caller)?;
    let server = resource::server("resource", &request.resource)?;
    let permission = permission(&request.permission)?;
    let database = match request.database.as_str() {
        "" => None,
        name => Some(
            name.parse::<Identifier>()
                .map_err(|error| Error::invalid("database", error))?,
        ),
    };
    let own = user == call.caller.user;
    if !own && !call.caller.may_everywhere(Permission::AccessExplain) {
        let permission = Permission::AccessExplain;
        return Err(AuthError::PermissionMissing { permission }.into());
    }
    let rules = api.store.access();
    let facts = Box::pin(rules.server_facts(user, server)).await?;
    let Some(facts) = facts else {
        let known = api.store.users().get(user).await?.is_some();
        return Err(match known {
            true => access::no_server(server),
            false => Error::not_found(ResourceKind::User, &request.principal),
        });
    };
    let decision = decide(&facts, database.as_ref(), facts.read_time);
    // What they may not even see is as good as missing, unless they may have anything explained.
    let hidden = !decision.permissions.contains(Permission::ServersRead);
    if hidden && !call.caller.may_everywhere(Permission::AccessExplain) {
        return Err(access::no_server(server));
    }
    Ok(proto::ExplainAccessResponse {
        allowed: decision.check(permission).is_ok(),
        permission: permission.to_string(),
        access: decision.access.as_str().to_owned(),
        rules: decision
            .reasons
            .iter()
            .map(|reason| message(reason, permission, server))
            .collect(),
        policy_revision: decision.revision,
    })
}

/// The permission of that name, or the one that the method of that name needs.
fn permission(text: &str) -> Result<Permission, Error> {
    let wrong = || Error::invalid("permission", "must be a permission, or a method that needs one");
    if let Ok(permission) = text.parse() {
        return Ok(permission);
    }
    let policies = PolicyTable::read(descriptors::PUBLIC).map_err(|error| Error::Fault {
        context: "reading the methods' options",
        source: error.into(),
    })?;
    let path = format!("/{}", text.trim_start_matches('/'));
    let policy = policies.get(&path).ok_or_else(wrong)?;
    policy.permission.parse().map_err(|_| wrong())
}

fn message(reason: &Reason, permission: Permission, server: ServerId) -> proto::ExplainedRule {
    let grant = |id| format!("servers/{server}/grants/{id}");
    let elevation = |id| format!("servers/{server}/elevations/{id}");
    let none = String::new;
    let (rule, name, description) = match &reason.rule {
        Rule::Disabled => ("disabled", none(), "the user is disabled".to_owned()),
        Rule::Owner => ("owner", none(), "the user owns the server".to_owned()),
        Rule::OwnerGroup(group) => (
            "owner_group",
            format!("groups/{group}"),
            "a group of the user owns the server".to_owned(),
        ),
        Rule::Binding(id, role) => (
            "role_binding",
            format!("roleBindings/{id}"),
            format!("{role} is bound to the user or a group of theirs here"),
        ),
        Rule::Grant(id) => (
            "grant",
            grant(*id),
            "the user or a group of theirs has a grant".to_owned(),
        ),
        Rule::ExpiredGrant(id) => ("grant", grant(*id), "the grant has expired".to_owned()),
        Rule::GrantForOthers(id) => ("grant", grant(*id), "the grant is for other databases".to_owned()),
        Rule::Elevation(id) => (
            "elevation",
            elevation(*id),
            "the user may write for a while".to_owned(),
        ),
        Rule::ExpiredElevation(id) => (
            "elevation",
            elevation(*id),
            "the elevation has expired".to_owned(),
        ),
        Rule::ElevationForOthers(id) => (
            "elevation",
            elevation(*id),
            "the elevation is for other databases".to_owned(),
        ),
        Rule::PolicyElevations => (
            "policy_elevations",
            none(),
            "the policy of the server allows no elevations".to_owned(),
        ),
        Rule::PolicyDatabases => (
            "policy_databases",
            none(),
            "the policy of the server leaves the database out".to_owned(),
        ),
        Rule::PolicyCeiling => (
            "policy_ceiling",
            none(),
            "the policy of the server lets nobody write".to_owned(),
        ),
        Rule::PolicyBackups => (
            "policy_backups",
            none(),
            "the policy of the server allows no backups".to_owned(),
        ),
        Rule::PolicyRestores => (
            "policy_restores",
            none(),
            "the policy of the server allows no restores".to_owned(),
        ),
        Rule::Default => ("default", none(), "what nothing gives is denied".to_owned()),
    };
    let effect = match (
        reason.gives.contains(permission),
        reason.takes.contains(permission),
    ) {
        (_, true) => RuleEffect::Denies,
        (true, false) => RuleEffect::Allows,
        (false, false) => RuleEffect::None,
    };
    proto::ExplainedRule {
        rule: rule.to_owned(),
        name,
        effect: effect.into(),
        description,
    }
}
