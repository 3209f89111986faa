//! Which pooler owns an instance: a conditional claim with a lease on the database's clock.
//!
//! Invariant: terms of an instance only grow, and at any moment on the database's clock at most one
//! incarnation holds a lease that runs. A lease that lapsed is still its holder's until somebody else claims
//! the instance.

use std::time::Duration;

use domain::id::{IncarnationId, InstanceId};
use domain::session::PoolerId;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Inconsistency, StoreError, store_variant, violated_constraint};
use crate::{Store, seconds};

/// One ownership of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// The instance.
    pub instance_id: InstanceId,
    /// The owner's small id.
    pub pooler_id: PoolerId,
    /// The owner.
    pub incarnation: IncarnationId,
    /// The ownership's number.
    pub term: u64,
    /// Until when it is the owner's alone, on the database's clock.
    pub lease_until: OffsetDateTime,
    /// True where the lease has run out.
    pub lapsed: bool,
    /// True where the owner gave the instance back.
    pub released: bool,
}

/// Who claims an instance.
#[derive(Debug, Clone, Copy)]
pub struct Claimant {
    /// The claimant's small id.
    pub pooler_id: PoolerId,
    /// The claimant.
    pub incarnation: IncarnationId,
    /// How long the ownership lasts without renewal.
    pub lease: Duration,
    /// Somebody else's lease must have been over for so long. `None`: it is not taken over at all, because its owner
    /// could not renew it, for the same reason as the claimant.
    pub patience: Option<Duration>,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The instance is the claimant's.
    Owned {
        /// The ownership. The claimant's own, of the same term, where it had not been taken over.
        ownership: Ownership,
        /// Who owned it before and did not give it back: it may be alive, and its backends too.
        predecessor: Option<Ownership>,
    },
    /// It is somebody else's.
    Held(Ownership),
    /// The config database has a new primary, which may not know the last renewals: nobody takes over before
    /// this.
    Withheld {
        /// When to claim again.
        retry_after: Duration,
    },
}

/// Where the owner of an instance is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The ownership.
    pub ownership: Ownership,
    /// Where the owner serves the internal protocol; `None` where it is not registered any more.
    pub address: Option<String>,
}

/// Why an instance was not claimed.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// There is no such instance; it may have been merged into another one.
    #[error("there is no such instance")]
    InstanceNotFound,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ClaimError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("instance_owners_instance_id") => Self::InstanceNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for ClaimError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// Why an ownership was not renewed.
#[derive(Debug, Error)]
pub enum RenewError {
    /// Somebody else owns the instance, or it is gone.
    #[error("the ownership is superseded")]
    Superseded,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(RenewError);

/// The columns of [`OwnershipRow`], of a table with the alias `o`.
macro_rules! columns {
    () => {
        "o.instance_id, o.pooler_id, o.incarnation, o.term, o.lease_until, \
         o.lease_until <= clock_timestamp() AS lapsed, o.released"
    };
}

/// The ownerships of instances. Made by [`Store::instance_owners`].
#[derive(Debug, Clone, Copy)]
pub struct InstanceOwners<'a> {
    store: &'a Store,
}

impl Store {
    /// The ownerships of instances.
    #[must_use]
    pub fn instance_owners(&self) -> InstanceOwners<'_> {
        InstanceOwners { store: self }
    }
}

