//! SHOW POOLS and SHOW STATS.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use domain::pin::Pin;
use rpc::pool::v1 as proto;
use rpc::query::v1::{PinReason, SessionMode};

use super::backends::state;
use super::clients::{Client, whole_and_micros};
use super::{Viewer, sum};
use crate::pooler::Pooler;
use crate::roster::{Holder, Place, Use};
use crate::session::{Activity, pin_reasons};
use crate::tally::Totals;

/// A pool while it is summed up.
#[derive(Debug, Default)]
struct Row {
    shown: proto::Pool,
    pins: BTreeMap<Pin, i32>,
    longest_wait: Duration,
    pinned_clients: bool,
    sharing_clients: bool,
}

impl Row {
    fn add_client(&mut self, client: &Client) {
        match client.mode {
            Some(SessionMode::Pinned) => self.pinned_clients = true,
            Some(SessionMode::Auto) => self.sharing_clients = true,
            Some(SessionMode::Unspecified) | None => {}
        }
        if client.view.activity == Activity::Waiting {
            self.shown.cl_waiting += 1;
            self.longest_wait = self.longest_wait.max(client.waited().unwrap_or_default());
        } else {
            self.shown.cl_active += 1;
        }
        for pin in client.view.pins.iter() {
            *self.pins.entry(pin).or_default() += 1;
        }
    }

    fn add_backend(&mut self, state: proto::BackendState, client: Option<&Client>) {
        let shown = &mut self.shown;
        match state {
            proto::BackendState::Active => shown.sv_active += 1,
            proto::BackendState::Idle => shown.sv_idle += 1,
            proto::BackendState::Used => shown.sv_used += 1,
            proto::BackendState::Tested => shown.sv_tested += 1,
            proto::BackendState::Login => shown.sv_login += 1,
            proto::BackendState::Closing => shown.sv_closing += 1,
            proto::BackendState::Unspecified => {}
        }
        if let Some(Client { view, .. }) = client {
            let pinned = !view.pins.is_empty();
            shown.sv_pinned += i32::from(pinned);
            shown.sv_pinned_idle += i32::from(pinned && view.activity == Activity::Idle);
            shown.sv_being_canceled += i32::from(view.activity == Activity::Cancelling);
        }
    }

    fn finish(mut self, place: &Place, pooler: String, paused: bool) -> proto::Pool {
        let mode = match (self.pinned_clients, self.sharing_clients) {
            (true, true) => proto::PoolMode::Mixed,
            (true, false) => proto::PoolMode::Session,
            (false, true) => proto::PoolMode::Transaction,
            (false, false) => proto::PoolMode::Unspecified,
        };
        let pin_count = |(pin, sessions): (Pin, i32)| {
            let reasons = pin_reasons([pin].into_iter().collect());
            let reason = reasons.first().copied().unwrap_or(PinReason::Unspecified.into());
            proto::PinCount { reason, sessions }
        };
        let shown = &mut self.shown;
        (shown.maxwait, shown.maxwait_us) = whole_and_micros(self.longest_wait);
        shown.pool_mode = mode.into();
        shown.pin_reasons = self.pins.into_iter().map(pin_count).collect();
        shown.database.clone_from(&place.database);
        shown.user.clone_from(&place.username);
        shown.instance = format!("instances/{}", place.instance);
        shown.server = format!("servers/{}", place.server);
        shown.owner = format!("users/{}", place.owner);
        shown.pooler = pooler;
        shown.paused = paused;
        self.shown
    }
}

impl Pooler {
    pub(super) fn show_pools(&self, viewer: Viewer) -> Vec<proto::Pool> {
        let clients = self.clients(viewer);
        let mut by_holder: HashMap<&Holder, &Client> = HashMap::new();
        let mut rows: BTreeMap<Place, Row> = BTreeMap::new();
        for client in &clients {
            rows.entry(client.place.clone()).or_default().add_client(client);
            by_holder.insert(&client.holder, client);
        }
        for listing in self.0.roster.all() {
            if !viewer.sees(listing.place.owner) {
                continue;
            }
            let standing = listing.standing();
            let client = match &standing.used_for {
                Use::Active(holder, _) => by_holder.get(holder).copied(),
                _ => None,
            };
            let mut place = listing.place.clone();
            place.instance = self.0.instances.current(place.instance);
            let state = state(&standing, self.check_delay(&listing));
            rows.entry(place).or_default().add_backend(state, client);
        }
        let shown = rows.into_iter().map(|(place, row)| {
            let instance = self.0.instances.known(place.instance);
            let paused = instance.is_some_and(|instance| instance.pause_time().is_some());
            row.finish(&place, self.name(), paused)
        });
        shown.collect()
    }

    pub(super) fn show_stats(&self, viewer: Viewer) -> Vec<proto::DatabaseStats> {
        let counted = self.0.tallies.all().into_iter();
        // Where nobody got in, by a wrong name for example, there is nothing to tell.
        let visible =
            counted.filter(|(key, tally)| viewer.sees(key.owner) && tally.totals() != Totals::default());
        let stats = visible.map(|(key, tally)| {
            let (total, average) = (tally.totals(), tally.averages());
            proto::DatabaseStats {
                database: key.database,
                total_server_assignment_count: sum(total.assignments),
                total_xact_count: sum(total.transactions),
                total_query_count: sum(total.queries),
                total_received: sum(total.received),
                total_sent: sum(total.sent),
                total_xact_time: sum(total.transaction_time),
                total_query_time: sum(total.query_time),
                total_wait_time: sum(total.wait_time),
                avg_server_assignment_count: sum(average.assignments),
                avg_xact_count: sum(average.transactions),
                avg_query_count: sum(average.queries),
                avg_recv: sum(average.received),
                avg_sent: sum(average.sent),
                avg_xact_time: sum(average.transaction_time),
                avg_query_time: sum(average.query_time),
                avg_wait_time: sum(average.wait_time),
                instance: self.instance_name(key.instance),
                server: format!("servers/{}", key.server),
                owner: format!("users/{}", key.owner),
                pooler: self.name(),
            }
        });
        stats.collect()
    }
}
