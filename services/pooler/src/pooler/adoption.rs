//! Going on with the sessions of another pooler: as if nothing had happened where it let go of them, recovered where it is
//! gone, and lost where they were held on one of its backends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::access::{Access, Permission, ServerFacts};
use domain::id::{IncarnationId, ServerId, UserId};
use domain::name::Identifier;
use domain::pin::{Pin, Pins};
use domain::session::SessionName;
use store::sessions::{Mode, Session as Row, Taken, Taking};
use tokio::time::sleep;

use super::Pooler;
use crate::error::{Loss, LossCause, PoolerError};
use crate::instances::Instance;
use crate::pools::{Pool, Registration};
use crate::rights::Rights;
use crate::session::{Home, Session};
use crate::status::{internal, store_error};

/// Sessions taken over at a time.
const BATCH: u32 = 1000;
/// Before the config database is asked again for what a session needs that was taken over.
const AGAIN: Duration = Duration::from_millis(250);

/// What leads to a pool: whose sessions on which server with which username, how far they may go, the database, and the
/// run-time parameters.
type Way = (
    ServerId,
    Identifier,
    UserId,
    Access,
    Identifier,
    Vec<(String, String)>,
);
/// Pools, by what leads to one.
type Pools = HashMap<Way, Option<Arc<Pool>>>;

/// What was looked for already.
#[derive(Default)]
struct Found {
    pools: Pools,
    /// What bears on what users may do.
    facts: HashMap<(UserId, ServerId), Option<Arc<ServerFacts>>>,
}

impl Pooler {
    /// Goes on with sessions of another pooler.
    pub(super) async fn adopt(
        &self,
        instance: &Arc<Instance>,
        from: IncarnationId,
        taking: Taking,
    ) -> Result<(), PoolerError> {
        let (pooler, at) = (self.clone(), Arc::clone(instance));
        self.in_turn(instance, async move {
            let mut found = Found::default();
            while pooler.adopt_some(&at, from, taking, &mut found).await? > 0 {}
            Ok(())
        })
        .await
    }

    /// Goes on with a session that is ours in the config database and, once those on their way have arrived, not here.
    pub(super) async fn adopt_if_lost(
        &self,
        instance: &Arc<Instance>,
        name: SessionName,
    ) -> Result<(), PoolerError> {
        let (pooler, at) = (self.clone(), Arc::clone(instance));
        self.in_turn(instance, async move {
            if pooler.0.registry.knows(name) {
                return Ok(());
            }
            tracing::warn!(session.id = %name.session, "a session of ours was not here");
            let (me, taking) = (pooler.0.me.incarnation, Taking::One(name.session));
            let mut found = Found::default();
            pooler.adopt_some(&at, me, taking, &mut found).await.map(drop)
        })
        .await
    }

    /// In a task of its own: what is ours in the config database must get here, whoever waits for it goes away or not.
    async fn in_turn(
        &self,
        instance: &Arc<Instance>,
        adopt: impl Future<Output = Result<(), PoolerError>> + Send + 'static,
    ) -> Result<(), PoolerError> {
        let turn = Arc::clone(&instance.adopting);
        let adopting = self.0.tasks.spawn(async move {
            let _until_they_are_here = turn.lock_owned().await;
            adopt.await
        });
        adopting.await.map_err(|error| internal(&error))?
    }

    async fn adopt_some(
        &self,
        instance: &Arc<Instance>,
        from: IncarnationId,
        taking: Taking,
        found: &mut Found,
    ) -> Result<usize, PoolerError> {
        let sessions = self.0.store.sessions();
        let taken = sessions
            .take(instance.id, from, self.0.me.incarnation, taking, BATCH)
            .await;
        let taken = taken.map_err(store_error)?;
        let count = taken.len();
        if count > 0 {
            tracing::info!(instance.id = %instance.id, sessions = count, ?taking, "sessions taken over");
        }
        for taken in taken {
            while let Err(error) = self.go_on(instance, &taken, found).await {
                if !matches!(error, PoolerError::ConfigDatabase) {
                    self.lose(&taken.session, LossCause::ServerChanged, taken.session.pins);
                    break;
                }
                tracing::debug!(%error, "a session that was taken over has to wait");
                let again = self.0.ended.run_until_cancelled(sleep(AGAIN)).await;
                again.ok_or(PoolerError::ShuttingDown)?;
            }
        }
        Ok(count)
    }

