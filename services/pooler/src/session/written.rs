//! A session as it is written down for the pooler that holds it next.

use std::sync::Arc;

use domain::clock::Clock;
use store::sessions::{Mode, Session as Row};

use super::{Facts, Home, Keeping, Recovery, Session};
use crate::instances::Instance;
use crate::rights::Rights;

impl Session {
    /// Everything another pooler needs to go on with it.
    pub(crate) fn to_store(&self) -> Row {
        let (facts, state) = (&self.facts, self.state.lock());
        let (database, role) = self.database_and_role();
        let (mode, username, parameters, queue_timeout) = match &facts.keeping {
            Keeping::Pinned { .. } => (Mode::Pinned, role, Vec::new(), Default::default()),
            Keeping::Auto { home, queue_timeout } => {
                let pool = home.pool();
                // The server's own: by it the server is known again. As which role the session logs in changes.
                let username = pool.registration.lock().server.username.clone();
                (Mode::Auto, username, pool.key.parameters.clone(), *queue_timeout)
            }
        };
        Row {
            id: facts.name.session,
            server_id: facts.name.server,
            instance_id: facts.instance.id,
            owner_id: facts.owner,
            access: facts.rights.lasting(),
            follows_elevations: facts.rights.follows_elevations(),
            mode,
            database,
            username,
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
        home: Home,
        rights: Rights,
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
            keeping: Keeping::Auto {
                home,
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
