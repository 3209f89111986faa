//! Who may do what with a server: decided here again, from the user's own token and our own look at the config database.
//! Nobody is asked who somebody is, or what they were granted.

use std::sync::Arc;

use ::sessions::UserToken;
use auth::AuthError;
use domain::access::{Access, Caller, Denial, Permission, ServerFacts};
use domain::credential::{CredentialKind, CredentialMode};
use domain::id::{ServerId, UserId};
use domain::name::Identifier;
use store::servers::Server;

use super::Pooler;
use crate::error::PoolerError;
use crate::rights::Rights;
use crate::status::store_error;

impl Pooler {
    /// The server, and what the caller may do in that database of it; nothing for its maintenance database. To whom may not see
    /// the server it does not exist. Who wishes to do less than they may gets what they wish.
    pub(super) async fn admitted(
        &self,
        caller: &Caller,
        name: &str,
        permission: Permission,
        database: Option<&Identifier>,
        wish: Option<Access>,
    ) -> Result<(Server, Rights), PoolerError> {
        let id = server_id(name)?;
        let facts = self.server_facts(caller.user, id).await?;
        let facts = facts.ok_or_else(|| missing(name))?;
        caller.decided_by.read(facts.revision);
        let server = self.registered(id, name).await?;
        let database = database.unwrap_or(&server.maintenance_database).clone();
        let rights = Rights::decide(facts, database.clone(), permission, wish);
        let rights = rights.map_err(|denial| denied(denial, permission, name, Some(&database)))?;
        Ok((server, rights))
    }

    /// Whether the caller may name this credential. Where everybody logs in with their own, the others are for those who may set
    /// them.
    pub(super) async fn may_name(
        &self,
        token: &UserToken,
        name: &str,
        database: Option<&Identifier>,
        server: &Server,
        kind: CredentialKind,
    ) -> Result<(), PoolerError> {
        let is_own = matches!(kind, CredentialKind::Personal(_));
        if is_own || server.policy.credential_mode != CredentialMode::PersonalOnly {
            return Ok(());
        }
        let permission = Permission::ServersUpdate;
        let caller = self.caller(token, permission).await?;
        let admitted = self.admitted(&caller, name, permission, database, None);
        admitted.await.map(drop)
    }

    /// What bears on what a user may do with a server; nothing where one of the two is gone.
    pub(super) async fn server_facts(
        &self,
        user: UserId,
        server: ServerId,
    ) -> Result<Option<Arc<ServerFacts>>, PoolerError> {
        let access = self.0.store.access();
        let facts = Box::pin(access.server_facts(user, server))
            .await
            .map_err(store_error)?;
        Ok(facts.map(Arc::new))
    }

    async fn registered(&self, id: ServerId, name: &str) -> Result<Server, PoolerError> {
        let server = self.0.store.servers().get(id).await.map_err(store_error)?;
        server.ok_or_else(|| missing(name))
    }
}

fn server_id(name: &str) -> Result<ServerId, PoolerError> {
    name.strip_prefix("servers/")
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| missing(name))
}

fn missing(name: &str) -> PoolerError {
    PoolerError::NotFound {
        resource: name.chars().take(200).collect(),
    }
}

fn denied(denial: Denial, permission: Permission, name: &str, database: Option<&Identifier>) -> PoolerError {
    match (denial, database) {
        (Denial::Hidden, _) => missing(name),
        (Denial::Database, Some(database)) => PoolerError::DatabaseNotAllowed {
            database: database.to_string(),
        },
        _ => AuthError::PermissionMissing { permission }.into(),
    }
}
