//! Which sessions may share backends: those of one pool.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use domain::credential::{CredentialKind, NoCredential};
use domain::id::{InstanceId, ServerId};
use domain::name::Identifier;
use parking_lot::Mutex;
use store::servers::{Credential, Server};

use crate::ledger::PoolNumber;

/// A server as it is registered, with what somebody logs in with there, sealed.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) server: Server,
    pub(crate) credential: Result<Credential, NoCredential>,
}

impl Registration {
    /// Whose credential it is. Where there is none it is the server's own that is missing.
    pub(crate) fn kind(&self) -> CredentialKind {
        let kind = self.credential.as_ref().map(|credential| credential.kind);
        kind.unwrap_or(CredentialKind::Shared)
    }

    /// The PostgreSQL role that logs in.
    pub(crate) fn role(&self) -> &Identifier {
        let role = self.credential.as_ref().map(|credential| &credential.role);
        role.unwrap_or(&self.server.username)
    }
}

/// Backends that differ only in what their last session left there.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) number: PoolNumber,
    pub(crate) key: PoolKey,
    /// As it was read last: what is gone by while the config database is away.
    pub(crate) registration: Mutex<Registration>,
}

/// What backends of a pool have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) server: ServerId,
    pub(crate) instance: InstanceId,
    /// Backends that logged in with one credential are never used for who logs in with another.
    pub(crate) kind: CredentialKind,
    pub(crate) username: Identifier,
    pub(crate) database: Identifier,
    pub(crate) parameters: Vec<(String, String)>,
}

/// The pools that sessions live in.
#[derive(Debug, Default)]
pub(crate) struct Pools(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<PoolKey, Weak<Pool>>,
    last: u64,
}

impl Pools {
    /// The pool of sessions on this database with these run-time parameters.
    pub(crate) fn get(
        &self,
        registration: Registration,
        database: Identifier,
        parameters: Vec<(String, String)>,
    ) -> Arc<Pool> {
        let key = PoolKey {
            server: registration.server.id,
            instance: registration.server.instance_id,
            kind: registration.kind(),
            username: registration.role().clone(),
            database,
            parameters,
        };
        let mut known = self.0.lock();
        if let Some(pool) = known.by_key.get(&key).and_then(Weak::upgrade) {
            *pool.registration.lock() = registration;
            return pool;
        }
        // Now and then, so that pools nobody lives in any more do not add up.
        if known.by_key.len().is_power_of_two() {
            known.by_key.retain(|_, pool| pool.strong_count() > 0);
        }
        known.last += 1;
        let pool = Arc::new(Pool {
            number: PoolNumber(known.last),
            key: key.clone(),
            registration: Mutex::new(registration),
        });
        known.by_key.insert(key, Arc::downgrade(&pool));
        pool
    }
}
