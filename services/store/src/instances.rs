//! Instances: physical PostgreSQL endpoints, each with one connection budget however many servers are
//! registered on it.
//!
//! Invariant: endpoints lead to one instance; and two instances that turn out to be one postmaster become
//! one.

use domain::endpoint::Destination;
use domain::id::{InstanceId, UserId};
use domain::limits::{Limit, Limits};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::access::sees;
use crate::destination::DestinationRow;
use crate::error::{Inconsistency, StoreError, store_variant, violated_constraint};
use crate::etag::Etag;
use crate::page::{Cursor, Page, PageRequest};
use crate::succession;

/// A physical PostgreSQL endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The id.
    pub id: InstanceId,
    /// Where it listens and what connections demand of TLS, as first registered.
    pub destination: Destination,
    /// Its connection budget.
    pub budget: Budget,
    /// How its backends are pooled, and how long anything may take.
    pub limits: Limits,
    /// What it said of itself; `None` before the first connection.
    pub facts: Option<Facts>,
    /// Since when nobody is given a backend of it; `None` while everybody is.
    pub pause_time: Option<OffsetDateTime>,
    /// When it was first registered.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
}

/// How many connections pgmoor keeps to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Most connections. 1 to 10000; 20 by default.
    pub max_connections: u16,
    /// Of these, kept for administrators' and workers' needs. Less than `max_connections`; 5 by default.
    pub reserved_connections: u16,
}

/// What a PostgreSQL server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `pg_control_system()`'s identity of the cluster, which its standbys share.
    pub system_identifier: String,
    /// When its postmaster started, which no two postmasters share.
    pub postmaster_start_time: OffsetDateTime,
    /// The version as the server states it.
    pub server_version: String,
}

/// A change of an instance: what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct InstanceChange {
    /// Most connections.
    pub max_connections: Option<u16>,
    /// Of these, the reserve.
    pub reserved_connections: Option<u16>,
    /// Limits to choose, or to set back to their defaults.
    pub limits: Vec<(Limit, Option<u64>)>,
    /// The etag as read before; `None` to change whatever is there.
    pub etag: Option<Etag>,
}

/// Who an instance turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognised {
    /// Itself.
    Same {
        /// Younger instances that turned out to be this one. They are gone; their servers are this one's now.
        absorbed: Vec<InstanceId>,
    },
    /// An older instance, which has its servers now. The one that was asked for is gone.
    MergedInto(InstanceId),
}

/// Which instances somebody may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceScope {
    /// All.
    All,
    /// Those behind the servers that a user may see.
    ServersOf(UserId),
}

/// Why an instance was not changed.
#[derive(Debug, Error)]
pub enum UpdateInstanceError {
    /// There is no such instance.
    #[error("there is no such instance")]
    NotFound,
    /// The instance changed since the etag was read.
    #[error("the instance changed since the etag was read")]
    EtagMismatch,
    /// The budget is out of range.
    #[error("the budget must be 1 to 10000 connections, of which at least one is not reserved")]
    BudgetOutOfRange,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for UpdateInstanceError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("instances_budget") => Self::BudgetOutOfRange,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for UpdateInstanceError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// Why an instance was not recognised.
#[derive(Debug, Error)]
pub enum RecogniseError {
    /// There is no such instance; it may have been merged into another one.
    #[error("there is no such instance")]
    NotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(RecogniseError);

/// The columns of [`InstanceRow`], of a table with the alias `i`.
macro_rules! columns {
    () => {
        "i.id, i.endpoints, i.tls_mode, i.root_certificates, i.max_connections, i.reserved_connections, \
         i.limits, i.system_identifier, i.postmaster_start_time, i.server_version, i.version, i.create_time, \
         i.update_time, i.pause_time"
    };
}

/// The instances. Made by [`Store::instances`].
#[derive(Debug, Clone, Copy)]
pub struct Instances<'a> {
    store: &'a Store,
}

impl Store {
    /// The instances.
    #[must_use]
    pub fn instances(&self) -> Instances<'_> {
        Instances { store: self }
    }
}

