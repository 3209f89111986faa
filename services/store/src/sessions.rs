//! Query sessions, as the pooler that holds one writes it down for the one that holds it next.
//!
//! Invariant: a row names the one pooler process that holds the session. Who is not that process changes it only by
//! taking the session over.

use std::collections::HashSet;
use std::time::Duration;

use domain::access::Access;
use domain::id::{IncarnationId, InstanceId, ServerId, UserId};
use domain::name::Identifier;
use domain::pin::Pins;
use domain::session::SessionId;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::error::{Inconsistency, PastMerges, StoreError};

/// How a session holds a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One for life.
    Pinned,
    /// One of its pool when it needs one.
    Auto,
}

/// A session, as far as another pooler needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The server it was opened on.
    pub server_id: ServerId,
    /// The instance whose connections it uses.
    pub instance_id: InstanceId,
    /// Whose it is.
    pub owner_id: UserId,
    /// How it holds a backend.
    pub mode: Mode,
    /// What it may do.
    pub access: Access,
    /// It may write while its owner is elevated.
    pub follows_elevations: bool,
    /// The database.
    pub database: Identifier,
    /// The role it logs in as.
    pub username: Identifier,
    /// Run-time parameters it starts with.
    pub parameters: Vec<(String, String)>,
    /// How long it may be idle.
    pub idle_timeout: Duration,
    /// How long it may be idle in a transaction.
    pub idle_in_transaction_timeout: Duration,
    /// How long it waits for a connection.
    pub queue_timeout: Duration,
    /// Counts from 1 how often it was recovered.
    pub incarnation: i64,
    /// It was recovered, and nobody was told yet.
    pub untold: bool,
    /// What held it on its backend when that was last written down.
    pub pins: Pins,
    /// What its last execution was asked for with, so that it is not run again.
    pub request: Option<Uuid>,
    /// When it was opened.
    pub create_time: OffsetDateTime,
}

/// What changes about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub id: SessionId,
    /// See [`Session::incarnation`].
    pub incarnation: i64,
    /// See [`Session::untold`].
    pub untold: bool,
    /// See [`Session::pins`].
    pub pins: Pins,
    /// See [`Session::request`].
    pub request: Option<Uuid>,
}

/// A session that its pooler lets go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    /// How it stands.
    pub standing: Standing,
    /// Why it ended; `None` where it goes on.
    pub loss: Option<&'static str>,
}

/// Which sessions of another pooler are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// Those it has let go of.
    Parked,
    /// All: it is gone.
    All,
    /// This one, if it was let go of.
    OneIfParked(SessionId),
    /// This one, whatever became of its pooler.
    One(SessionId),
}

/// A session that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The session. Recovered, unless it was parked.
    pub session: Session,
    /// Its pooler had let go of it.
    pub parked: bool,
    /// Why it ended, where it did and its owner is to be told.
    pub loss: Option<String>,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whereabouts {
    /// Whose it is.
    pub owner_id: UserId,
    /// The instance whose connections it uses.
    pub instance_id: InstanceId,
    /// The pooler process that holds it.
    pub holder: IncarnationId,
    /// That one has let go of it.
    pub parked: bool,
}

/// The sessions. Made by [`Store::sessions`].
#[derive(Debug, Clone, Copy)]
pub struct Sessions<'a> {
    store: &'a Store,
}

impl Store {
    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions { store: self }
    }
}

macro_rules! columns {
    () => {
        "s.id, s.server_id, s.instance_id, s.owner_id, s.mode, s.access, s.follows_elevations, s.database_name, s.username, s.parameters, \
         s.idle_timeout_ms, s.idle_in_transaction_timeout_ms, s.queue_timeout_ms, s.incarnation, s.untold, \
         s.pins, s.last_request, s.create_time"
    };
}

