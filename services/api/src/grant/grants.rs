//! CreateGrant, GetGrant, ListGrants, UpdateGrant, DeleteGrant.

use domain::access::{Access, GRANTED, Permission, PermissionSet, ServerFacts, ServerPolicy, decide};
use domain::id::{GrantId, ServerId};
use domain::page::PageScope;
use rpc::access::v1 as proto;
use store::Etag;
use store::grants::{GrantError, GrantTerms};

use super::convert;
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};
use crate::role::no_principal;
use crate::{access, mask, paging, resource};

/// Grants the use of a server.
pub(super) async fn create_grant(
    api: &Context,
    call: Call<proto::CreateGrantRequest>,
) -> Result<proto::CreateGrantResponse, Error> {
    let server = resource::server("parent", &call.message.parent)?;
    let grant = call.message.grant.unwrap_or_default();
    let permission = Permission::GrantsUpdate;
    let accessed = access::accessed(api, &call.caller, server, permission).await?;
    let member = resource::principal("grant.member", &grant.member, &call.caller)?;
    let mut violations = Violations::default();
    let access = convert::access("grant.access", grant.access, &mut violations);
    let databases = convert::databases("grant.databases", &grant.databases, &mut violations);
    let limits = convert::read_limits(&grant.limits.unwrap_or_default(), &mut violations);
    let expire_time = grant
        .expire_time
        .map(|time| convert::time_of("grant.expire_time", time, &mut violations));
    let (Some(access), Some(databases)) = (access, databases) else {
        return Err(violations.into_error());
    };
    violations.done()?;
    let terms = GrantTerms {
        access,
        databases,
        limits,
        expire_time: expire_time.flatten(),
    };
    check_given(&accessed.facts, &terms)?;
    let id = GrantId::generate(api.random.as_ref());
    let created = api.store.grants().create(id, server, member, &terms).await;
    let created = created.map_err(|error| match error {
        GrantError::NotFound => access::no_server(server),
        GrantError::MemberNotFound => no_principal(member),
        error => cause(error, server, id),
    })?;
    Ok(proto::CreateGrantResponse {
        grant: Some(convert::grant(&created)),
    })
}

/// Reads a grant.
pub(super) async fn get_grant(
    api: &Context,
    call: Call<proto::GetGrantRequest>,
) -> Result<proto::GetGrantResponse, Error> {
    let (server, id) = resource::grant("name", &call.message.name)?;
    access::server(api, &call.caller, server, Permission::GrantsRead).await?;
    let found = api.store.grants().get(server, id).await?;
    Ok(proto::GetGrantResponse {
        grant: Some(convert::grant(&found.ok_or_else(|| missing(server, id))?)),
    })
}

/// Lists the grants on a server.
pub(super) async fn list_grants(
    api: &Context,
    call: Call<proto::ListGrantsRequest>,
) -> Result<proto::ListGrantsResponse, Error> {
    let server = resource::server("parent", &call.message.parent)?;
    let scope = PageScope::new("ListGrants").with(&call.message.parent);
    let page = paging::request(&scope, call.message.page_size, &call.message.page_token)?;
    access::server(api, &call.caller, server, Permission::GrantsRead).await?;
    let page = api.store.grants().list(server, &page).await?;
    Ok(proto::ListGrantsResponse {
        grants: page.items.iter().map(convert::grant).collect(),
        next_page_token: paging::next_token(&scope, &page),
    })
}

/// Changes a grant.
pub(super) async fn update_grant(
    api: &Context,
    call: Call<proto::UpdateGrantRequest>,
) -> Result<proto::UpdateGrantResponse, Error> {
    let grant = call.message.grant.unwrap_or_default();
    let (server, id) = resource::grant("grant.name", &grant.name)?;
    let permission = Permission::GrantsUpdate;
    let accessed = access::accessed(api, &call.caller, server, permission).await?;
    let before = api.store.grants().get(server, id).await?;
    let before = before.ok_or_else(|| missing(server, id))?;
    let mut violations = Violations::default();
    let set = [
        ("access", grant.access != 0),
        ("databases", !grant.databases.is_empty()),
        ("limits", grant.limits.is_some()),
        ("expire_time", grant.expire_time.is_some()),
    ];
    let paths = mask::paths(call.message.update_mask, &set, &mut violations);
    let mut terms = before.terms;
    if paths.contains(&"access")
        && let Some(access) = convert::access("grant.access", grant.access, &mut violations)
    {
        terms.access = access;
    }
    if paths.contains(&"databases")
        && let Some(databases) = convert::databases("grant.databases", &grant.databases, &mut violations)
    {
        terms.databases = databases;
    }
    if paths.contains(&"limits") {
        terms.limits = convert::read_limits(&grant.limits.unwrap_or_default(), &mut violations);
    }
    if paths.contains(&"expire_time") {
        terms.expire_time = grant
            .expire_time
            .and_then(|time| convert::time_of("grant.expire_time", time, &mut violations));
    }
    violations.done()?;
    check_given(&accessed.facts, &terms)?;
    // Without one it is the grant as it was read: what is not named must not come back.
    let etag = match grant.etag.as_str() {
        "" => before.etag,
        etag => Etag::new(etag),
    };
    let changed = api.store.grants().update(server, id, &terms, Some(&etag)).await;
    let changed = changed.map_err(|error| cause(error, server, id))?;
    Ok(proto::UpdateGrantResponse {
        grant: Some(convert::grant(&changed)),
    })
}

/// Revokes a grant.
pub(super) async fn delete_grant(
    api: &Context,
    call: Call<proto::DeleteGrantRequest>,
) -> Result<proto::DeleteGrantResponse, Error> {
    let (server, id) = resource::grant("name", &call.message.name)?;
    access::server(api, &call.caller, server, Permission::GrantsUpdate).await?;
    let etag = (!call.message.etag.is_empty()).then(|| Etag::new(call.message.etag));
    let deleted = api.store.grants().delete(server, id, etag.as_ref()).await;
    deleted.map_err(|error| cause(error, server, id))?;
    Ok(proto::DeleteGrantResponse {})
}

/// Refuses to give more than the caller has. What the server's policy takes from everybody does not matter: it takes it from
/// whom it is given to as well.
fn check_given(facts: &ServerFacts, terms: &GrantTerms) -> Result<(), Error> {
    let mut unbound = facts.clone();
    unbound.policy = ServerPolicy::default();
    let restore = PermissionSet::of(&[Permission::BackupsRestore]);
    // To ask gives nothing by itself.
    let ask = PermissionSet::of(&[Permission::ElevationsRequest]);
    let gives = match terms.access {
        Access::ReadOnly => GRANTED.minus(restore),
        Access::ReadWrite => GRANTED,
    };
    // Somebody who has all of it by a role or as the owner, in every database: a grant of one's own is not passed on.
    unbound.grants.clear();
    unbound.elevations.clear();
    let own = decide(&unbound, None, facts.read_time);
    if gives.minus(ask).is_within(own.permissions) {
        Ok(())
    } else {
        Err(Error::EscalationDenied)
    }
}

fn cause(error: GrantError, server: ServerId, id: GrantId) -> Error {
    match error {
        GrantError::NotFound => missing(server, id),
        GrantError::MemberNotFound => Error::not_found(ResourceKind::User, "users/-"),
        GrantError::EtagMismatch => Error::EtagMismatch,
        GrantError::LimitReached(reached) => reached.into(),
        GrantError::Store(error) => Error::Store(error),
    }
}

fn missing(server: ServerId, id: GrantId) -> Error {
    Error::not_found(ResourceKind::Grant, format_args!("servers/{server}/grants/{id}"))
}
