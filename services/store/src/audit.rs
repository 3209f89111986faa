//! The audit trail: records that processes wrote down, each process in a chain of its own.
//!
//! Invariant: a record is only ever added. What retention removes is the beginning of a chain, and an anchor says where
//! the rest begins. Hashes are the `audit` crate's business.

mod writers;

use std::time::Duration;

use data_encoding::HEXLOWER;
use domain::id::{IncarnationId, UserId};
use serde::Serialize;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::error::{Inconsistency, StoreError};
use crate::page::{Cursor, Page, PageRequest};
use crate::{Store, seconds};

pub use snapshot::AuditSnapshot;
pub use writers::{Writer, WriterSecret};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

words! {
    /// The role of the process that wrote a record.
    WriterRole {
        /// An API instance.
        Api = "api",
        /// A pooler.
        Pooler = "pooler",
        /// A worker.
        Worker = "worker",
    }
}

words! {
    /// What a record is about.
    Kind {
        /// The writer began: its first record.
        Start = "start",
        /// The writer ended as it should: its last record.
        Stop = "stop",
        /// The writer lives and had nothing to write.
        Heartbeat = "heartbeat",
        /// A call ended.
        Call = "call",
        /// A stream has been open for a while. A `Call` follows at its end.
        Stream = "stream",
        /// A pooler opened a session, or refused to.
        Session = "session",
        /// An execution ended.
        Execution = "execution",
        /// An elevation expired, or what was asked for did.
        Elevation = "elevation",
        /// PostgreSQL kept a role within a limit and does not any more.
        Inspection = "inspection",
        /// `count` records found no room and were not written.
        Unrecorded = "unrecorded",
        /// `count` refused calls from one address were not written one by one.
        Suppressed = "suppressed",
        /// Retention removed `count` records.
        Retention = "retention",
    }
}

/// What a record says. An empty text means that there is nothing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is about.
    pub kind: Kind,
    /// When, on the writer's clock.
    pub time: OffsetDateTime,
    /// The trace that the records of one call share.
    pub correlation_id: String,
    /// Who called, where that is known.
    pub user_id: Option<UserId>,
    /// Their login name as of then. Of a login, what was attempted.
    pub username: String,
    /// Who vouches for them; empty for a local user.
    pub provider: String,
    /// The login or API token they showed.
    pub credential: String,
    /// Where the call came from.
    pub address: String,
    /// What was called, as `package.Service/Method`.
    pub method: String,
    /// The resources that were named.
    pub resources: Vec<String>,
    /// The query session.
    pub session: String,
    /// The database.
    pub database: String,
    /// The PostgreSQL role.
    pub role: String,
    /// What statements of the same form have in common.
    pub statement_fingerprint: String,
    /// The statement, as far as policy allows.
    pub statement: String,
    /// A gRPC code, or an execution's outcome.
    pub outcome: String,
    /// The error's reason.
    pub reason: String,
    /// The SQL error's code.
    pub sqlstate: String,
    /// What became of a COMMIT.
    pub commit_outcome: String,
    /// Rows that were sent.
    pub row_count: i64,
    /// Bytes that were sent.
    pub byte_count: i64,
    /// How long it took, in microseconds.
    pub duration_us: i64,
    /// The revision of the policies that were in force; 0 where there are none.
    pub policy_revision: i64,
    /// How many, where the record counts something.
    pub count: i64,
}

impl Entry {
    /// A record that says nothing yet. PostgreSQL keeps microseconds, and so does the record: its hash has to last.
    #[must_use]
    pub fn new(kind: Kind, time: OffsetDateTime) -> Self {
        let micros = time.nanosecond() / 1000 * 1000;
        Self {
            kind,
            time: time.replace_nanosecond(micros).unwrap_or(time),
            correlation_id: String::new(),
            user_id: None,
            username: String::new(),
            provider: String::new(),
            credential: String::new(),
            address: String::new(),
            method: String::new(),
            resources: Vec::new(),
            session: String::new(),
            database: String::new(),
            role: String::new(),
            statement_fingerprint: String::new(),
            statement: String::new(),
            outcome: String::new(),
            reason: String::new(),
            sqlstate: String::new(),
            commit_outcome: String::new(),
            row_count: 0,
            byte_count: 0,
            duration_us: 0,
            policy_revision: 0,
            count: 0,
        }
    }
}

