//! The feed of what was revoked: verifiers of tokens follow it, and refuse within seconds what they would
//! still accept.
//!
//! Invariant: revisions appear in order, so that whoever has read up to one misses nothing by asking for what
//! is after it.

use std::time::Duration;

use domain::id::{ApiTokenId, LoginId, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError};
use crate::{Store, seconds};

/// Most revocations in one answer.
const BATCH: i64 = 1000;

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everything of a user: logins and API tokens.
    User(UserId),
    /// The access tokens of a login.
    Login(LoginId),
    /// An API token.
    ApiToken(ApiTokenId),
}

/// A revocation: what was issued to the subject up to a moment is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Its place in the feed.
    pub revision: i64,
    /// What is revoked.
    pub subject: Subject,
    /// Everything issued up to then is void.
    pub revoke_time: OffsetDateTime,
}

/// A piece of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// In the order of their revisions.
    pub revocations: Vec<Revocation>,
    /// Ask for what is after this next.
    pub revision: i64,
    /// The revision of the rules, as of the same moment.
    pub policy: i64,
    /// True where more is there already.
    pub more: bool,
}

impl Store {
    /// What was revoked after a revision; 0 for all that is kept. At most 1000 at a time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revocations_since(&self, revision: i64) -> Result<Revocations, StoreError> {
        let mut connection = self.acquire().await?;
        // One question, though it is two: whoever follows asks often.
        let heard: Vec<HeardRow> = sqlx::query_as(
            "SELECT c.revision AS policy, r.revision, r.kind, r.subject_id, r.revoke_time FROM pgmoor.counters AS c \
             LEFT JOIN (SELECT revision, kind, subject_id, revoke_time FROM pgmoor.revocations \
             WHERE revision > $1 ORDER BY revision LIMIT $2) AS r ON true WHERE c.name = $3 ORDER BY r.revision",
        )
        .bind(revision)
        .bind(BATCH)
        .bind(Counter::Policy.name())
        .fetch_all(&mut *connection)
        .await?;
        let policy = heard.first().map_or(0, |row| row.policy);
        let rows: Vec<RevocationRow> = heard.into_iter().filter_map(HeardRow::revocation).collect();
        let more = rows.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let revocations = rows
            .into_iter()
            .map(Revocation::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        let revision = revocations.last().map_or(revision, |last| last.revision);
        Ok(Revocations {
            revocations,
            revision,
            policy,
            more,
        })
    }

    /// Forgets revocations older than `age`, which must exceed the lifetime of access tokens. Returns how
    /// many there were. A user's or an API token's own row says for good what the feed said.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune_revocations(&self, age: Duration) -> Result<u64, StoreError> {
        let mut connection = self.acquire().await?;
        let sql = "DELETE FROM pgmoor.revocations WHERE revoke_time < clock_timestamp() - make_interval(secs \
            => $1)";
        Ok(sqlx::query(sql)
            .bind(seconds(age))
            .execute(&mut *connection)
            .await?
            .rows_affected())
    }
}

/// Adds to the feed. Others who revoke wait until this transaction ends: do it last.
pub(crate) async fn append(tx: &mut PgConnection, subjects: &[Subject]) -> Result<(), sqlx::Error> {
    for subject in subjects {
        let (kind, id) = match subject {
            Subject::User(id) => ("user", id.as_uuid()),
            Subject::Login(id) => ("login", id.as_uuid()),
            Subject::ApiToken(id) => ("api_token", id.as_uuid()),
        };
        let revision = Counter::Revocations.next(tx).await?;
        sqlx::query("INSERT INTO pgmoor.revocations (revision, kind, subject_id) VALUES ($1, $2, $3)")
            .bind(revision)
            .bind(kind)
            .bind(id)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

struct RevocationRow {
    revision: i64,
    kind: String,
    subject_id: Uuid,
    revoke_time: OffsetDateTime,
}

/// A revocation, or nothing, with the revision of the rules.
#[derive(sqlx::FromRow)]
struct HeardRow {
    policy: i64,
    revision: Option<i64>,
    kind: Option<String>,
    subject_id: Option<Uuid>,
    revoke_time: Option<OffsetDateTime>,
}

impl HeardRow {
    fn revocation(self) -> Option<RevocationRow> {
        Some(RevocationRow {
            revision: self.revision?,
            kind: self.kind?,
            subject_id: self.subject_id?,
            revoke_time: self.revoke_time?,
        })
    }
}

impl TryFrom<RevocationRow> for Revocation {
    type Error = Inconsistency;

    fn try_from(row: RevocationRow) -> Result<Self, Inconsistency> {
        let subject = match row.kind.as_str() {
            "user" => Subject::User(UserId::from_uuid(row.subject_id)),
            "login" => Subject::Login(LoginId::from_uuid(row.subject_id)),
            "api_token" => Subject::ApiToken(ApiTokenId::from_uuid(row.subject_id)),
            _ => return Err(Inconsistency::new("revocations", "kind", row.revision)),
        };
        Ok(Self {
            revision: row.revision,
            subject,
            revoke_time: row.revoke_time,
        })
    }
}
