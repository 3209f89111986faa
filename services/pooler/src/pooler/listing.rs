//! Puts what the pooler has to do with where it can be shown.

use std::sync::Arc;
use std::time::Duration;

use domain::id::{ServerId, UserId};
use pgconn::ConnectConfig;
use tokio::time::Instant;

use super::Pooler;
use super::opening::Wish;
use crate::backend::Backend;
use crate::instances::Instance;
use crate::roster::{Holder, Listed, Place, Use};
use crate::slots::Slot;
use crate::tally::TallyKey;
use crate::visitors::{Opening, Visit, Visitor};

impl Pooler {
    /// Lists a connection that is about to be made.
    pub(super) fn enlist(
        &self,
        instance: &Instance,
        slot: &Slot,
        server: ServerId,
        config: &ConnectConfig,
    ) -> Listed {
        let place = Place {
            instance: instance.id,
            server,
            database: config.database.clone(),
            username: config.user.clone(),
            // A slot that is being used is somebody's.
            owner: slot.user().unwrap_or(UserId::from_uuid(uuid::Uuid::nil())),
        };
        let tally = self.0.tallies.get(TallyKey {
            instance: place.instance,
            server: place.server,
            owner: place.owner,
            database: place.database.clone(),
        });
        self.0.roster.enlist(place, tally, self.0.clock.now())
    }

    /// Shows who waits for a connection of their own.
    pub(super) fn visit(&self, wish: &Wish<'_>) -> Visit {
        let database = wish.database.unwrap_or(&wish.server.maintenance_database);
        self.0.visitors.enter(Visitor::Opening(Arc::new(Opening {
            place: Place {
                instance: wish.server.instance_id,
                server: wish.server.id,
                database: database.to_string(),
                username: wish.credential.role.to_string(),
                owner: wish.user,
            },
            holder: wish.holder.clone(),
            class: wish.class,
            create_time: self.0.clock.now(),
            since: Instant::now(),
        })))
    }
}

/// Notes that a backend is used for something that is neither a session nor a script.
pub(super) fn lend_to_other(backend: &Backend, holder: &str, waited: Duration) {
    if let Some(listing) = backend.listing() {
        listing.tally.assigned(waited);
        listing.set_use(Use::Active(Holder::Other(holder.into()), Arc::default()));
    }
}