/// A record in its writer's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The process that wrote it.
    pub writer: IncarnationId,
    /// Its role.
    pub writer_role: WriterRole,
    /// Its place in the chain, from 1.
    pub sequence: i64,
    /// How its hash is made.
    pub format: i16,
    /// The hash of the record before it.
    pub previous_hash: [u8; 32],
    /// Its own.
    pub hash: [u8; 32],
    /// What it says.
    pub entry: Entry,
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where it came in among the records of all writers.
    pub position: i64,
    /// When it arrived, on the database's clock.
    pub insert_time: OffsetDateTime,
    /// The record.
    pub record: Record,
}

/// Where retention cut a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Whose chain.
    pub writer: IncarnationId,
    /// The last record that was deleted.
    pub sequence: i64,
    /// Its hash.
    pub hash: [u8; 32],
    /// When it was deleted.
    pub cut_time: OffsetDateTime,
}

/// Which records are wanted. Nothing is asked of what is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not before.
    pub start_time: Option<OffsetDateTime>,
    /// Before.
    pub end_time: Option<OffsetDateTime>,
    /// Of this user.
    pub user_id: Option<UserId>,
    /// `package.Service/Method`, or a method's name alone.
    pub method: Option<String>,
    /// That name this resource or one below it.
    pub resource: Option<String>,
    /// Of this session.
    pub session: Option<String>,
    /// That ended so.
    pub outcome: Option<String>,
    /// Of this trace.
    pub correlation_id: Option<String>,
    /// Of these kinds; of any where there are none.
    pub kinds: Vec<Kind>,
}

/// The audit trail. Made by [`Store::audit`].
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    store: &'a Store,
}

impl Store {
    /// The audit trail.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit { store: self }
    }
}

/// The columns of [`RecordRow`].
macro_rules! columns {
    () => {
        "r.writer, r.sequence, r.writer_role, r.position, r.insert_time, r.format, r.previous_hash, r.hash, r.kind, \
         r.time, r.correlation_id, r.user_id, r.username, r.provider, r.credential, r.address, r.method, r.resources, \
         r.session, r.database_name, r.role_name, r.statement_fingerprint, r.statement, r.outcome, r.reason, \
         r.sqlstate, r.commit_outcome, r.row_count, r.byte_count, r.duration_us, r.policy_revision, r.count"
    };
}

// After the macro, which it uses.
mod snapshot;

/// The conditions of a [`Filter`], whose values are `$1` to `$9`.
macro_rules! matches_filter {
    () => {
        "($1::timestamptz IS NULL OR r.time >= $1) AND ($2::timestamptz IS NULL OR r.time < $2) \
         AND ($3::uuid IS NULL OR r.user_id = $3) \
         AND ($4::text IS NULL OR r.method = $4 OR split_part(r.method, '/', 2) = $4) \
         AND ($5::text IS NULL OR EXISTS (SELECT FROM unnest(r.resources) AS named (name) \
         WHERE named.name = $5 OR starts_with(named.name, $5 || '/'))) \
         AND ($6::text IS NULL OR r.session = $6) AND ($7::text IS NULL OR r.outcome = $7) \
         AND ($8::text IS NULL OR r.correlation_id = $8) \
         AND (cardinality($9::text[]) = 0 OR r.kind = ANY($9))"
    };
}

type Query<'q> = sqlx::query::QueryAs<'q, sqlx::Postgres, RecordRow, sqlx::postgres::PgArguments>;

impl Filter {
    /// Its values, in the order of `matches_filter!`.
    fn bind<'q>(&self, query: Query<'q>) -> Query<'q> {
        let kinds: Vec<&'static str> = self.kinds.iter().map(|kind| kind.as_str()).collect();
        query
            .bind(self.start_time)
            .bind(self.end_time)
            .bind(self.user_id.map(UserId::as_uuid))
            .bind(self.method.clone())
            .bind(self.resource.clone())
            .bind(self.session.clone())
            .bind(self.outcome.clone())
            .bind(self.correlation_id.clone())
            .bind(kinds)
    }
}

