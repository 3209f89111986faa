//! OpenSession: a session with a backend for life, or one that shares.

use std::sync::Arc;

use ::sessions::UserToken;
use domain::access::{Caller, Permission};
use domain::limits::Limit;
use domain::name::Identifier;
use domain::session::{SessionId, SessionName};
use rpc::query;
use rpc::query::v1::{OpenSessionRequest, SessionMode};
use store::servers::{Credential, Server};

use super::Pooler;
use super::opening::Wish;
use super::sessions::note;
use crate::error::{LossCause, PoolerError, TargetError};
use crate::instances::Instance;
use crate::ledger::Class;
use crate::pools::{Pool, Registration};
use crate::request::Opening;
use crate::rights::Rights;
use crate::session::{self, Facts, Home, Keeping, Session};

impl Pooler {
    pub(super) async fn open_session(
        &self,
        token: &UserToken,
        request: OpenSessionRequest,
    ) -> Result<query::v1::Session, PoolerError> {
        let caller = self.caller(token, Permission::SessionsUse).await?;
        self.takes_new()?;
        let name = request.server.clone();
        let opening = Opening::new(request)?;
        let permission = Permission::SessionsUse;
        let database = opening.database.as_ref();
        let (server, rights) = self
            .admitted(&caller, &name, permission, database, opening.access)
            .await?;
        let name = SessionName {
            server: server.id,
            session: SessionId::generate(self.0.me.pooler, &*self.0.random),
        };
        note(name);
        match opening.mode {
            SessionMode::Auto => self.open_shared(&caller, server, rights, opening, name).await,
            SessionMode::Unspecified | SessionMode::Pinned => {
                self.open_pinned(&caller, &server, rights, opening, name).await
            }
        }
    }

    /// The pool of sessions on a server's database that log in so and start with these run-time parameters.
    pub(super) fn pool(
        &self,
        server: Server,
        credential: Credential,
        database: Option<Identifier>,
        parameters: Vec<(String, String)>,
    ) -> Arc<Pool> {
        let database = database.unwrap_or_else(|| server.maintenance_database.clone());
        let registration = Registration {
            server,
            credential: Ok(credential),
        };
        self.0.pools.get(registration, database, parameters)
    }

    /// A session that has no backend before it needs one.
    async fn open_shared(
        &self,
        caller: &Caller,
        server: Server,
        rights: Rights,
        opening: Opening,
        name: SessionName,
    ) -> Result<query::v1::Session, PoolerError> {
        // So that the session is where its instance's budget is.
        let instance = self.0.instances.own(server.instance_id).await?;
        let (database, parameters) = (opening.database.clone(), opening.parameters.clone());
        let rights = rights.follow_elevations(opening.access);
        let access = rights.access();
        let credential = self.login(&server, caller.user, access).await?;
        let role = self.known_role(access, &server, &credential, database.as_ref());
        let registered = server.clone();
        let pool = self.pool(server, credential, database, parameters);
        let keeping = Keeping::Auto {
            home: Home::new(pool, access, role.clone()),
            queue_timeout: opening.queue_timeout,
        };
        if let Some(role) = role {
            self.know_role_soon(caller.user, registered, role);
        }
        let session = self.new_session(caller, rights, &opening, (name, keeping, instance));
        let described = session.describe();
        self.admit(&session)?;
        if let Err(error) = self.write_down(&session).await {
            self.begin_close(&session, LossCause::Closed);
            return Err(error);
        }
        if self.0.closing.is_cancelled() {
            self.begin_close(&session, LossCause::Drained);
        }
        described
    }

    /// Sees to it that another pooler can go on with a session, or tell of its end, if this one dies.
    async fn write_down(&self, session: &Session) -> Result<(), PoolerError> {
        if self.0.recorder.session(session.to_store()).await? {
            Ok(())
        } else {
            // Deleted meanwhile.
            Err(PoolerError::NotFound {
                resource: format!("servers/{}", session.facts.name.server),
            })
        }
    }

    /// A session with a backend for life.
    async fn open_pinned(
        &self,
        caller: &Caller,
        server: &Server,
        rights: Rights,
        opening: Opening,
        name: SessionName,
    ) -> Result<query::v1::Session, PoolerError> {
        let credential = self.login(server, caller.user, rights.access()).await?;
        let wish = || Wish {
            user: caller.user,
            server,
            credential: credential.clone(),
            database: opening.database.as_ref(),
            parameters: opening.parameters.clone(),
            class: Class::Pinned,
            holder: name.to_string(),
            queue_timeout: opening.queue_timeout,
            insist: false,
        };
        let mut opened = Box::pin(self.open(wish())).await?;
        if opened.facts.is_pooler {
            opened.backend.close().await;
            return Err(TargetError::IsPooler.into());
        }
        let role = self.known_role(rights.access(), server, &credential, opening.database.as_ref());
        if let Some(role) = &role {
            self.know_role_on(&mut opened.backend, server, role).await;
            if !opened.backend.connection.is_quiet() {
                // The server is still at it. The session gets a connection that nothing was asked on.
                opened.backend.cancel_unseen();
                opened.backend.close().await;
                opened = Box::pin(self.open(wish())).await?;
            }
        }
        let database = opening.database.as_ref().unwrap_or(&server.maintenance_database);
        let keeping = Keeping::Pinned {
            database: database.clone(),
            username: credential.role.clone(),
            backend_pid: opened.backend.connection.process_id().unwrap_or_default(),
            role,
        };
        let session = self.new_session(caller, rights, &opening, (name, keeping, opened.instance));
        session.holds(&opened.backend);
        let described = session.describe();
        if let Err(refused) = self.admit(&session) {
            self.close_later(opened.backend);
            return Err(refused);
        }
        self.0
            .tasks
            .spawn(session::run(Arc::clone(&session), opened.backend, self.clone()));
        if let Err(error) = self.write_down(&session).await {
            self.begin_close(&session, LossCause::Closed);
            return Err(error);
        }
        // Opened while the drain began: it is not left behind.
        if self.0.closing.is_cancelled() {
            self.begin_close(&session, LossCause::Drained);
        }
        described
    }

    /// Takes a session in, unless its user has as many as may be: on its instance, or on its server where their grant says so.
    fn admit(&self, session: &Arc<Session>) -> Result<(), PoolerError> {
        let facts = &session.facts;
        let limit = facts.instance.limits().count(Limit::MaxUserSessions);
        let instances = &self.0.instances;
        let here = |other: &Session| {
            other.facts.owner == facts.owner
                && instances.current(other.facts.instance.id) == instances.current(facts.instance.id)
        };
        let granted = facts.rights.limits().get(Limit::MaxUserSessions);
        let granted = granted.map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let there = |other: &Session| {
            other.facts.owner == facts.owner && other.facts.name.server == facts.name.server
        };
        let added = self.0.registry.add(session, &[(limit, &here), (granted, &there)]);
        added.map_err(|limit| PoolerError::TooManySessions { limit })
    }

    fn new_session(
        &self,
        caller: &Caller,
        rights: Rights,
        opening: &Opening,
        (name, keeping, instance): (SessionName, Keeping, Arc<Instance>),
    ) -> Arc<Session> {
        let facts = Facts {
            name,
            script: None,
            owner: caller.user,
            rights: Arc::new(rights),
            keeping,
            instance,
            create_time: self.0.clock.now(),
            idle_timeout: opening.idle_timeout,
            idle_in_transaction_timeout: opening.idle_in_transaction_timeout,
        };
        Arc::new(Session::new(facts, Arc::clone(&self.0.clock)))
    }
}