    /// Goes on with one session, or remembers that it was lost.
    async fn go_on(
        &self,
        instance: &Arc<Instance>,
        Taken {
            session,
            parked,
            loss,
        }: &Taken,
        found: &mut Found,
    ) -> Result<(), PoolerError> {
        let pins = match session.mode {
            Mode::Pinned => session.pins.with(Pin::Mode),
            Mode::Auto => session.pins,
        };
        if loss.is_some() {
            self.lose(session, LossCause::Drained, pins);
            return Ok(());
        }
        // One that was let go of had no pins: it was taken back, and that could not be written down.
        if !pins.is_empty() && (!*parked || session.mode == Mode::Auto) {
            self.lose(session, LossCause::PoolerLost, pins);
            return Ok(());
        }
        let rights = match self.rights_of(session, found).await? {
            Ok(rights) => rights,
            Err(cause) => {
                self.lose(session, cause, Pins::NONE);
                return Ok(());
            }
        };
        match self.pool_of(session, &mut found.pools).await? {
            Some(pool) => {
                let clock = Arc::clone(&self.0.clock);
                // The one its pool was chosen by. Where it may go farther it moves before its first execution.
                let (access, at) = (session.access, Arc::clone(instance));
                let Registration { server, credential } = pool.registration.lock().clone();
                let role = credential.ok().and_then(|credential| {
                    self.known_role(access, &server, &credential, Some(&session.database))
                });
                if let Some(role) = &role {
                    self.know_role_soon(session.owner_id, server, Arc::clone(role));
                }
                let home = Home::new(pool, access, role);
                let session = Arc::new(Session::from_store(session, home, rights, at, clock));
                // Without limits it is always taken.
                let _ = self.0.registry.add(&session, &[]);
            }
            None => self.lose(session, LossCause::ServerChanged, Pins::NONE),
        }
        Ok(())
    }

    fn lose(&self, session: &Row, cause: LossCause, pins: Pins) {
        let name = SessionName {
            server: session.server_id,
            session: session.id,
        };
        tracing::info!(session.id = %session.id, %cause, %pins, "session ended");
        self.0
            .registry
            .lost_elsewhere(name, session.owner_id, Loss { cause, pins });
        self.0.recorder.ended(session.id);
    }

    /// What lets the session's owner use its server, or why it is lost.
    async fn rights_of(
        &self,
        session: &Row,
        found: &mut Found,
    ) -> Result<Result<Rights, LossCause>, PoolerError> {
        let key = (session.owner_id, session.server_id);
        let facts = match found.facts.get(&key) {
            Some(facts) => facts.clone(),
            None => {
                let facts = self.server_facts(session.owner_id, session.server_id).await?;
                found.facts.insert(key, facts.clone());
                facts
            }
        };
        let Some(facts) = facts else {
            return Ok(Err(LossCause::ServerChanged));
        };
        let (database, wish) = (session.database.clone(), Some(session.access));
        let rights = Rights::decide(facts, database, Permission::SessionsUse, wish).ok();
        // What it was opened for it keeps or loses: it does not become another session.
        let rights = rights.filter(|rights| rights.lasting() == session.access);
        let rights = rights.map(|rights| match session.follows_elevations {
            true => rights.followed(),
            false => rights,
        });
        Ok(rights.ok_or(LossCause::AccessRevoked))
    }

    /// The pool a session lived in, if its server is still registered as it was.
    async fn pool_of(&self, session: &Row, pools: &mut Pools) -> Result<Option<Arc<Pool>>, PoolerError> {
        let key = (
            session.server_id,
            session.username.clone(),
            session.owner_id,
            session.access,
            session.database.clone(),
            session.parameters.clone(),
        );
        if let Some(found) = pools.get(&key) {
            return Ok(found.clone());
        }
        let (server, owner) = (session.server_id, session.owner_id);
        let registration = self.registration(server, owner, session.access).await?;
        let instances = &self.0.instances;
        let registration = registration.filter(|registration| {
            let server = &registration.server;
            // As which role it logged in last is of no more matter than which backend it had. But whose server is another role's
            // now, that is another server.
            server.username == session.username
                && instances.current(server.instance_id) == instances.current(session.instance_id)
        });
        let pool = registration.map(|registration| {
            let (database, parameters) = (session.database.clone(), session.parameters.clone());
            self.0.pools.get(registration, database, parameters)
        });
        pools.insert(key, pool.clone());
        Ok(pool)
    }
}
