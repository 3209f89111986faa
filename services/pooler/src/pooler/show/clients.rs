//! SHOW CLIENTS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::pin::Pins;
use rpc::pool::v1 as proto;
use rpc::query::v1::{SessionMode, TransactionStatus};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Viewer, count};
use crate::ledger::Class;
use crate::pooler::Pooler;
use crate::roster::{Holder, Place, Use};
use crate::session::{Activity, Session, View, pin_reasons};
use crate::timestamp::timestamp;
use crate::visitors::Visitor;

/// A client at one moment.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) place: Place,
    pub(super) holder: Holder,
    /// How it comes by a backend, unless it is a connection for something else.
    pub(super) mode: Option<SessionMode>,
    pub(super) view: View,
    create_time: OffsetDateTime,
}

impl Client {
    pub(super) fn waited(&self) -> Option<Duration> {
        self.view.waits_since.map(|since| since.elapsed())
    }

    fn of_session(session: &Session) -> Self {
        let mode = match session.pool() {
            Some(_) => SessionMode::Auto,
            None => SessionMode::Pinned,
        };
        Self {
            place: session.place(),
            holder: session.as_holder(),
            mode: Some(mode),
            view: session.view(),
            create_time: session.facts.create_time,
        }
    }

    fn of_visitor(visitor: &Visitor) -> Self {
        let opening = match visitor {
            Visitor::Script(session) => return Self::of_session(session),
            Visitor::Opening(opening) => opening,
        };
        Self {
            place: opening.place.clone(),
            holder: Holder::Other(opening.holder.as_str().into()),
            mode: (opening.class == Class::Pinned).then_some(SessionMode::Pinned),
            view: View {
                activity: Activity::Waiting,
                pins: Pins::NONE,
                transaction: TransactionStatus::Idle,
                waits_since: Some(opening.since),
                waits_for: None,
                last_use_time: opening.create_time,
                ending: false,
            },
            create_time: opening.create_time,
        }
    }
}

impl Pooler {
    /// The clients that a viewer sees, with their instances as they are known now.
    pub(super) fn clients(&self, viewer: Viewer) -> Vec<Client> {
        let sessions = self.0.registry.all();
        let sessions = sessions.iter().filter(|session| viewer.sees(session.facts.owner));
        let visitors = self.0.visitors.all();
        let visitors = visitors.iter().map(Client::of_visitor);
        let visitors = visitors.filter(|client| viewer.sees(client.place.owner));
        let clients = sessions
            .map(|session| Client::of_session(session))
            .chain(visitors);
        let clients = clients.map(|mut client| {
            client.place.instance = self.0.instances.current(client.place.instance);
            client
        });
        clients.collect()
    }

    pub(super) fn show_clients(&self, viewer: Viewer) -> Vec<proto::Client> {
        let mut links: HashMap<Holder, Arc<crate::roster::Listing>> = HashMap::new();
        for listing in self.0.roster.all() {
            if let Use::Active(holder, _) = listing.standing().used_for {
                links.insert(holder, listing);
            }
        }
        let clients = self.clients(viewer).into_iter();
        let shown = clients.map(|client| {
            let link = links.get(&client.holder).map(|listing| {
                let instance = self.instance_name(listing.place.instance);
                format!("{instance}/backends/{}", listing.process_id())
            });
            self.show_client(&client, link.unwrap_or_default())
        });
        shown.collect()
    }

    fn show_client(&self, client: &Client, link: String) -> proto::Client {
        let (place, view) = (&client.place, &client.view);
        let (wait, wait_us) = whole_and_micros(client.waited().unwrap_or_default());
        let waits_for = view.waits_for.as_ref();
        let position = waits_for.and_then(|(slots, ticket)| slots.position(*ticket));
        let state = match view.activity {
            Activity::Active => proto::ClientState::Active,
            Activity::Cancelling => proto::ClientState::ActiveCancelReq,
            Activity::Idle => proto::ClientState::Idle,
            Activity::Waiting => proto::ClientState::Waiting,
        };
        let mode = match (&client.holder, client.mode) {
            // A script has no mode of its own.
            (Holder::Script(..), _) | (_, None) => SessionMode::Unspecified,
            (_, Some(mode)) => mode,
        };
        proto::Client {
            user: place.username.clone(),
            database: place.database.clone(),
            state: state.into(),
            connect_time: Some(timestamp(client.create_time)),
            request_time: Some(timestamp(view.last_use_time)),
            wait,
            wait_us,
            close_needed: view.ending,
            link,
            name: client.holder.to_string(),
            owner: format!("users/{}", place.owner),
            server: format!("servers/{}", place.server),
            instance: format!("instances/{}", place.instance),
            pooler: self.name(),
            mode: mode.into(),
            pins: pin_reasons(view.pins),
            transaction_status: view.transaction.into(),
            queue_position: position.map_or(0, count),
        }
    }
}

/// A time as PgBouncer writes it: whole seconds, and the microseconds beyond.
pub(super) fn whole_and_micros(time: Duration) -> (i64, i32) {
    let whole = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    (whole, count(time.subsec_micros()))
}

/// When something happened that long ago on our clock.
pub(super) fn at(now: OffsetDateTime, then: Instant) -> prost_types::Timestamp {
    timestamp(now - then.elapsed())
}
