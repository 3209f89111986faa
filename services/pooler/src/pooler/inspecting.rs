//! InspectServer, and looking at what roles may do when a session is opened that only reads.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::UserToken;
use domain::access::{Access, Permission};
use domain::id::{CredentialId, UserId};
use domain::name::Identifier;
use rpc::server::v1::{InspectServerRequest, InspectServerResponse};
use store::servers::{Credential, Server};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Pooler;
use super::opening::Wish;
use crate::backend::Backend;
use crate::error::PoolerError;
use crate::inspection::{Finding, Known, Passes, Subject, inspect};
use crate::ledger::Class;
use crate::request;
use crate::status::{internal, store_error};

const QUEUE: Duration = Duration::from_secs(10);
/// How old what is known may be when a session is opened.
const FRESH: Duration = Duration::from_mins(10);

/// Why a look came to nothing.
#[derive(Debug)]
pub(super) enum Unlooked {
    /// There was no connection.
    Connection(PoolerError),
    /// There was one, and no answer, or none in time: that says nothing of other roles and databases of the instance.
    Answer(PoolerError),
    /// The credential is another role's by now.
    OtherRole,
}

impl From<PoolerError> for Unlooked {
    fn from(error: PoolerError) -> Self {
        Self::Connection(error)
    }
}

impl From<Unlooked> for PoolerError {
    fn from(why: Unlooked) -> Self {
        match why {
            Unlooked::Connection(error) | Unlooked::Answer(error) => error,
            Unlooked::OtherRole => Self::CredentialMissing,
        }
    }
}

impl Pooler {
    pub(super) async fn inspect_server(
        &self,
        token: &UserToken,
        request: InspectServerRequest,
    ) -> Result<InspectServerResponse, PoolerError> {
        let caller = self.caller(token, Permission::ServersUse).await?;
        self.takes_new()?;
        let permission = Permission::ServersUse;
        let database = request::database(&request.database)?;
        let (server, _) = self
            .admitted(&caller, &request.name, permission, database.as_ref(), None)
            .await?;
        let max_age = request::max_age(request.max_age)?;
        let credential = match request::credential(request.credential, caller.user)? {
            Some(kind) => {
                Box::pin(self.may_name(token, &request.name, database.as_ref(), &server, kind)).await?;
                self.login_of(&server, kind).await?
            }
            // What it is about is whether it can be kept from writing.
            None => self.login(&server, caller.user, Access::ReadOnly).await?,
        };
        let subject = Subject::new(&server, &credential, database.as_ref());
        let known = self.0.inspections.of(subject);
        let finding = match self.held(&server, &known, max_age).await? {
            Some(finding) => finding,
            None => {
                self.look_at_role(caller.user, &server, &known, credential, QUEUE)
                    .await?
            }
        };
        Ok(InspectServerResponse {
            inspection: Some(finding.describe(&known.subject)),
        })
    }

    /// What is known of a role, here or to any pooler, if that is not older and nothing was changed since.
    pub(super) async fn held(
        &self,
        server: &Server,
        known: &Known,
        max_age: Duration,
    ) -> Result<Option<Finding>, PoolerError> {
        let credential = self.credential_id(known).await?;
        let passes = self.passes(server).await?;
        let since = self.0.clock.now() - max_age;
        let holds = |finding: &Finding| finding.holds(credential, &passes, since);
        if let Some(finding) = known.finding().filter(holds) {
            return Ok(Some(finding));
        }
        self.recall(known).await?;
        Ok(known.finding().filter(holds))
    }

    async fn passes(&self, server: &Server) -> Result<Passes, PoolerError> {
        let policy = self.0.store.inspection_policies().get(server.id).await;
        Ok(Passes::new(server, policy.map_err(store_error)?))
    }

    /// The role's credential as it is stored now; nothing where it logs in as another role.
    async fn credential_id(&self, known: &Known) -> Result<Option<CredentialId>, PoolerError> {
        let Subject {
            server,
            kind,
            username,
            ..
        } = &known.subject;
        let found = self.0.store.servers().credential(*server, *kind).await;
        let found = found.map_err(store_error)?;
        Ok(found
            .filter(|credential| credential.role == *username)
            .map(|credential| credential.id))
    }

