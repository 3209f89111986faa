//! A record as one line of JSON, with all that its hash is made of.

use data_encoding::HEXLOWER;
use domain::id::UserId;
use serde_json::{Map, Value, json};
use store::audit::Kept;
use time::format_description::well_known::Rfc3339;

/// One line, without its end. What a record has nothing to say about is left out.
#[must_use]
pub fn line(kept: &Kept) -> String {
    let record = &kept.record;
    let entry = &record.entry;
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| {
        line.insert(name.to_owned(), value);
    };
    put("writer", json!(record.writer.to_string()));
    put("writer_role", json!(record.writer_role.as_str()));
    put("sequence", json!(record.sequence));
    put("position", json!(kept.position));
    put("format", json!(record.format));
    put("previous_hash", json!(HEXLOWER.encode(&record.previous_hash)));
    put("hash", json!(HEXLOWER.encode(&record.hash)));
    put("kind", json!(entry.kind.as_str()));
    put("time", json!(entry.time.format(&Rfc3339).unwrap_or_default()));
    let texts = [
        ("correlation_id", &entry.correlation_id),
        ("username", &entry.username),
        ("provider", &entry.provider),
        ("credential", &entry.credential),
        ("address", &entry.address),
        ("method", &entry.method),
        ("session", &entry.session),
        ("database", &entry.database),
        ("role", &entry.role),
        ("statement_fingerprint", &entry.statement_fingerprint),
        ("statement", &entry.statement),
        ("outcome", &entry.outcome),
        ("reason", &entry.reason),
        ("sqlstate", &entry.sqlstate),
        ("commit_outcome", &entry.commit_outcome),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(name, json!(text));
    }
    if let Some(id) = entry.user_id.map(UserId::as_uuid) {
        put("user_id", json!(id.to_string()));
    }
    if !entry.resources.is_empty() {
        put("resources", json!(entry.resources));
    }
    let numbers = [
        ("row_count", entry.row_count),
        ("byte_count", entry.byte_count),
        ("duration_us", entry.duration_us),
        ("policy_revision", entry.policy_revision),
        ("count", entry.count),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        put(name, json!(number));
    }
    Value::Object(line).to_string()
}