impl Audit<'_> {
    /// Adds records to the chain of their writer, which are all of one. Those that are there already are left as they are:
    /// whoever does not know whether their records were written sends them again. Returns how many were added.
    ///
    /// # Errors
    /// When the database fails, or has another secret of the writer or another role of who logged in.
    pub async fn append(&self, secret: &WriterSecret, records: &[Record]) -> Result<u64, StoreError> {
        let Some(first) = records.first() else {
            return Ok(0);
        };
        let rows: Vec<NewRow<'_>> = records.iter().map(NewRow::from).collect();
        let mut connection = self.store.acquire().await?;
        let added: i64 = sqlx::query_scalar("SELECT pgmoor.append_audit($1, $2, $3, $4)")
            .bind(first.writer.as_uuid())
            .bind(first.writer_role.as_str())
            .bind(secret.expose())
            .bind(Json(rows))
            .fetch_one(&mut *connection)
            .await?;
        Ok(u64::try_from(added).unwrap_or_default())
    }

    /// Lists records, newest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, filter: &Filter, page: &PageRequest) -> Result<Page<Kept>, StoreError> {
        let after = page.after.as_ref().map(place).transpose()?;
        let (time, writer, sequence) = match after {
            Some((time, writer, sequence)) => (Some(time), Some(writer), Some(sequence)),
            None => (None, None, None),
        };
        let mut connection = self.store.acquire().await?;
        let query = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.audit_records AS r WHERE ",
            matches_filter!(),
            " AND ($10::timestamptz IS NULL OR (r.time, r.writer, r.sequence) < ($10, $11, $12)) \
             ORDER BY r.time DESC, r.writer DESC, r.sequence DESC LIMIT $13"
        ));
        let rows = filter
            .bind(query)
            .bind(time)
            .bind(writer)
            .bind(sequence)
            .bind(page.size.probe())
            .fetch_all(&mut *connection)
            .await?;
        Ok(Page::from_rows(read(rows)?, page.size, cursor))
    }

    /// The records that came in after a position, in the order they did, at most `most` of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn after(&self, position: i64, filter: &Filter, most: u16) -> Result<Vec<Kept>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let query = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.audit_records AS r WHERE ",
            matches_filter!(),
            " AND r.position > $10 ORDER BY r.position, r.writer, r.sequence LIMIT $11"
        ));
        let rows = filter
            .bind(query)
            .bind(position)
            .bind(i64::from(most))
            .fetch_all(&mut *connection)
            .await?;
        read(rows)
    }

    /// The position that was given last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn position(&self) -> Result<i64, StoreError> {
        let mut connection = self.store.acquire().await?;
        let position = sqlx::query_scalar("SELECT position FROM pgmoor.audit_position")
            .fetch_one(&mut *connection)
            .await?;
        Ok(position)
    }

    /// Deletes records that arrived longer than `keep` ago, at least a day, from the beginning of each chain. At most `most`;
    /// returns how many it were.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cut(&self, keep: Duration, most: u16) -> Result<i64, StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(
            sqlx::query_scalar("SELECT pgmoor.cut_audit(make_interval(secs => $1), $2)")
                .bind(seconds(keep))
                .bind(i32::from(most))
                .fetch_one(&mut *connection)
                .await?,
        )
    }
}

fn read(rows: Vec<RecordRow>) -> Result<Vec<Kept>, StoreError> {
    let kept: Result<Vec<_>, _> = rows.into_iter().map(Kept::try_from).collect();
    Ok(kept?)
}

/// Where a page of [`Audit::list`] ends.
fn cursor(kept: &Kept) -> Cursor {
    let record = &kept.record;
    Cursor::of([
        record.entry.time.format(&Rfc3339).unwrap_or_default(),
        record.writer.to_string(),
        record.sequence.to_string(),
    ])
}

fn place(cursor: &Cursor) -> Result<(OffsetDateTime, Uuid, i64), StoreError> {
    let [time, writer, sequence] = cursor.parts()?;
    let time = OffsetDateTime::parse(&time, &Rfc3339).map_err(|_| StoreError::InvalidCursor)?;
    let writer = Uuid::try_parse(&writer).map_err(|_| StoreError::InvalidCursor)?;
    let sequence = sequence.parse().map_err(|_| StoreError::InvalidCursor)?;
    Ok((time, writer, sequence))
}