    /// Looks what a role may do, on a connection of its own that logs in with this credential.
    pub(super) async fn look_at_role(
        &self,
        user: UserId,
        server: &Server,
        known: &Arc<Known>,
        credential: Credential,
        queue_timeout: Duration,
    ) -> Result<Finding, Unlooked> {
        // What is found of one role must not be kept as another's.
        if Subject::new(server, &credential, Some(&known.subject.database)) != known.subject {
            return Err(Unlooked::OtherRole);
        }
        let id = credential.id;
        let opened = Box::pin(self.open(Wish {
            user,
            server,
            credential,
            database: Some(&known.subject.database),
            parameters: Vec::new(),
            class: Class::Interactive,
            holder: format!("servers/{}/inspection", server.id),
            queue_timeout,
            insist: false,
        }))
        .await?;
        // In a task of its own: a caller who goes away must not take the goodbye along.
        let (reply, answer) = oneshot::channel();
        let (pooler, server, known) = (self.clone(), server.clone(), Arc::clone(known));
        let mut backend = opened.backend;
        self.0.tasks.spawn(async move {
            let finding = pooler.look_as(&mut backend, &server, &known, Some(id)).await;
            backend.close().await;
            // Nobody may wait any more.
            let _ = reply.send(finding);
        });
        let answer = answer.await.map_err(|error| Unlooked::Answer(internal(&error)))?;
        answer.map_err(Unlooked::Answer)
    }

    /// Looks what a role may do, on a connection of its that nobody used yet.
    pub(super) async fn look_on(
        &self,
        backend: &mut Backend,
        server: &Server,
        known: &Known,
    ) -> Result<Finding, PoolerError> {
        let credential = self.credential_id(known).await?;
        self.look_as(backend, server, known, credential).await
    }

    async fn look_as(
        &self,
        backend: &mut Backend,
        server: &Server,
        known: &Known,
        credential: Option<CredentialId>,
    ) -> Result<Finding, PoolerError> {
        let passes = self.passes(server).await?;
        let (began, now) = (Instant::now(), self.0.clock.now());
        let finding = inspect(&mut backend.connection, credential, passes, now).await?;
        Ok(self.keep_finding(known, credential, finding, began).await)
    }

    /// What is known of the role of a session that is opened now: nothing where that may write.
    pub(super) fn known_role(
        &self,
        access: Access,
        server: &Server,
        credential: &Credential,
        database: Option<&Identifier>,
    ) -> Option<Arc<Known>> {
        let subject = Subject::new(server, credential, database);
        (access == Access::ReadOnly).then(|| self.0.inspections.of(subject))
    }

    /// Has it known what the role of a new session may do, on its own connection, where that is not known yet. What comes in the
    /// way leaves it unknown: the session says so. Afterwards the connection may be of no more use.
    pub(super) async fn know_role_on(&self, backend: &mut Backend, server: &Server, known: &Known) {
        let looked = match self.held(server, known, FRESH).await {
            Ok(None) if self.begins_look(known) => self.look_on(backend, server, known).await.map(drop),
            held => held.map(drop),
        };
        if let Err(error) = looked {
            tracing::warn!(server.id = %server.id, %error, "it could not be looked what a role may do");
        }
    }

    /// What failed is not tried again with each session.
    fn begins_look(&self, known: &Known) -> bool {
        let now = self.0.clock.now();
        known.begins_look(now, now - FRESH)
    }

    /// As [`Pooler::know_role_on`], for a session that has no connection yet. Nobody waits for it.
    pub(super) fn know_role_soon(&self, user: UserId, server: Server, known: Arc<Known>) {
        let pooler = self.clone();
        self.0.tasks.spawn(async move {
            let draining = pooler.0.draining.clone();
            let looked = async {
                match pooler.held(&server, &known, FRESH).await {
                    Ok(None) if pooler.begins_look(&known) => {
                        let credential = pooler.login_of(&server, known.subject.kind).await?;
                        match pooler
                            .look_at_role(user, &server, &known, credential, QUEUE)
                            .await
                        {
                            // There is no session of that role any more to look for.
                            Ok(_) | Err(Unlooked::OtherRole) => Ok(()),
                            Err(error) => Err(error.into()),
                        }
                    }
                    held => held.map(drop),
                }
            };
            if let Some(Err(error)) = draining.run_until_cancelled(looked).await {
                tracing::warn!(server.id = %server.id, %error, "it could not be looked what a role may do");
            }
        });
    }
}