/// The instance of a session is that of its server, as it is now.
const RECORD: &str = "INSERT INTO pgmoor.sessions (id, server_id, instance_id, owner_id, pooler_incarnation, mode, \
    access, follows_elevations, database_name, username, parameters, idle_timeout_ms, idle_in_transaction_timeout_ms, \
    queue_timeout_ms, incarnation, untold, pins, create_time) \
    SELECT n.id, n.server_id, s.instance_id, n.owner_id, $2, n.mode, n.access, n.follows_elevations, n.database_name, \
    n.username, n.parameters, n.idle_timeout_ms, n.idle_in_transaction_timeout_ms, n.queue_timeout_ms, \
    n.incarnation, n.untold, n.pins, n.create_time::timestamptz \
    FROM jsonb_to_recordset($1) AS n (id text, server_id uuid, owner_id uuid, \
    mode text, access text, follows_elevations boolean, database_name text, username text, parameters jsonb, \
    idle_timeout_ms bigint, \
    idle_in_transaction_timeout_ms bigint, queue_timeout_ms bigint, incarnation bigint, \
    untold boolean, pins text, create_time text) \
    JOIN pgmoor.servers AS s ON s.id = n.server_id \
    WHERE EXISTS (SELECT FROM pgmoor.users AS u WHERE u.id = n.owner_id) \
    ON CONFLICT ON CONSTRAINT sessions_pkey DO UPDATE SET parked = false \
    WHERE sessions.pooler_incarnation = excluded.pooler_incarnation RETURNING id";

