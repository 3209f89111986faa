//! A call from its first byte to its record.

use std::sync::Arc;

use ::audit::{AuditLog, Entry, Kind, Place, Unavailable};
use auth::Seen;
use domain::access::{Caller, CredentialKind};
use domain::source_address;
use http::request::Parts;
use parking_lot::Mutex;
use rpc::error;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::methods::Method;
use super::reader::NameReader;
use super::{Audit, CallerAddress};
use crate::shares::Holding;

/// A call that is not over. Dropped before it is, it was given up by its caller.
#[derive(Debug)]
pub struct OpenCall {
    log: AuditLog,
    method: Arc<Method>,
    /// Room for its record, where it must have one.
    place: Option<Place>,
    /// Its place in the share of who calls, where it has room.
    holding: Option<Holding>,
    seen: Seen,
    names: Arc<Mutex<NameReader>>,
    address: String,
    correlation_id: String,
    started: Instant,
    bytes: u64,
    is_over: bool,
}

impl OpenCall {
    /// Keeps room for its record, where there must be one.
    pub(super) fn begin(
        audit: &Audit,
        (method, names): (Arc<Method>, NameReader),
        parts: &Parts,
    ) -> Result<Self, Unavailable> {
        let place = method.is_recorded.then(|| audit.log.reserve()).transpose()?;
        // Who is not known keeps no room: they could keep it all, by requests that never come to their end.
        let place = place.filter(|_| !method.is_anonymous);
        Ok(Self {
            log: audit.log.clone(),
            holding: place.is_some().then(Holding::default),
            place,
            seen: Seen::default(),
            names: Arc::new(Mutex::new(names)),
            address: audit.trusted_hops.address(parts),
            // Here, in the span of the call: its record may be written outside of it.
            correlation_id: telemetry::propagation::trace_id().unwrap_or_else(|| audit.log.correlation_id()),
            started: Instant::now(),
            bytes: 0,
            is_over: false,
            method,
        })
    }

    /// Where authentication says who calls.
    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Where its handler counts it among the calls of who calls.
    pub(super) fn holding(&self) -> Option<Holding> {
        self.holding.clone()
    }

    /// Where it comes from.
    pub(super) fn address(&self) -> CallerAddress {
        CallerAddress(self.address.clone())
    }

    /// What looks at the request.
    pub(super) fn names(&self) -> Arc<Mutex<NameReader>> {
        Arc::clone(&self.names)
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.method.is_recorded
    }

    pub(super) fn is_stream(&self) -> bool {
        self.method.is_stream
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// It needs no record.
    pub(super) fn forget(&mut self) {
        self.is_over = true;
    }

    /// A record of a stream that goes on.
    pub(super) fn goes_on(&self) {
        let mut entry = self.entry(Kind::Stream);
        entry.outcome = "OPEN".to_owned();
        self.log.record(entry);
    }

    /// It ended so.
    pub(super) fn end(&mut self, status: &Status) {
        let reason = error::reason(status).map_or("", error::reason_name);
        self.finish(status.code(), reason);
    }

    fn finish(&mut self, code: Code, reason: &str) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let place = self.place.take();
        let is_refused = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
        // Whoever is not known could fill the trail; and whoever is, with what they may not do.
        let is_open = self.method.is_anonymous || code != Code::Ok;
        let is_bounded = is_refused || (is_open && self.seen.caller().is_none());
        if !self.method.is_recorded && !is_refused {
            return;
        }
        if is_bounded && !self.log.admits_denial(&self.source()) {
            return;
        }
        let mut entry = self.entry(Kind::Call);
        entry.outcome = error::code_name(code).to_owned();
        entry.reason = reason.to_owned();
        match place {
            Some(place) => place.record(entry),
            None => self.log.record(entry),
        }
    }

    /// Whose refusals are counted together: a user's, or those from an address.
    fn source(&self) -> String {
        if let Some(caller) = self.seen.caller() {
            return format!("users/{}", caller.user);
        }
        source_address::block(&self.address)
    }

    fn entry(&self, kind: Kind) -> Entry {
        let mut entry = self.log.entry(kind);
        let found = self.names.lock().found().clone();
        entry.resources = found.resources();
        entry.session = session_of(&entry.resources);
        found.database().clone_into(&mut entry.database);
        match self.seen.caller() {
            Some(caller) => describe(&mut entry, caller),
            None if self.method.is_anonymous => found.username().clone_into(&mut entry.username),
            None => {}
        }
        entry.method.clone_from(&self.method.name);
        entry.address.clone_from(&self.address);
        entry.correlation_id.clone_from(&self.correlation_id);
        entry.byte_count = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        entry.duration_us = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        entry
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.finish(Code::Cancelled, "");
    }
}

fn describe(entry: &mut Entry, caller: &Caller) {
    entry.user_id = Some(caller.user);
    entry.username.clone_from(&caller.username);
    entry.policy_revision = caller.decided_by.revision();
    entry.provider = caller.provider.clone().unwrap_or_default();
    entry.credential = match caller.credential {
        CredentialKind::AccessToken { login } => format!("logins/{login}"),
        CredentialKind::ApiToken { id } => format!("apiTokens/{id}"),
    };
}

/// The session that is named, or whose execution is.
fn session_of(resources: &[String]) -> String {
    let session = resources.iter().find_map(|name| {
        let mut parts = name.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("servers"), Some(server), Some("sessions"), Some(session)) => {
                Some(format!("servers/{server}/sessions/{session}"))
            }
            _ => None,
        }
    });
    session.unwrap_or_default()
}
