//! A session as it is written down for the pooler that holds it next.

use std::sync::Arc;

use domain::clock::Clock;
use store::sessions::{Mode, Session as Row};

use super::{Facts, Keeping, Recovery, Session};
use crate::inspection::Known;
use crate::instances::Instance;
use crate::pools::Pool;
use crate::rights::Rights;

impl Session {
    /// Everything another pooler needs to go on with it.
    pub(crate) fn to_store(&self) -> Row {
        let (facts, state) = (&self.facts, self.state.lock());
        let (mode, database, username, parameters, queue_timeout) = match &facts.keeping {
            Keeping::Pinned {
                database, username, ..
            } => (Mode::Pinned, database, username, Vec::new(), Default::default()),
            Keeping::Auto { pool, queue_timeout } => (
                Mode::Auto,
                &pool.key.database,
                &pool.key.username,
                pool.key.parameters.clone(),
                *queue_timeout,
            ),
        };
        Row {
            id: facts.name.session,
            server_id: facts.name.server,
            instance_id: facts.instance.id,
            owner_id: facts.owner,
            access: facts.rights.lasting(),
            follows_elevations: facts.rights.follows_elevations(),
            mode,
            database: database.clone(),
            username: username.clone(),
            parameters,
            idle_timeout: facts.idle_timeout,
            idle_in_transaction_timeout: facts.idle_in_transaction_timeout,
            queue_timeout,
            incarnation: state.incarnation,
            untold: state.untold,
            pins: state.pins,
            request: state.request,
            create_time: facts.create_time,
        }
    }

    /// An AUTO session that goes on here, without a backend.
    pub(crate) fn from_store(
        row: &Row,
        pool: Arc<Pool>,
        (rights, role): (Rights, Option<Arc<Known>>),
        instance: Arc<Instance>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let facts = Facts {
            name: domain::session::SessionName {
                server: row.server_id,
                session: row.id,
            },
            script: None,
            owner: row.owner_id,
            rights: Arc::new(rights),
            role,
            keeping: Keeping::Auto {
                pool,
                queue_timeout: row.queue_timeout,
            },
            instance,
            create_time: row.create_time,
            idle_timeout: row.idle_timeout,
            idle_in_transaction_timeout: row.idle_in_transaction_timeout,
        };
        let recovery = Recovery {
            incarnation: row.incarnation,
            untold: row.untold,
            request: row.request,
        };
        Self::recovered(facts, recovery, clock)
    }
}
