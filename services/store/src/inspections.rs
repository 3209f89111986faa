//! What was found of the roles that read-only sessions log in as, and of which it is time to look again.
//!
//! Invariant: a row is of a role that its server's shared or read-only credential logs in as, or did. What is found under
//! another role takes the place of what was found before.

use std::time::{Duration, Instant};

use domain::credential::CredentialKind;
use domain::id::{CredentialId, IncarnationId, InstanceId, ServerId};
use domain::name::Identifier;
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::{Store, seconds};

/// How long what was found in a database is kept that nobody looks at any more.
const KEPT: Duration = Duration::from_hours(90 * 24);

macro_rules! row {
    () => {
        "SELECT credential_id, check_time, \
         extract(epoch FROM clock_timestamp() - check_time)::float8 AS age, trusted_functions, \
         allowed_databases, read_only_count, read_only_reasons, tenancy_count, tenancy_reasons \
         FROM pgmoor.inspections WHERE server_id = $1 AND credential_kind = $2 AND username = $3 AND database_name = $4"
    };
}

/// A role in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedRole<'a> {
    /// The server.
    pub server: ServerId,
    /// Which of its credentials.
    pub kind: CredentialKind,
    /// The PostgreSQL role.
    pub username: &'a Identifier,
    /// The database.
    pub database: &'a Identifier,
}

/// A right that goes beyond a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Which right.
    pub code: String,
    /// On what.
    pub object: String,
}

/// The rights that go beyond a limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beyond {
    /// How many there are. None: the limit is enforced.
    pub count: i64,
    /// Some of them.
    pub reasons: Vec<Reason>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The credential that was logged in with.
    pub credential: CredentialId,
    /// Functions that were trusted not to write.
    pub trusted_functions: Vec<String>,
    /// Databases the role might connect to.
    pub allowed_databases: Vec<String>,
    /// What goes beyond reading.
    pub read_only: Beyond,
    /// What goes beyond the allowed databases.
    pub tenancy: Beyond,
}

/// What is kept of a look.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What was found.
    pub inspection: Inspection,
    /// When it was looked, by the config database's clock.
    pub check_time: OffsetDateTime,
    /// How long ago that was when it was read.
    pub age: Duration,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// When it was looked, by the config database's clock.
    pub check_time: OffsetDateTime,
    /// What was kept until then.
    pub before: Option<Kept>,
}

/// A role that it is time to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The server.
    pub server: ServerId,
    /// Its instance.
    pub instance: InstanceId,
    /// True where the caller owns it; else nobody does.
    pub is_owned: bool,
    /// Which of its credentials.
    pub kind: CredentialKind,
    /// In which database.
    pub database: Identifier,
}

/// Of what it is time to look again.
#[derive(Debug, Clone, Copy)]
pub struct Schedule<'a> {
    /// Who asks. What other poolers own is theirs.
    pub incarnation: IncarnationId,
    /// How old what was found may become. Of each server a part is taken off that is its own, up to a sixth: so not all of them
    /// are due at once.
    pub interval: Duration,
    /// Roles that are left out: of a server, by a credential, in a database.
    pub except: &'a [(ServerId, CredentialKind, Identifier)],
    /// At most so many.
    pub most: u32,
}

/// What was found. Made by [`Store::inspections`].
#[derive(Debug, Clone, Copy)]
pub struct Inspections<'a> {
    store: &'a Store,
}

impl Store {
    /// What was found of servers' roles.
    #[must_use]
    pub fn inspections(&self) -> Inspections<'_> {
        Inspections { store: self }
    }
}

