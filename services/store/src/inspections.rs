//! What was found of the roles that read-only sessions log in as, and of which it is time to look again.
//!
//! Invariant: a row is of a role that its server's shared or read-only credential logs in as, or did. What is found under
//! another role takes the place of what was found before.

use std::time::Duration;

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
    /// The credential as of then.
    pub credential: CredentialId,
    /// When.
    pub check_time: OffsetDateTime,
    /// Functions that were trusted not to write.
    pub trusted_functions: Vec<String>,
    /// Databases the role might connect to.
    pub allowed_databases: Vec<String>,
    /// What goes beyond reading.
    pub read_only: Beyond,
    /// What goes beyond the allowed databases.
    pub tenancy: Beyond,
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
    /// The time.
    pub now: OffsetDateTime,
    /// How old what was found may become. Of each server a part is taken off that is its own, up to a sixth: so not all of them
    /// are due at once.
    pub interval: Duration,
    /// Servers that are left out.
    pub except: &'a [ServerId],
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
    pub async fn get(&self, role: &InspectedRole<'_>) -> Result<Option<Inspection>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<Row> = sqlx::query_as(
            "SELECT credential_id, check_time, trusted_functions, allowed_databases, read_only_count, \
             read_only_reasons, tenancy_count, tenancy_reasons FROM pgmoor.inspections \
             WHERE server_id = $1 AND credential_kind = $2 AND username = $3 AND database_name = $4",
        )
        .bind(role.server.as_uuid())
        .bind(role.kind.as_str())
        .bind(role.username.as_str())
        .bind(role.database.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Inspection::from))
    }

    /// Keeps what was found of a role, and returns what was known of it until then. Of a server that is gone nothing is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set(
        &self,
        role: &InspectedRole<'_>,
        found: &Inspection,
    ) -> Result<Option<Inspection>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let server = role.server.as_uuid();
        // Of two looks at a time one tells of a change.
        let before: Option<Row> = sqlx::query_as(
            "SELECT credential_id, check_time, trusted_functions, allowed_databases, read_only_count, \
             read_only_reasons, tenancy_count, tenancy_reasons FROM pgmoor.inspections \
             WHERE server_id = $1 AND credential_kind = $2 AND username = $3 AND database_name = $4 FOR UPDATE",
        )
        .bind(server)
        .bind(role.kind.as_str())
        .bind(role.username.as_str())
        .bind(role.database.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        let written = sqlx::query(
            "INSERT INTO pgmoor.inspections (server_id, credential_kind, username, database_name, credential_id, \
             check_time, trusted_functions, allowed_databases, read_only_count, read_only_reasons, tenancy_count, \
             tenancy_reasons) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT ON CONSTRAINT inspections_pkey DO UPDATE SET credential_id = excluded.credential_id, \
             check_time = excluded.check_time, trusted_functions = excluded.trusted_functions, \
             allowed_databases = excluded.allowed_databases, read_only_count = excluded.read_only_count, \
             read_only_reasons = excluded.read_only_reasons, tenancy_count = excluded.tenancy_count, \
             tenancy_reasons = excluded.tenancy_reasons",
        )
        .bind(server)
        .bind(role.kind.as_str())
        .bind(role.username.as_str())
        .bind(role.database.as_str())
        .bind(found.credential.as_uuid())
        .bind(found.check_time)
        .bind(&found.trusted_functions)
        .bind(&found.allowed_databases)
        .bind(found.read_only.count)
        .bind(Json(&found.read_only.reasons))
        .bind(found.tenancy.count)
        .bind(Json(&found.tenancy.reasons))
        .execute(&mut *tx)
        .await;
        match written {
            Err(error) if violated_constraint(&error) == Some("inspections_server_id") => return Ok(None),
            written => written?,
        };
        sqlx::query(
            "DELETE FROM pgmoor.inspections WHERE server_id = $1 \
             AND (credential_kind = $2 AND username <> $3 OR check_time < $4 - make_interval(secs => $5))",
        )
        .bind(server)
        .bind(role.kind.as_str())
        .bind(role.username.as_str())
        .bind(found.check_time)
        .bind(seconds(KEPT))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(before.map(Inspection::from))
    }

    /// The roles that it is time to look at, those first that were never looked at: on servers whose instance is the caller's, or
    /// nobody's. Of each server it is the role that its read-only sessions log in as, in its maintenance database and in the
    /// databases that its access policy names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due(&self, schedule: &Schedule<'_>) -> Result<Vec<Due>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<DueRow> = sqlx::query_as(include_str!("inspections/due.sql"))
            .bind(schedule.incarnation.as_uuid())
            .bind(schedule.now)
            .bind(seconds(schedule.interval))
            .bind(schedule.except.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
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
    trusted_functions: Vec<String>,
    allowed_databases: Vec<String>,
    read_only_count: i64,
    read_only_reasons: Json<Vec<Reason>>,
    tenancy_count: i64,
    tenancy_reasons: Json<Vec<Reason>>,
}

impl From<Row> for Inspection {
    fn from(row: Row) -> Self {
        Self {
            credential: CredentialId::from_uuid(row.credential_id),
            check_time: row.check_time,
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
