//! With which credential a session that shares backends logs in: chosen again whenever it may go farther or less far than
//! before, and with every connection that is opened for it.

use std::sync::Arc;

use domain::access::Access;
use domain::credential::CredentialKind;
use pgconn::ConnectConfig;

use crate::error::{Loss, LossCause, PoolerError};
use crate::look::{LookError, look};
use crate::pooler::Pooler;
use crate::pools::{Pool, Registration};
use crate::session::{Home, Seat, Session};

impl Pooler {
    /// The pool that a session lives in, as far as it may go at this moment. One that only reads again stays where it is while the
    /// config database is away: whatever it logs in with, its blocks are read-only. It moves with the next execution that can.
    pub(super) async fn at_home(&self, session: &Session, home: &Home) -> Result<Arc<Pool>, PoolerError> {
        let access = session.facts.rights.access();
        if home.access() != access {
            match self.settle(session, home).await {
                Err(PoolerError::ConfigDatabase) if access == Access::ReadOnly => {}
                settled => drop(settled?),
            }
        }
        Ok(home.pool())
    }

    /// How to connect, by the registration as it is now; as it was last known while the config database is away. Nothing where
    /// the session lives in another pool by now.
    pub(super) async fn connect_config(
        &self,
        session: &Session,
        home: &Home,
        pool: &Pool,
    ) -> Result<Option<ConnectConfig>, PoolerError> {
        let known = match self.settle(session, home).await {
            // Its backends log in with what was chosen for this one, or it is not theirs.
            Ok(chosen) if chosen.kind() != pool.key.kind || *chosen.role() != pool.key.username => {
                return Ok(None);
            }
            Ok(chosen) => chosen,
            Err(PoolerError::ConfigDatabase) => pool.registration.lock().clone(),
            Err(error) => return Err(error),
        };
        let Registration { server, credential } = known;
        let (credential, parameters) = (credential?, pool.key.parameters.clone());
        let connector = &self.0.connector;
        let config = connector
            .prepare(&server, &credential, Some(&pool.key.database), parameters)
            .await?;
        Ok(Some(config))
    }

    /// Reads what the session logs in with now. Where that is another credential than its pool's, it moves.
    async fn settle(&self, session: &Session, home: &Home) -> Result<Registration, PoolerError> {
        let (pool, access) = (home.pool(), session.facts.rights.access());
        let read = self.registration(pool.key.server, session.facts.owner, access);
        let registration = read.await?.ok_or_else(changed)?;
        let (server, instances) = (&registration.server, &self.0.instances);
        if instances.current(server.instance_id) != instances.current(pool.key.instance)
            && instances.follow(pool.key.instance).await? != server.instance_id
        {
            return Err(changed());
        }
        let credential = registration.credential.clone()?;
        let same_role = credential.role == pool.key.username;
        if credential.kind == CredentialKind::Shared && pool.key.kind == CredentialKind::Shared && !same_role
        {
            return Err(changed());
        }
        let role = self.known_role(access, server, &credential, Some(&pool.key.database));
        let role = role.filter(|_| session.facts.script.is_none());
        if credential.kind == pool.key.kind && same_role {
            pool.registration.lock().clone_from(&registration);
            if home.access() != access {
                home.move_to(pool, access, role);
            }
            return Ok(registration);
        }
        tracing::debug!(session.id = %session.facts.name.session, credential = credential.kind.as_str(),
            "a session logs in with another credential from now on");
        if let Some(role) = &role {
            self.know_role_soon(session.facts.owner, server.clone(), Arc::clone(role));
        }
        let (database, parameters) = (pool.key.database.clone(), pool.key.parameters.clone());
        let next = self.0.pools.get(registration.clone(), database, parameters);
        home.move_to(next, access, role);
        Ok(registration)
    }

    /// A backend that rested with its session, if it is of the pool that the session lives in, or holds state of the session
    /// that may stay. Any other is of no use to it any more.
    pub(super) async fn fitting(&self, session: &Session, mut seat: Seat, pool: &Pool) -> Option<Seat> {
        let backend = &mut seat.backend;
        let is_of_pool = backend.pool.as_ref().is_some_and(|own| own.number == pool.number);
        if is_of_pool && backend.access == session.facts.rights.access() {
            return Some(seat);
        }
        if backend.hold.is_used() {
            match look(&mut backend.connection, &backend.baseline, drop).await {
                Ok(found) => backend.hold.found(found),
                Err(LookError::Refused) => backend.hold.hidden(),
                Err(LookError::Lost) => {
                    session.recover();
                    self.close_later(seat.backend);
                    return None;
                }
            }
        }
        match seat.backend.hold.pins().is_empty() {
            true if !is_of_pool => self.put_by(session, seat).await,
            false if session.keeps(&seat.backend) => return Some(seat),
            _ => self.close_later(seat.backend),
        }
        None
    }
}

fn changed() -> PoolerError {
    PoolerError::StateLost(Loss {
        cause: LossCause::ServerChanged,
        pins: domain::pin::Pins::NONE,
    })
}
