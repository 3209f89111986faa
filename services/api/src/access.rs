//! The one way to a resource that a request names: read, and decided upon.
//!
//! Invariant: a resource the caller may not see answers exactly as one that does not exist; one they may see and not act
//! on says which permission is missing. What they do with it is decided again by the pooler, from their own token.

use auth::AuthError;
use domain::access::{Caller, Denial, Permission, ServerFacts, decide};
use domain::id::{BackupId, OperationId, ServerId};
use domain::name::Identifier;
use store::backups::Backup;
use store::operations::Operation;
use store::servers::Server;
use telemetry::rpc::Id;

use crate::context::Context;
use crate::error::{Error, ResourceKind};

/// A server that the caller may do something with.
#[derive(Debug)]
pub(crate) struct Accessed {
    /// The server.
    pub(crate) server: Server,
    /// What was decided upon.
    pub(crate) facts: ServerFacts,
}

/// The server, if the caller may do this with it.
pub(crate) async fn server(
    api: &Context,
    caller: &Caller,
    id: ServerId,
    permission: Permission,
) -> Result<Server, Error> {
    Ok(accessed(api, caller, id, permission).await?.server)
}

/// As [`server`], with what was decided.
pub(crate) async fn accessed(
    api: &Context,
    caller: &Caller,
    id: ServerId,
    permission: Permission,
) -> Result<Accessed, Error> {
    let (server, facts) = read(api, caller, id).await?;
    let decision = decide(&facts, None, facts.read_time);
    checked(decision.check(permission), permission, || no_server(id), "")?;
    Ok(Accessed { server, facts })
}

/// The server, if the caller may do this in that database of it. Empty: in its maintenance database.
pub(crate) async fn database(
    api: &Context,
    caller: &Caller,
    id: ServerId,
    permission: Permission,
    database: &str,
) -> Result<Server, Error> {
    // Before anything is read: what is wrong with a request must not tell what there is.
    let named = match database {
        "" => None,
        database => Some(
            database
                .parse::<Identifier>()
                .map_err(|error| Error::invalid("database", error))?,
        ),
    };
    let (server, facts) = read(api, caller, id).await?;
    let named = named.unwrap_or_else(|| server.maintenance_database.clone());
    let decision = decide(&facts, Some(&named), facts.read_time);
    checked(
        decision.check(permission),
        permission,
        || no_server(id),
        named.as_str(),
    )?;
    Ok(server)
}

/// An operation: the caller's own, or one of a server where they have the permission.
pub(crate) async fn operation(
    api: &Context,
    caller: &Caller,
    id: OperationId,
    permission: Permission,
) -> Result<Operation, Error> {
    // The call's closing line says what it was about.
    telemetry::rpc::record(Id::Operation, &id);
    let found = api.store.operations().get(id).await?;
    let operation = found.ok_or_else(|| no_operation(id))?;
    if operation.owner_id != caller.user {
        let seen = Permission::OperationsRead;
        of_others(api, caller, operation.server_id, (seen, permission), || {
            no_operation(id)
        })
        .await?;
    }
    Ok(operation)
}

/// A backup: the caller's own, or one of a server where they have the permission.
pub(crate) async fn backup(
    api: &Context,
    caller: &Caller,
    id: BackupId,
    permission: Permission,
) -> Result<Backup, Error> {
    let found = api.store.backups().get(id).await?;
    let backup = found.ok_or_else(|| no_backup(id))?;
    if backup.owner_id != caller.user {
        let seen = Permission::BackupsRead;
        of_others(api, caller, backup.server_id, (seen, permission), || {
            no_backup(id)
        })
        .await?;
    }
    Ok(backup)
}

/// A backup with what is in it: the caller's own, or one of a database that they may make backups of.
pub(crate) async fn backup_contents(api: &Context, caller: &Caller, id: BackupId) -> Result<Backup, Error> {
    let backup = self::backup(api, caller, id, Permission::BackupsRead).await?;
    if backup.owner_id != caller.user {
        let permission = Permission::BackupsCreate;
        database(
            api,
            caller,
            backup.server_id,
            permission,
            backup.database.as_str(),
        )
        .await?;
    }
    Ok(backup)
}

/// What a server that is not there answers.
pub(crate) fn no_server(id: ServerId) -> Error {
    Error::not_found(ResourceKind::Server, format_args!("servers/{id}"))
}

/// What an operation that is not there answers.
pub(crate) fn no_operation(id: OperationId) -> Error {
    Error::not_found(ResourceKind::Operation, format_args!("operations/{id}"))
}

/// What a backup that is not there answers.
pub(crate) fn no_backup(id: BackupId) -> Error {
    Error::not_found(ResourceKind::Backup, format_args!("backups/{id}"))
}

/// Whether the caller may do what is not about one server.
pub(crate) fn everywhere(caller: &Caller, permission: Permission) -> Result<(), Error> {
    if caller.may_everywhere(permission) {
        Ok(())
    } else {
        Err(AuthError::PermissionMissing { permission }.into())
    }
}

async fn read(api: &Context, caller: &Caller, id: ServerId) -> Result<(Server, ServerFacts), Error> {
    // The call's closing line says what it was about.
    telemetry::rpc::record(Id::Server, &id);
    // What is decided by is at least as new as what is decided upon.
    let server = api.store.servers().get(id).await?.ok_or_else(|| no_server(id))?;
    let rules = api.store.access();
    let facts = Box::pin(rules.server_facts(caller.user, id)).await?;
    let facts = facts.ok_or_else(|| no_server(id))?;
    caller.decided_by.read(facts.revision);
    Ok((server, facts))
}

async fn of_others(
    api: &Context,
    caller: &Caller,
    server: ServerId,
    (seen, permission): (Permission, Permission),
    missing: impl Fn() -> Error,
) -> Result<(), Error> {
    let rules = api.store.access();
    let facts = Box::pin(rules.server_facts(caller.user, server)).await?;
    let facts = facts.ok_or_else(&missing)?;
    caller.decided_by.read(facts.revision);
    let decision = decide(&facts, None, facts.read_time);
    if !decision.permissions.contains(seen) {
        return Err(missing());
    }
    checked(decision.check(permission), permission, missing, "")
}

fn checked(
    decided: Result<(), Denial>,
    permission: Permission,
    missing: impl FnOnce() -> Error,
    database: &str,
) -> Result<(), Error> {
    decided.map_err(|denial| match denial {
        Denial::Hidden => missing(),
        Denial::Missing => AuthError::PermissionMissing { permission }.into(),
        Denial::Database => Error::DatabaseNotAllowed {
            database: database.to_owned(),
        },
        Denial::Policy => Error::PolicyForbids { permission },
    })
}
