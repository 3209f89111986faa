//! Records and filters on the wire.

use std::time::Duration;

use ::audit::{Filter, Kept, Kind, WriterRole};
use bytes::Bytes;
use domain::access::Caller;
use rpc::audit::v1 as proto;
use rpc::audit::v1::{AuditRecordKind, AuditWriterRole};

use crate::duration::{decode_timestamp, encode, timestamp};
use crate::error::{Error, Violations};
use crate::resource;

/// Longest text of a filter, in characters.
const MOST_CHARS: usize = 500;

/// Which records are wanted.
pub(super) fn filter(filter: Option<proto::AuditFilter>, caller: &Caller) -> Result<Filter, Error> {
    let filter = filter.unwrap_or_default();
    let mut violations = Violations::default();
    let mut time = |name: &str, time: Option<prost_types::Timestamp>| {
        time.and_then(|time| violations.check(&format!("filter.{name}"), decode_timestamp(time)))
    };
    let start_time = time("start_time", filter.start_time);
    let end_time = time("end_time", filter.end_time);
    let user_id = match filter.user.as_str() {
        "" => None,
        user => Some(resource::user("filter.user", user, caller)?),
    };
    let mut text = |name: &str, text: String| {
        if text.chars().any(char::is_control) || text.chars().count() > MOST_CHARS {
            violations.add(
                format!("filter.{name}"),
                "must have at most 500 characters and no control characters",
            );
        }
        Some(text).filter(|text| !text.is_empty())
    };
    let found = Filter {
        start_time,
        end_time,
        user_id,
        method: text("method", filter.method),
        resource: text("resource", filter.resource),
        session: text("session", filter.session),
        outcome: text("outcome", filter.outcome),
        correlation_id: text("correlation_id", filter.correlation_id),
        kinds: Vec::new(),
    };
    let mut kinds = Vec::new();
    for (index, kind) in filter.kinds.into_iter().enumerate() {
        match AuditRecordKind::try_from(kind).ok().and_then(known_kind) {
            Some(kind) => kinds.push(kind),
            None => violations.add(format!("filter.kinds[{index}]"), "is not a kind of record"),
        }
    }
    violations.done()?;
    Ok(Filter { kinds, ..found })
}

fn known_kind(kind: AuditRecordKind) -> Option<Kind> {
    Some(match kind {
        AuditRecordKind::Unspecified => return None,
        AuditRecordKind::Start => Kind::Start,
        AuditRecordKind::Stop => Kind::Stop,
        AuditRecordKind::Heartbeat => Kind::Heartbeat,
        AuditRecordKind::Call => Kind::Call,
        AuditRecordKind::Stream => Kind::Stream,
        AuditRecordKind::Session => Kind::Session,
        AuditRecordKind::Execution => Kind::Execution,
        AuditRecordKind::Elevation => Kind::Elevation,
        AuditRecordKind::Inspection => Kind::Inspection,
        AuditRecordKind::Unrecorded => Kind::Unrecorded,
        AuditRecordKind::Suppressed => Kind::Suppressed,
        AuditRecordKind::Retention => Kind::Retention,
    })
}

/// A record.
pub(super) fn record(kept: Kept) -> proto::AuditRecord {
    let Kept { position, record, .. } = kept;
    let entry = record.entry;
    let kind = match entry.kind {
        Kind::Start => AuditRecordKind::Start,
        Kind::Stop => AuditRecordKind::Stop,
        Kind::Heartbeat => AuditRecordKind::Heartbeat,
        Kind::Call => AuditRecordKind::Call,
        Kind::Stream => AuditRecordKind::Stream,
        Kind::Session => AuditRecordKind::Session,
        Kind::Execution => AuditRecordKind::Execution,
        Kind::Elevation => AuditRecordKind::Elevation,
        Kind::Inspection => AuditRecordKind::Inspection,
        Kind::Unrecorded => AuditRecordKind::Unrecorded,
        Kind::Suppressed => AuditRecordKind::Suppressed,
        Kind::Retention => AuditRecordKind::Retention,
    };
    let role = match record.writer_role {
        WriterRole::Api => AuditWriterRole::Api,
        WriterRole::Pooler => AuditWriterRole::Pooler,
        WriterRole::Worker => AuditWriterRole::Worker,
    };
    proto::AuditRecord {
        writer: record.writer.to_string(),
        writer_role: role.into(),
        sequence: record.sequence,
        position,
        format: record.format.into(),
        previous_hash: Bytes::copy_from_slice(&record.previous_hash),
        hash: Bytes::copy_from_slice(&record.hash),
        kind: kind.into(),
        time: Some(timestamp(entry.time)),
        correlation_id: entry.correlation_id,
        user: entry.user_id.map(|id| format!("users/{id}")).unwrap_or_default(),
        username: entry.username,
        provider: entry.provider,
        credential: entry.credential,
        address: entry.address,
        method: entry.method,
        resources: entry.resources,
        session: entry.session,
        database: entry.database,
        role: entry.role,
        statement_fingerprint: entry.statement_fingerprint,
        statement: entry.statement,
        outcome: entry.outcome,
        reason: entry.reason,
        sqlstate: entry.sqlstate,
        commit_outcome: entry.commit_outcome,
        row_count: entry.row_count,
        byte_count: entry.byte_count,
        duration: Some(encode(Duration::from_micros(
            u64::try_from(entry.duration_us).unwrap_or_default(),
        ))),
        policy_revision: entry.policy_revision,
        count: entry.count,
    }
}
