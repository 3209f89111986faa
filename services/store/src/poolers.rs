//! Poolers: which processes keep connections to targets, and where they are reached.
//!
//! Invariant: an id is one process's while its lease runs. It is small and used again later, so it is a hint
//! wherever it is carried; the incarnation is what tells processes apart.

use std::time::Duration;

use domain::id::IncarnationId;
use domain::session::PoolerId;
use sqlx::Connection as _;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Inconsistency, StoreError, store_variant};
use crate::{Store, seconds};

/// How long the row of a pooler that is gone is kept, and with it its id from others: longer than any
/// takeover takes.
const KEEP_GONE: Duration = Duration::from_secs(600);

/// A pooler process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooler {
    /// Its small id.
    pub id: PoolerId,
    /// The process.
    pub incarnation: IncarnationId,
    /// Where it serves the internal protocol: `host:port`.
    pub address: String,
    /// Where it serves PostgreSQL's own protocol, if it does.
    pub wire_address: Option<String>,
    /// Whether it takes new sessions.
    pub state: PoolerState,
    /// The versions of the internal protocol it speaks.
    pub protocol: ProtocolRange,
    /// Until when it counts as alive, on the database's clock.
    pub lease_until: OffsetDateTime,
    /// True where that is over.
    pub lapsed: bool,
}

/// Whether a pooler takes new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolerState {
    /// It does.
    Serving,
    /// It hands over what it has.
    Draining,
}

/// Versions of the internal protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The oldest. At least 1.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

/// A pooler to register.
#[derive(Debug, Clone)]
pub struct NewPooler {
    /// The process.
    pub incarnation: IncarnationId,
    /// Where it serves the internal protocol: `host:port`.
    pub address: String,
    /// Where it serves PostgreSQL's own protocol, if it does.
    pub wire_address: Option<String>,
    /// The versions of the internal protocol it speaks.
    pub protocol: ProtocolRange,
    /// How long it counts as alive without a heartbeat.
    pub lease: Duration,
}

/// Why a pooler was not registered.
#[derive(Debug, Error)]
pub enum RegisterPoolerError {
    /// 32767 poolers are registered.
    #[error("no pooler id is free")]
    NoIdFree,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(RegisterPoolerError);

/// The columns of [`PoolerRow`].
macro_rules! columns {
    () => {
        "pooler_id, incarnation, address, wire_address, state, protocol_min, protocol_max, lease_until, \
         lease_until <= clock_timestamp() AS lapsed"
    };
}

/// The poolers. Made by [`Store::poolers`].
#[derive(Debug, Clone, Copy)]
pub struct Poolers<'a> {
    store: &'a Store,
}

impl Store {
    /// The poolers.
    #[must_use]
    pub fn poolers(&self) -> Poolers<'_> {
        Poolers { store: self }
    }
}

impl Poolers<'_> {
    /// Registers a process and gives it the least id that is free. Registering an incarnation again renews
    /// it.
    ///
    /// # Errors
    /// [`RegisterPoolerError::NoIdFree`].
    pub async fn register(&self, new: &NewPooler) -> Result<Pooler, RegisterPoolerError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('pgmoor.poolers', 0))")
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM pgmoor.poolers WHERE incarnation <> $1 \
             AND lease_until < clock_timestamp() - make_interval(secs => $2)",
        )
        .bind(new.incarnation.as_uuid())
        .bind(seconds(KEEP_GONE))
        .execute(&mut *tx)
        .await?;
        let free: Option<i16> = sqlx::query_scalar(
            "SELECT coalesce((SELECT pooler_id FROM pgmoor.poolers WHERE incarnation = $1), \
             (SELECT min(id)::smallint FROM generate_series(1, 32767) AS id \
              WHERE NOT EXISTS (SELECT FROM pgmoor.poolers WHERE pooler_id = id)))",
        )
        .bind(new.incarnation.as_uuid())
        .fetch_one(&mut *tx)
        .await?;
        let row: PoolerRow = sqlx::query_as(concat!(
            "INSERT INTO pgmoor.poolers \
             (pooler_id, incarnation, address, wire_address, protocol_min, protocol_max, lease_until) \
             VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7)) \
             ON CONFLICT ON CONSTRAINT poolers_pkey DO UPDATE SET address = excluded.address, state = \
             'serving', \
             wire_address = excluded.wire_address, lease_until = excluded.lease_until, \
             protocol_min = excluded.protocol_min, protocol_max = excluded.protocol_max RETURNING ",
            columns!()
        ))
        .bind(free.ok_or(RegisterPoolerError::NoIdFree)?)
        .bind(new.incarnation.as_uuid())
        .bind(&new.address)
        .bind(&new.wire_address)
        .bind(i32::from(new.protocol.min))
        .bind(i32::from(new.protocol.max))
        .bind(seconds(new.lease))
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Says that a process is alive and what it does. `None` where it is not registered any more: it
    /// registers again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn heartbeat(
        &self,
        incarnation: IncarnationId,
        state: PoolerState,
        lease: Duration,
    ) -> Result<Option<Pooler>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<PoolerRow> = sqlx::query_as(concat!(
            "UPDATE pgmoor.poolers SET state = $2, lease_until = clock_timestamp() + make_interval(secs => \
             $3) \
             WHERE incarnation = $1 RETURNING ",
            columns!()
        ))
        .bind(incarnation.as_uuid())
        .bind(state.name())
        .bind(seconds(lease))
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(Pooler::try_from).transpose()?)
    }

    /// Forgets a process that ends. Forgetting it again changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn deregister(&self, incarnation: IncarnationId) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "DELETE FROM pgmoor.poolers WHERE incarnation = $1";
        sqlx::query(sql)
            .bind(incarnation.as_uuid())
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// The processes that are alive, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_live(&self) -> Result<Vec<Pooler>, StoreError> {
        self.list_seen(Duration::ZERO).await
    }

    /// The processes that are alive or were so lately, by id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_seen(&self, lately: Duration) -> Result<Vec<Pooler>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<PoolerRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.poolers WHERE lease_until > clock_timestamp() - make_interval(secs => $1) \
             ORDER BY pooler_id"
        ))
        .bind(seconds(lately))
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows.into_iter().map(Pooler::try_from).collect::<Result<_, _>>()?)
    }
}

impl PoolerState {
    const fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

#[derive(sqlx::FromRow)]
struct PoolerRow {
    pooler_id: i16,
    incarnation: Uuid,
    address: String,
    wire_address: Option<String>,
    state: String,
    protocol_min: i32,
    protocol_max: i32,
    lease_until: OffsetDateTime,
    lapsed: bool,
}

impl TryFrom<PoolerRow> for Pooler {
    type Error = Inconsistency;

    fn try_from(row: PoolerRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("poolers", column, row.pooler_id);
        Ok(Self {
            id: PoolerId(row.pooler_id.try_into().map_err(|_| wrong("pooler_id"))?),
            incarnation: IncarnationId::from_uuid(row.incarnation),
            address: row.address,
            wire_address: row.wire_address,
            state: match row.state.as_str() {
                "serving" => PoolerState::Serving,
                "draining" => PoolerState::Draining,
                _ => return Err(wrong("state")),
            },
            protocol: ProtocolRange {
                min: row.protocol_min.try_into().map_err(|_| wrong("protocol_min"))?,
                max: row.protocol_max.try_into().map_err(|_| wrong("protocol_max"))?,
            },
            lease_until: row.lease_until,
            lapsed: row.lapsed,
        })
    }
}