impl InstanceOwners<'_> {
    /// Claims an instance: where nobody owns it, where its owner gave it back, and where the owner's lease
    /// has run out.
    ///
    /// # Errors
    /// [`ClaimError::InstanceNotFound`].
    pub async fn claim(&self, instance_id: InstanceId, claimant: Claimant) -> Result<Claim, ClaimError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let withheld = withheld(&mut tx, claimant.lease).await?;
        let inserted: Option<OwnershipRow> = match withheld {
            Some(_) => None,
            None => {
                sqlx::query_as(concat!(
                    "INSERT INTO pgmoor.instance_owners AS o (instance_id, pooler_id, incarnation, term, \
                     lease_until) \
                     VALUES ($1, $2, $3, 1, clock_timestamp() + make_interval(secs => $4)) \
                     ON CONFLICT ON CONSTRAINT instance_owners_pkey DO NOTHING RETURNING ",
                    columns!()
                ))
                .bind(instance_id.as_uuid())
                .bind(small(claimant.pooler_id))
                .bind(claimant.incarnation.as_uuid())
                .bind(seconds(claimant.lease))
                .fetch_optional(&mut *tx)
                .await?
            }
        };
        if let Some(row) = inserted {
            tx.commit().await?;
            return Ok(Claim::Owned {
                ownership: row.try_into()?,
                predecessor: None,
            });
        }
        let before: Option<LockedRow> = sqlx::query_as(concat!(
            "SELECT clock_timestamp() AS now, ",
            columns!(),
            " FROM pgmoor.instance_owners AS o WHERE o.instance_id = $1 FOR UPDATE"
        ))
        .bind(instance_id.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
        let before = before.map(Locked::try_from).transpose()?;
        let own = before
            .as_ref()
            .is_some_and(|before| before.ownership.incarnation == claimant.incarnation);
        let patient = match claimant.patience {
            Some(patience) => before.as_ref().is_some_and(|before| {
                before.ownership.lapsed && before.ownership.lease_until + patience <= before.now
            }),
            None => false,
        };
        let before = before.map(|before| before.ownership);
        match (&before, withheld) {
            (Some(before), _) if !own && !patient && !before.released => {
                let held = before.clone();
                tx.commit().await?;
                return Ok(Claim::Held(held));
            }
            (_, Some(retry_after)) if !own => {
                tx.commit().await?;
                return Ok(Claim::Withheld { retry_after });
            }
            _ => {}
        }
        let row: Option<OwnershipRow> = sqlx::query_as(concat!(
            "UPDATE pgmoor.instance_owners AS o SET pooler_id = $2, incarnation = $3, \
             term = CASE WHEN o.incarnation = $3 AND NOT o.released THEN o.term ELSE o.term + 1 END, \
             lease_until = clock_timestamp() + make_interval(secs => $4), released = false \
             WHERE o.instance_id = $1 RETURNING ",
            columns!()
        ))
        .bind(instance_id.as_uuid())
        .bind(small(claimant.pooler_id))
        .bind(claimant.incarnation.as_uuid())
        .bind(seconds(claimant.lease))
        .fetch_optional(&mut *tx)
        .await?;
        let predecessor = before.filter(|before| !own && !before.released);
        if let Some(predecessor) = &predecessor {
            // In the same transaction: a successor that dies at once must not take the memory of it along.
            sqlx::query(
                "INSERT INTO pgmoor.instance_predecessors (instance_id, incarnation, pooler_id, address) \
                 VALUES ($1, $2, $3, (SELECT address FROM pgmoor.poolers WHERE incarnation = $2)) \
                 ON CONFLICT ON CONSTRAINT instance_predecessors_pkey DO NOTHING",
            )
            .bind(instance_id.as_uuid())
            .bind(predecessor.incarnation.as_uuid())
            .bind(small(predecessor.pooler_id))
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        // Gone between two statements: so is the instance.
        let ownership = row.ok_or(ClaimError::InstanceNotFound)?.try_into()?;
        Ok(Claim::Owned {
            ownership,
            predecessor,
        })
    }

    /// Renews one ownership.
    ///
    /// # Errors
    /// [`RenewError::Superseded`] where it is not the claimant's any more.
    pub async fn renew(
        &self,
        instance_id: InstanceId,
        incarnation: IncarnationId,
        term: u64,
        lease: Duration,
    ) -> Result<Ownership, RenewError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<OwnershipRow> = sqlx::query_as(concat!(
            "UPDATE pgmoor.instance_owners AS o SET lease_until = clock_timestamp() + make_interval(secs => \
             $4) \
             WHERE o.instance_id = $1 AND o.incarnation = $2 AND o.term = $3 AND NOT o.released RETURNING ",
            columns!()
        ))
        .bind(instance_id.as_uuid())
        .bind(incarnation.as_uuid())
        .bind(i64::try_from(term).unwrap_or(i64::MAX))
        .bind(seconds(lease))
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.ok_or(RenewError::Superseded)?.try_into()?)
    }

    /// Renews everything an incarnation owns, in one statement. What is missing from the answer is superseded
    /// or gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_all(
        &self,
        incarnation: IncarnationId,
        lease: Duration,
    ) -> Result<Vec<Ownership>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<OwnershipRow> = sqlx::query_as(concat!(
            "UPDATE pgmoor.instance_owners AS o SET lease_until = clock_timestamp() + make_interval(secs => \
             $2) \
             WHERE o.incarnation = $1 AND NOT o.released RETURNING ",
            columns!()
        ))
        .bind(incarnation.as_uuid())
        .bind(seconds(lease))
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(Ownership::try_from)
            .collect::<Result<_, _>>()?)
    }

    /// Gives an instance back, after its backends are closed. False where it was not the caller's any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release(
        &self,
        instance_id: InstanceId,
        incarnation: IncarnationId,
        term: u64,
    ) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let done = sqlx::query(
            "UPDATE pgmoor.instance_owners SET released = true, lease_until = clock_timestamp() \
             WHERE instance_id = $1 AND incarnation = $2 AND term = $3 AND NOT released",
        )
        .bind(instance_id.as_uuid())
        .bind(incarnation.as_uuid())
        .bind(i64::try_from(term).unwrap_or(i64::MAX))
        .execute(&mut *connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Ends the leases of all others, which are known to be gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_others(&self, incarnation: IncarnationId) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        for sql in [
            "UPDATE pgmoor.instance_owners SET lease_until = clock_timestamp() \
             WHERE incarnation <> $1 AND lease_until > clock_timestamp()",
            "DELETE FROM pgmoor.poolers WHERE incarnation <> $1",
        ] {
            sqlx::query(sql)
                .bind(incarnation.as_uuid())
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// Who owns an instance and where it is reached. `None` where nobody does; a lapsed owner still serves
    /// what it has.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owner_of(&self, instance_id: InstanceId) -> Result<Option<Owner>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<OwnerRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            ", p.address FROM pgmoor.instance_owners AS o \
             LEFT JOIN pgmoor.poolers AS p ON p.incarnation = o.incarnation \
             WHERE o.instance_id = $1 AND NOT o.released"
        ))
        .bind(instance_id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Owner {
            ownership: row.ownership.try_into()?,
            address: row.address,
        }))
    }

    /// Notes on which timeline the config database is. Call it with each heartbeat, so that a new primary is
    /// noticed when it is new and not when the first lease is claimed there. Returns how long takeovers are
    /// withheld.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_timeline(&self, lease: Duration) -> Result<Option<Duration>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let withheld = withheld(&mut tx, lease).await?;
        tx.commit().await?;
        Ok(withheld)
    }
}