/// A record as the statement that adds it takes it.
#[derive(Serialize)]
struct NewRow<'a> {
    sequence: i64,
    format: i16,
    previous_hash: String,
    hash: String,
    kind: &'static str,
    time: String,
    correlation_id: &'a str,
    user_id: Option<Uuid>,
    username: &'a str,
    provider: &'a str,
    credential: &'a str,
    address: &'a str,
    method: &'a str,
    resources: &'a [String],
    session: &'a str,
    database_name: &'a str,
    role_name: &'a str,
    statement_fingerprint: &'a str,
    statement: &'a str,
    outcome: &'a str,
    reason: &'a str,
    sqlstate: &'a str,
    commit_outcome: &'a str,
    row_count: i64,
    byte_count: i64,
    duration_us: i64,
    policy_revision: i64,
    count: i64,
}

impl<'a> From<&'a Record> for NewRow<'a> {
    fn from(record: &'a Record) -> Self {
        let entry = &record.entry;
        Self {
            sequence: record.sequence,
            format: record.format,
            previous_hash: HEXLOWER.encode(&record.previous_hash),
            hash: HEXLOWER.encode(&record.hash),
            kind: entry.kind.as_str(),
            time: entry.time.format(&Rfc3339).unwrap_or_default(),
            correlation_id: &entry.correlation_id,
            user_id: entry.user_id.map(UserId::as_uuid),
            username: &entry.username,
            provider: &entry.provider,
            credential: &entry.credential,
            address: &entry.address,
            method: &entry.method,
            resources: &entry.resources,
            session: &entry.session,
            database_name: &entry.database,
            role_name: &entry.role,
            statement_fingerprint: &entry.statement_fingerprint,
            statement: &entry.statement,
            outcome: &entry.outcome,
            reason: &entry.reason,
            sqlstate: &entry.sqlstate,
            commit_outcome: &entry.commit_outcome,
            row_count: entry.row_count,
            byte_count: entry.byte_count,
            duration_us: entry.duration_us,
            policy_revision: entry.policy_revision,
            count: entry.count,
        }
    }
}

#[derive(sqlx::FromRow)]
struct RecordRow {
    writer: Uuid,
    sequence: i64,
    writer_role: String,
    position: i64,
    insert_time: OffsetDateTime,
    format: i16,
    previous_hash: Vec<u8>,
    hash: Vec<u8>,
    kind: String,
    time: OffsetDateTime,
    correlation_id: String,
    user_id: Option<Uuid>,
    username: String,
    provider: String,
    credential: String,
    address: String,
    method: String,
    resources: Vec<String>,
    session: String,
    database_name: String,
    role_name: String,
    statement_fingerprint: String,
    statement: String,
    outcome: String,
    reason: String,
    sqlstate: String,
    commit_outcome: String,
    row_count: i64,
    byte_count: i64,
    duration_us: i64,
    policy_revision: i64,
    count: i64,
}

impl TryFrom<RecordRow> for Kept {
    type Error = Inconsistency;

    fn try_from(row: RecordRow) -> Result<Self, Inconsistency> {
        let key = format!("({}, {})", row.writer, row.sequence);
        let wrong = |column| Inconsistency::new("audit_records", column, &key);
        Ok(Self {
            position: row.position,
            insert_time: row.insert_time,
            record: Record {
                writer: IncarnationId::from_uuid(row.writer),
                writer_role: WriterRole::parse(&row.writer_role).ok_or_else(|| wrong("writer_role"))?,
                sequence: row.sequence,
                format: row.format,
                previous_hash: row.previous_hash.try_into().map_err(|_| wrong("previous_hash"))?,
                hash: row.hash.try_into().map_err(|_| wrong("hash"))?,
                entry: Entry {
                    kind: Kind::parse(&row.kind).ok_or_else(|| wrong("kind"))?,
                    time: row.time,
                    correlation_id: row.correlation_id,
                    user_id: row.user_id.map(UserId::from_uuid),
                    username: row.username,
                    provider: row.provider,
                    credential: row.credential,
                    address: row.address,
                    method: row.method,
                    resources: row.resources,
                    session: row.session,
                    database: row.database_name,
                    role: row.role_name,
                    statement_fingerprint: row.statement_fingerprint,
                    statement: row.statement,
                    outcome: row.outcome,
                    reason: row.reason,
                    sqlstate: row.sqlstate,
                    commit_outcome: row.commit_outcome,
                    row_count: row.row_count,
                    byte_count: row.byte_count,
                    duration_us: row.duration_us,
                    policy_revision: row.policy_revision,
                    count: row.count,
                },
            },
        })
    }
}