impl Inspections<'_> {
    /// What was found of a role last.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, role: &InspectedRole<'_>) -> Result<Option<Kept>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<Row> = sqlx::query_as(row!())
            .bind(role.server.as_uuid())
            .bind(role.kind.as_str())
            .bind(role.username.as_str())
            .bind(role.database.as_str())
            .fetch_optional(&mut *connection)
            .await?;
        Ok(row.map(Kept::from))
    }

    /// Keeps what was found of a role by a look that began so long ago. Nothing is written where a later look was before, or the
    /// server is gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set(
        &self,
        role: &InspectedRole<'_>,
        found: &Inspection,
        age: Duration,
    ) -> Result<Option<Written>, StoreError> {
        let began = Instant::now();
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let server = role.server.as_uuid();
        // Before it waits for anybody, which would make an old look a new one.
        let check_time: OffsetDateTime =
            sqlx::query_scalar("SELECT clock_timestamp() - make_interval(secs => $1)")
                .bind(seconds(age + began.elapsed()))
                .fetch_one(&mut *tx)
                .await?;
        // Of two looks at a time one tells of a change.
        let before: Option<Row> = sqlx::query_as(concat!(row!(), " FOR UPDATE"))
            .bind(server)
            .bind(role.kind.as_str())
            .bind(role.username.as_str())
            .bind(role.database.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let written = sqlx::query(
            "INSERT INTO pgmoor.inspections AS i (server_id, credential_kind, username, database_name, credential_id, \
             check_time, trusted_functions, allowed_databases, read_only_count, read_only_reasons, tenancy_count, \
             tenancy_reasons) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT ON CONSTRAINT inspections_pkey DO UPDATE SET credential_id = excluded.credential_id, \
             check_time = excluded.check_time, trusted_functions = excluded.trusted_functions, \
             allowed_databases = excluded.allowed_databases, read_only_count = excluded.read_only_count, \
             read_only_reasons = excluded.read_only_reasons, tenancy_count = excluded.tenancy_count, \
             tenancy_reasons = excluded.tenancy_reasons WHERE i.check_time < excluded.check_time",
        )
        .bind(server)
        .bind(role.kind.as_str())
        .bind(role.username.as_str())
        .bind(role.database.as_str())
        .bind(found.credential.as_uuid())
        .bind(check_time)
        .bind(&found.trusted_functions)
        .bind(&found.allowed_databases)
        .bind(found.read_only.count)
        .bind(Json(&found.read_only.reasons))
        .bind(found.tenancy.count)
        .bind(Json(&found.tenancy.reasons))
        .execute(&mut *tx)
        .await;
        let written = match written {
            Err(error) if violated_constraint(&error) == Some("inspections_server_id") => return Ok(None),
            written => written?,
        };
        if written.rows_affected() == 0 {
            return Ok(None);
        }
        // What is locked is being written by another look, which may be about to delete this row: to wait for it would be a
        // deadlock.
        sqlx::query(
            "DELETE FROM pgmoor.inspections WHERE (server_id, credential_kind, username, database_name) IN ( \
             SELECT server_id, credential_kind, username, database_name FROM pgmoor.inspections \
             WHERE server_id = $1 AND (credential_kind = $2 AND username <> $3 AND check_time < $4 \
             OR check_time < $4 - make_interval(secs => $5)) FOR UPDATE SKIP LOCKED)",
        )
        .bind(server)
        .bind(role.kind.as_str())
        .bind(role.username.as_str())
        .bind(check_time)
        .bind(seconds(KEPT))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        let before = before.map(Kept::from);
        Ok(Some(Written { check_time, before }))
    }

    /// The roles that it is time to look at, on servers whose instance is the caller's, or nobody's: the caller's first, of these
    /// those that were never looked at. Of each server it is the role that its read-only sessions log in as, in its maintenance database and in the
    /// databases that its access policy names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(&self, schedule: &Schedule<'_>) -> Result<Vec<Due>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let except = schedule.except.iter();
        let servers: Vec<_> = except.clone().map(|(server, ..)| server.as_uuid()).collect();
        let kinds: Vec<_> = except.clone().map(|(_, kind, _)| kind.as_str()).collect();
        let databases: Vec<_> = except.map(|(.., database)| database.as_str()).collect();
        let rows: Vec<DueRow> = sqlx::query_as(include_str!("inspections/due.sql"))
            .bind(schedule.incarnation.as_uuid())
            .bind(seconds(schedule.interval))
            .bind(servers)
            .bind(kinds)
            .bind(databases)
            .bind(i64::from(schedule.most))
            .fetch_all(&mut *connection)
            .await?;
        Ok(rows.into_iter().map(Due::try_from).collect::<Result<_, _>>()?)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    credential_id: Uuid,
    check_time: OffsetDateTime,
    age: f64,
    trusted_functions: Vec<String>,
    allowed_databases: Vec<String>,
    read_only_count: i64,
    read_only_reasons: Json<Vec<Reason>>,
    tenancy_count: i64,
    tenancy_reasons: Json<Vec<Reason>>,
}

impl From<Row> for Kept {
    fn from(row: Row) -> Self {
        Self {
            check_time: row.check_time,
            // Less than nothing where the database's clock was set back.
            age: Duration::try_from_secs_f64(row.age).unwrap_or_default(),
            inspection: Inspection {
                credential: CredentialId::from_uuid(row.credential_id),
                trusted_functions: row.trusted_functions,
                allowed_databases: row.allowed_databases,
                read_only: Beyond {
                    count: row.read_only_count,
                    reasons: row.read_only_reasons.0,
                },
                tenancy: Beyond {
                    count: row.tenancy_count,
                    reasons: row.tenancy_reasons.0,
                },
            },
        }
    }
}

#[derive(sqlx::FromRow)]
struct DueRow {
    server_id: Uuid,
    instance_id: Uuid,
    is_owned: bool,
    kind: String,
    database_name: String,
}

impl TryFrom<DueRow> for Due {
    type Error = Inconsistency;

    fn try_from(row: DueRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("servers", column, row.server_id);
        Ok(Self {
            server: ServerId::from_uuid(row.server_id),
            instance: InstanceId::from_uuid(row.instance_id),
            is_owned: row.is_owned,
            kind: CredentialKind::of(&row.kind, None).ok_or_else(|| wrong("kind"))?,
            database: row.database_name.parse().map_err(|_| wrong("policy"))?,
        })
    }
}