impl Sessions<'_> {
    /// Writes new sessions down. Returns those it did: not one whose server or owner was deleted meanwhile. Their instance is
    /// their server's, which may have turned out to be another since they were opened.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(
        &self,
        holder: IncarnationId,
        sessions: &[Session],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let rows: Vec<NewRow<'_>> = sessions.iter().map(NewRow::from).collect();
        let mut connection = self.store.acquire().await?;
        let rows = Json(rows);
        let mut merges = PastMerges::default();
        let recorded: Vec<String> = loop {
            let written = sqlx::query_scalar(RECORD)
                .bind(&rows)
                .bind(holder.as_uuid())
                .fetch_all(&mut *connection)
                .await;
            match written {
                Err(error) if merges.again(&error, "sessions_instance_id") => {}
                written => break written?,
            }
        };
        ids(recorded)
    }

    /// Writes down how sessions stand.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note(&self, holder: IncarnationId, standings: &[Standing]) -> Result<(), StoreError> {
        let ids: Vec<String> = standings.iter().map(|standing| standing.id.to_string()).collect();
        let incarnations: Vec<i64> = standings.iter().map(|standing| standing.incarnation).collect();
        let untold: Vec<bool> = standings.iter().map(|standing| standing.untold).collect();
        let pins: Vec<String> = standings
            .iter()
            .map(|standing| standing.pins.to_string())
            .collect();
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "UPDATE pgmoor.sessions AS s SET incarnation = n.incarnation, untold = n.untold, \
             pins = n.pins, parked = false \
             FROM unnest($2::text[], $3::bigint[], $4::boolean[], $5::text[]) \
             AS n (id, incarnation, untold, pins) \
             WHERE s.id = n.id AND s.pooler_incarnation = $1",
        )
        .bind(holder.as_uuid())
        .bind(ids)
        .bind(incarnations)
        .bind(untold)
        .bind(pins)
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    /// Lets go of sessions, so that others may take them over. Returns those that were the caller's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn park(
        &self,
        holder: IncarnationId,
        partings: &[Parting],
    ) -> Result<HashSet<SessionId>, StoreError> {
        let standings = || partings.iter().map(|parting| parting.standing);
        let wanted: Vec<String> = standings().map(|standing| standing.id.to_string()).collect();
        let incarnations: Vec<i64> = standings().map(|standing| standing.incarnation).collect();
        let untold: Vec<bool> = standings().map(|standing| standing.untold).collect();
        let pins: Vec<String> = standings().map(|standing| standing.pins.to_string()).collect();
        let losses: Vec<Option<&str>> = partings.iter().map(|parting| parting.loss).collect();
        let requests: Vec<Option<Uuid>> = standings().map(|standing| standing.request).collect();
        let mut connection = self.store.acquire().await?;
        let parked: Vec<String> = sqlx::query_scalar(
            "UPDATE pgmoor.sessions AS s SET parked = true, incarnation = n.incarnation, \
             untold = n.untold, pins = n.pins, loss = n.loss, last_request = n.last_request \
             FROM unnest($2::text[], $3::bigint[], $4::boolean[], $5::text[], $6::text[], $7::uuid[]) \
             AS n (id, incarnation, untold, pins, loss, last_request) \
             WHERE s.id = n.id AND s.pooler_incarnation = $1 RETURNING s.id",
        )
        .bind(holder.as_uuid())
        .bind(wanted)
        .bind(incarnations)
        .bind(untold)
        .bind(pins)
        .bind(losses)
        .bind(requests)
        .fetch_all(&mut *connection)
        .await?;
        ids(parked)
    }

    /// Forgets sessions that have ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget(&self, holder: IncarnationId, sessions: &[SessionId]) -> Result<(), StoreError> {
        let ids: Vec<String> = sessions.iter().map(SessionId::to_string).collect();
        let mut connection = self.store.acquire().await?;
        sqlx::query("DELETE FROM pgmoor.sessions WHERE id = ANY($2) AND pooler_incarnation = $1")
            .bind(holder.as_uuid())
            .bind(ids)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Where a session is; `None` where there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn whereabouts(&self, session: SessionId) -> Result<Option<Whereabouts>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<(Uuid, Uuid, Uuid, bool)> = sqlx::query_as(
            "SELECT owner_id, instance_id, pooler_incarnation, parked FROM pgmoor.sessions WHERE id = $1",
        )
        .bind(session.to_string())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(|(owner, instance, holder, parked)| Whereabouts {
            owner_id: UserId::from_uuid(owner),
            instance_id: InstanceId::from_uuid(instance),
            holder: IncarnationId::from_uuid(holder),
            parked,
        }))
    }

    /// Takes sessions on an instance over from another pooler, at most so many at a time. One that was not parked is
    /// recovered by that.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take(
        &self,
        instance_id: InstanceId,
        from: IncarnationId,
        to: IncarnationId,
        taking: Taking,
        most: u32,
    ) -> Result<Vec<Taken>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<TakenRow> = sqlx::query_as(concat!(
            "WITH taken AS (SELECT id, parked, loss FROM pgmoor.sessions \
             WHERE instance_id = $1 AND pooler_incarnation = $2 AND (parked OR $4) AND ($6::text IS NULL OR id = $6) \
             ORDER BY id LIMIT $5 FOR UPDATE) \
             UPDATE pgmoor.sessions AS s SET pooler_incarnation = $3, parked = false, \
             incarnation = s.incarnation + CASE WHEN taken.parked THEN 0 ELSE 1 END, \
             untold = s.untold OR NOT taken.parked, loss = NULL \
             FROM taken WHERE s.id = taken.id RETURNING taken.parked AS was_parked, taken.loss, ",
            columns!()
        ))
        .bind(instance_id.as_uuid())
        .bind(from.as_uuid())
        .bind(to.as_uuid())
        .bind(matches!(taking, Taking::All | Taking::One(_)))
        .bind(i64::from(most))
        .bind(match taking {
            Taking::Parked | Taking::All => None,
            Taking::OneIfParked(session) | Taking::One(session) => Some(session.to_string()),
        })
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows.into_iter().map(Taken::try_from).collect::<Result<_, _>>()?)
    }
}

fn ids(texts: Vec<String>) -> Result<HashSet<SessionId>, StoreError> {
    let id = |text: String| -> Result<SessionId, Inconsistency> {
        text.parse()
            .map_err(|_| Inconsistency::new("sessions", "id", text))
    };
    Ok(texts.into_iter().map(id).collect::<Result<_, _>>()?)
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Auto => "auto",
        }
    }
}