impl Instances<'_> {
    /// Reads an instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<InstanceRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.instances AS i WHERE i.id = $1"
        ))
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Instance::try_from).transpose()?)
    }

    /// Reads those of these instances that are there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_all(&self, ids: &[InstanceId]) -> Result<Vec<Instance>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<InstanceRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.instances AS i WHERE i.id = ANY($1)"
        ))
        .bind(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(Instance::try_from)
            .collect::<Result<_, _>>()?)
    }

    /// Lists instances, oldest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, scope: InstanceScope, page: &PageRequest) -> Result<Page<Instance>, StoreError> {
        let (after_time, after_id) = page.after.as_ref().map(Cursor::time_and_id).transpose()?.unzip();
        let owner = match scope {
            InstanceScope::All => None,
            InstanceScope::ServersOf(owner) => Some(owner.as_uuid()),
        };
        let mut connection = self.store.acquire().await?;
        let rows: Vec<InstanceRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.instances AS i \
             WHERE ($1::uuid IS NULL OR EXISTS \
                 (SELECT FROM pgmoor.servers AS s WHERE s.instance_id = i.id AND ",
            sees!("$1"),
            ")) AND ($2::timestamptz IS NULL OR (i.create_time, i.id) > ($2, $3)) \
             ORDER BY i.create_time, i.id LIMIT $4"
        ))
        .bind(owner)
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let instances = rows
            .into_iter()
            .map(Instance::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(instances, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Whether an instance is behind a server that a user may see.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_seen_by(&self, id: InstanceId, user: UserId) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let seen = sqlx::query_scalar(concat!(
            "SELECT EXISTS (SELECT FROM pgmoor.servers AS s WHERE s.instance_id = $2 AND ",
            sees!("$1"),
            ")"
        ));
        Ok(seen
            .bind(user.as_uuid())
            .bind(id.as_uuid())
            .fetch_one(&mut *connection)
            .await?)
    }

    /// Changes an instance's budget and limits.
    ///
    /// # Errors
    /// [`UpdateInstanceError`] by cause.
    pub async fn update(
        &self,
        id: InstanceId,
        change: InstanceChange,
    ) -> Result<Instance, UpdateInstanceError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let version: Option<i64> =
            sqlx::query_scalar("SELECT version FROM pgmoor.instances WHERE id = $1 FOR NO KEY UPDATE")
                .bind(id.as_uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if !Etag::allows(
            change.etag.as_ref(),
            version.ok_or(UpdateInstanceError::NotFound)?,
        ) {
            return Err(UpdateInstanceError::EtagMismatch);
        }
        let names: Vec<&str> = change.limits.iter().map(|(limit, _)| limit.name()).collect();
        let chosen = change.limits.iter().filter_map(|(limit, value)| {
            let value = (*value)?;
            Some((limit.name().to_owned(), Value::from(value)))
        });
        let chosen = chosen.collect();
        let row: InstanceRow = sqlx::query_as(concat!(
            "UPDATE pgmoor.instances AS i SET max_connections = coalesce($2, i.max_connections), \
             reserved_connections = coalesce($3, i.reserved_connections), \
             limits = (i.limits - $4::text[]) || $5::jsonb, \
             version = i.version + 1, update_time = clock_timestamp() WHERE i.id = $1 RETURNING ",
            columns!()
        ))
        .bind(id.as_uuid())
        .bind(change.max_connections.map(i32::from))
        .bind(change.reserved_connections.map(i32::from))
        .bind(names)
        .bind(Value::Object(chosen))
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Pauses an instance, or resumes it. One that is paused already stays so since it was. False where there is no such
    /// instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_paused(&self, id: InstanceId, paused: bool) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.instances SET \
             pause_time = CASE WHEN $2 THEN coalesce(pause_time, clock_timestamp()) END, \
             version = version + 1, update_time = clock_timestamp() WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(paused)
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes what an instance said of itself. When another instance said the same, the two are one: servers
    /// and endpoints move to the older of them, and the younger is gone. For the role `pgmoor_pooler`.
    ///
    /// # Errors
    /// [`RecogniseError::NotFound`] where the instance is gone already.
    pub async fn recognise(&self, id: InstanceId, facts: &Facts) -> Result<Recognised, RecogniseError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        // Two instances that say the same at once must see each other.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('pgmoor.instances:' || $1, 0))")
            .bind(&facts.system_identifier)
            .execute(&mut *tx)
            .await?;
        let same: Vec<(Uuid, bool)> = sqlx::query_as(
            "WITH locked AS (SELECT id, create_time, \
                 (system_identifier, postmaster_start_time, server_version) IS NOT DISTINCT FROM ($2, $3, \
                 $4) AS known \
                 FROM pgmoor.instances WHERE id = $1 OR (system_identifier = $2 AND postmaster_start_time = \
                 $3) \
                 ORDER BY id FOR UPDATE) \
             SELECT id, known FROM locked ORDER BY create_time, id",
        )
        .bind(id.as_uuid())
        .bind(&facts.system_identifier)
        .bind(facts.postmaster_start_time)
        .bind(&facts.server_version)
        .fetch_all(&mut *tx)
        .await?;
        let known = same
            .iter()
            .find(|(other, _)| *other == id.as_uuid())
            .ok_or(RecogniseError::NotFound)?
            .1;
        let mut same = same.into_iter().map(|(id, _)| InstanceId::from_uuid(id));
        let oldest = same.next().ok_or(RecogniseError::NotFound)?;
        let absorbed: Vec<InstanceId> = same.collect();
        if absorbed.is_empty() && known {
            return Ok(Recognised::Same { absorbed });
        }
        for younger in &absorbed {
            absorb(&mut tx, oldest, *younger).await?;
        }
        sqlx::query(
            "UPDATE pgmoor.instances SET system_identifier = $2, postmaster_start_time = $3, server_version \
             = $4, \
             version = version + 1, update_time = clock_timestamp() WHERE id = $1",
        )
        .bind(oldest.as_uuid())
        .bind(&facts.system_identifier)
        .bind(facts.postmaster_start_time)
        .bind(&facts.server_version)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(if oldest == id {
            Recognised::Same { absorbed }
        } else {
            Recognised::MergedInto(oldest)
        })
    }
}

