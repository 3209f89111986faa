//! SHOW SERVERS.

use std::time::Duration;

use domain::limits::{Limit, Limits};
use domain::pin::Pins;
use rpc::pool::v1 as proto;

use super::clients::at;
use super::{Viewer, sum};
use crate::pooler::Pooler;
use crate::roster::{Holder, Listing, Standing, Use};
use crate::session::pin_reasons;
use crate::timestamp::timestamp;

/// How a connection stands, in PgBouncer's words and one of ours.
pub(super) fn state(standing: &Standing, check_delay: Duration) -> proto::BackendState {
    match standing.used_for {
        Use::Login => proto::BackendState::Login,
        Use::Active(..) => proto::BackendState::Active,
        Use::Resting(_) if standing.since.elapsed() >= check_delay => proto::BackendState::Used,
        Use::Resting(_) => proto::BackendState::Idle,
        Use::Tested => proto::BackendState::Tested,
        Use::Closing => proto::BackendState::Closing,
    }
}

impl Pooler {
    /// How long a backend of this connection's instance may rest before it has to answer.
    pub(super) fn check_delay(&self, listing: &Listing) -> Duration {
        let instance = self.0.instances.known(listing.place.instance);
        let limits = instance.map_or_else(Limits::default, |instance| instance.limits());
        limits.time(Limit::ServerCheckDelay)
    }

    pub(super) fn show_backends(&self, viewer: Viewer) -> Vec<proto::Backend> {
        let now = self.0.clock.now();
        let listings = self.0.roster.all().into_iter();
        let visible = listings.filter(|listing| viewer.sees(listing.place.owner));
        let backend = |listing: std::sync::Arc<Listing>| {
            let standing = listing.standing();
            let place = &listing.place;
            let instance = self.instance_name(place.instance);
            let process_id = listing.process_id();
            let (link, pins, resting_session) = match &standing.used_for {
                Use::Active(holder, _) => (holder.to_string(), self.pins_of(holder), None),
                Use::Resting(session) => (String::new(), Pins::NONE, *session),
                Use::Login | Use::Tested | Use::Closing => (String::new(), Pins::NONE, None),
            };
            let (received, sent) = listing.traffic();
            let name = match process_id {
                0 => String::new(),
                process_id => format!("{instance}/backends/{process_id}"),
            };
            proto::Backend {
                user: place.username.clone(),
                database: place.database.clone(),
                state: state(&standing, self.check_delay(&listing)).into(),
                addr: standing
                    .address
                    .map(|address| address.ip().to_string())
                    .unwrap_or_default(),
                port: standing.address.map_or(0, |address| address.port().into()),
                connect_time: Some(timestamp(listing.create_time)),
                request_time: standing.taken.map(|taken| at(now, taken)),
                close_needed: listing.is_close_needed(),
                link,
                remote_pid: process_id,
                name,
                instance,
                server: format!("servers/{}", place.server),
                owner: format!("users/{}", place.owner),
                pooler: self.name(),
                resting_session: resting_session.map(|name| name.to_string()).unwrap_or_default(),
                pins: pin_reasons(pins),
                bytes_received: sum(received),
                bytes_sent: sum(sent),
            }
        };
        visible.map(backend).collect()
    }

    /// What holds the session that has a connection there.
    fn pins_of(&self, holder: &Holder) -> Pins {
        let Holder::Session(name) = holder else {
            return Pins::NONE;
        };
        let session = self.0.registry.get(*name);
        session.map_or(Pins::NONE, |session| session.view().pins)
    }
}