#[derive(serde::Serialize)]
struct NewRow<'a> {
    id: String,
    server_id: Uuid,
    owner_id: Uuid,
    mode: &'static str,
    access: &'static str,
    follows_elevations: bool,
    database_name: &'a str,
    username: &'a str,
    parameters: &'a [(String, String)],
    idle_timeout_ms: i64,
    idle_in_transaction_timeout_ms: i64,
    queue_timeout_ms: i64,
    incarnation: i64,
    untold: bool,
    pins: String,
    create_time: String,
}

impl<'a> From<&'a Session> for NewRow<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            id: session.id.to_string(),
            server_id: session.server_id.as_uuid(),
            owner_id: session.owner_id.as_uuid(),
            mode: session.mode.name(),
            access: access_name(session.access),
            follows_elevations: session.follows_elevations,
            database_name: session.database.as_str(),
            username: session.username.as_str(),
            parameters: &session.parameters,
            idle_timeout_ms: millis(session.idle_timeout),
            idle_in_transaction_timeout_ms: millis(session.idle_in_transaction_timeout),
            queue_timeout_ms: millis(session.queue_timeout),
            incarnation: session.incarnation,
            untold: session.untold,
            pins: session.pins.to_string(),
            create_time: session.create_time.to_string(),
        }
    }
}

const fn access_name(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "read_only",
        Access::ReadWrite => "read_write",
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    server_id: Uuid,
    instance_id: Uuid,
    owner_id: Uuid,
    mode: String,
    access: String,
    follows_elevations: bool,
    database_name: String,
    username: String,
    parameters: Json<Vec<(String, String)>>,
    idle_timeout_ms: i64,
    idle_in_transaction_timeout_ms: i64,
    queue_timeout_ms: i64,
    incarnation: i64,
    untold: bool,
    pins: String,
    last_request: Option<Uuid>,
    create_time: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct TakenRow {
    was_parked: bool,
    loss: Option<String>,
    #[sqlx(flatten)]
    session: Row,
}

impl TryFrom<TakenRow> for Taken {
    type Error = Inconsistency;

    fn try_from(row: TakenRow) -> Result<Self, Inconsistency> {
        Ok(Self {
            session: row.session.try_into()?,
            parked: row.was_parked,
            loss: row.loss,
        })
    }
}

impl TryFrom<Row> for Session {
    type Error = Inconsistency;

    fn try_from(row: Row) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("sessions", column, &row.id);
        let time = |column, ms: i64| {
            ms.try_into()
                .map(Duration::from_millis)
                .map_err(|_| wrong(column))
        };
        Ok(Self {
            id: row.id.parse().map_err(|_| wrong("id"))?,
            server_id: ServerId::from_uuid(row.server_id),
            instance_id: InstanceId::from_uuid(row.instance_id),
            owner_id: UserId::from_uuid(row.owner_id),
            mode: match row.mode.as_str() {
                "pinned" => Mode::Pinned,
                "auto" => Mode::Auto,
                _ => return Err(wrong("mode")),
            },
            follows_elevations: row.follows_elevations,
            access: match row.access.as_str() {
                "read_only" => Access::ReadOnly,
                "read_write" => Access::ReadWrite,
                _ => return Err(wrong("access")),
            },
            database: row.database_name.parse().map_err(|_| wrong("database_name"))?,
            username: row.username.parse().map_err(|_| wrong("username"))?,
            idle_timeout: time("idle_timeout_ms", row.idle_timeout_ms)?,
            idle_in_transaction_timeout: time(
                "idle_in_transaction_timeout_ms",
                row.idle_in_transaction_timeout_ms,
            )?,
            queue_timeout: time("queue_timeout_ms", row.queue_timeout_ms)?,
            incarnation: row.incarnation,
            untold: row.untold,
            pins: row.pins.parse().map_err(|_| wrong("pins"))?,
            request: row.last_request,
            create_time: row.create_time,
            parameters: row.parameters.0,
        })
    }
}