async fn absorb(tx: &mut PgConnection, into: InstanceId, from: InstanceId) -> Result<(), sqlx::Error> {
    for sql in [
        "UPDATE pgmoor.servers SET instance_id = $1, version = version + 1, update_time = clock_timestamp() \
         WHERE instance_id = $2",
        "UPDATE pgmoor.instance_endpoints SET instance_id = $1 WHERE instance_id = $2",
    ] {
        sqlx::query(sql)
            .bind(into.as_uuid())
            .bind(from.as_uuid())
            .execute(&mut *tx)
            .await?;
    }
    succession::absorb(tx, into, from).await?;
    sqlx::query("DELETE FROM pgmoor.instances WHERE id = $1")
        .bind(from.as_uuid())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// The instance the endpoints lead to, made where there is none.
pub(crate) async fn find_or_create(
    tx: &mut PgConnection,
    destination: &Destination,
) -> Result<Uuid, sqlx::Error> {
    const FIND: &str = "SELECT instance_id FROM pgmoor.instance_endpoints WHERE endpoints_key = $1";
    let key = destination.endpoints_key();
    if let Some(id) = sqlx::query_scalar(FIND)
        .bind(&key)
        .fetch_optional(&mut *tx)
        .await?
    {
        return Ok(id);
    }
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('pgmoor.instance_endpoints:' || $1, 0))")
        .bind(&key)
        .execute(&mut *tx)
        .await?;
    if let Some(id) = sqlx::query_scalar(FIND)
        .bind(&key)
        .fetch_optional(&mut *tx)
        .await?
    {
        return Ok(id);
    }
    let (endpoints, tls_mode, root_certificates) = DestinationRow::of(destination).into_values();
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO pgmoor.instances (id, endpoints, tls_mode, root_certificates) \
         VALUES (gen_random_uuid(), $1, $2, $3) RETURNING id",
    )
    .bind(endpoints)
    .bind(tls_mode)
    .bind(root_certificates)
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO pgmoor.instance_endpoints (endpoints_key, instance_id) VALUES ($1, $2)")
        .bind(&key)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    Ok(id)
}

#[derive(sqlx::FromRow)]
struct InstanceRow {
    id: Uuid,
    #[sqlx(flatten)]
    destination: DestinationRow,
    max_connections: i32,
    reserved_connections: i32,
    limits: Value,
    system_identifier: Option<String>,
    postmaster_start_time: Option<OffsetDateTime>,
    server_version: Option<String>,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
    pause_time: Option<OffsetDateTime>,
}

impl TryFrom<InstanceRow> for Instance {
    type Error = Inconsistency;

    fn try_from(row: InstanceRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("instances", column, row.id);
        let facts = match (
            row.system_identifier,
            row.postmaster_start_time,
            row.server_version,
        ) {
            (Some(system_identifier), Some(postmaster_start_time), Some(server_version)) => Some(Facts {
                system_identifier,
                postmaster_start_time,
                server_version,
            }),
            (None, None, None) => None,
            _ => return Err(wrong("system_identifier")),
        };
        Ok(Self {
            id: InstanceId::from_uuid(row.id),
            destination: row.destination.parse("instances", row.id)?,
            budget: Budget {
                max_connections: row
                    .max_connections
                    .try_into()
                    .map_err(|_| wrong("max_connections"))?,
                reserved_connections: row
                    .reserved_connections
                    .try_into()
                    .map_err(|_| wrong("reserved_connections"))?,
            },
            limits: limits(&row.limits),
            facts,
            pause_time: row.pause_time,
            create_time: row.create_time,
            update_time: row.update_time,
            etag: Etag::of(row.version),
        })
    }
}

/// What a binary of another version chose, and this one does not know or allow, is as good as not there.
fn limits(stored: &Value) -> Limits {
    let mut limits = Limits::default();
    for limit in Limit::ALL {
        let chosen = stored.get(limit.name()).and_then(Value::as_u64);
        if chosen.is_some() && limits.choose(limit, chosen).is_err() {
            tracing::warn!(%limit, "a limit is out of range and has its default");
        }
    }
    limits
}