/// Notes the timeline and returns how long takeovers are withheld because it is new.
async fn withheld(tx: &mut PgConnection, lease: Duration) -> Result<Option<Duration>, sqlx::Error> {
    const CURRENT: &str = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    const LEFT: &str = "SELECT timeline, \
        greatest(extract(epoch FROM since + make_interval(secs => $1) - clock_timestamp())::float8, 0) \
        FROM pgmoor.primary_timeline";
    let current: String = sqlx::query_scalar(CURRENT).fetch_one(&mut *tx).await?;
    let noted: Option<(String, f64)> = sqlx::query_as(LEFT)
        .bind(seconds(lease))
        .fetch_optional(&mut *tx)
        .await?;
    let left = match noted {
        Some((noted, left)) if noted == current => left,
        Some(_) => {
            let sql = "UPDATE pgmoor.primary_timeline SET timeline = $1, since = clock_timestamp() WHERE \
                timeline <> $1";
            sqlx::query(sql).bind(&current).execute(&mut *tx).await?;
            seconds(lease)
        }
        // Nobody ever looked: nobody owns anything that could be taken over.
        None => {
            let sql = "INSERT INTO pgmoor.primary_timeline (timeline, since) VALUES ($1, 'epoch') \
                       ON CONFLICT ON CONSTRAINT primary_timeline_pkey DO NOTHING";
            sqlx::query(sql).bind(&current).execute(&mut *tx).await?;
            0.0
        }
    };
    Ok((left > 0.0).then(|| Duration::try_from_secs_f64(left).unwrap_or(lease)))
}

/// Ids are handed out from 1 to 32767.
fn small(id: PoolerId) -> i16 {
    i16::try_from(id.0).unwrap_or(i16::MAX)
}

#[derive(sqlx::FromRow)]
struct OwnershipRow {
    instance_id: Uuid,
    pooler_id: i16,
    incarnation: Uuid,
    term: i64,
    lease_until: OffsetDateTime,
    lapsed: bool,
    released: bool,
}

#[derive(sqlx::FromRow)]
struct LockedRow {
    now: OffsetDateTime,
    #[sqlx(flatten)]
    ownership: OwnershipRow,
}

/// An ownership that nobody changes meanwhile.
struct Locked {
    now: OffsetDateTime,
    ownership: Ownership,
}

impl TryFrom<LockedRow> for Locked {
    type Error = Inconsistency;

    fn try_from(row: LockedRow) -> Result<Self, Inconsistency> {
        Ok(Self {
            now: row.now,
            ownership: row.ownership.try_into()?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct OwnerRow {
    #[sqlx(flatten)]
    ownership: OwnershipRow,
    address: Option<String>,
}

impl TryFrom<OwnershipRow> for Ownership {
    type Error = Inconsistency;

    fn try_from(row: OwnershipRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("instance_owners", column, row.instance_id);
        Ok(Self {
            instance_id: InstanceId::from_uuid(row.instance_id),
            pooler_id: PoolerId(row.pooler_id.try_into().map_err(|_| wrong("pooler_id"))?),
            incarnation: IncarnationId::from_uuid(row.incarnation),
            term: row.term.try_into().map_err(|_| wrong("term"))?,
            lease_until: row.lease_until,
            lapsed: row.lapsed,
            released: row.released,
        })
    }
}
