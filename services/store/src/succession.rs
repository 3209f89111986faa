//! What poolers leave behind on an instance that another one owns now: connections, slots of workers, sessions, and
//! the possibility that they open one more connection.
//!
//! Invariant: a pooler writes and removes its own rows; its successor removes them once what they stand for is gone.

use domain::credential::CredentialKind;
use domain::id::{IncarnationId, InstanceId, ServerId, UserId};
use domain::session::PoolerId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::error::{Inconsistency, PastMerges, StoreError};

/// A connection to an instance, in the server's own terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The instance.
    pub instance_id: InstanceId,
    /// `pg_stat_activity.pid`.
    pub backend_pid: i32,
    /// `pg_stat_activity.backend_start`: with the pid it names a connection for ever.
    pub backend_start: OffsetDateTime,
    /// The registration whose role logged in.
    pub server_id: ServerId,
    /// With which of its credentials.
    pub credential: CredentialKind,
}

/// Slots that were given to a worker's operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLease {
    /// `operations/{operation}`.
    pub operation: String,
    /// The instance.
    pub instance_id: InstanceId,
    /// How many.
    pub slots: u32,
}

/// Another pooler that left something on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forerunner {
    /// The process.
    pub incarnation: IncarnationId,
    /// Its small id, where that is known.
    pub pooler_id: Option<PoolerId>,
    /// Where it serves, or served, the internal protocol. `None`: it signed off.
    pub address: Option<String>,
    /// It was taken over from and is not known to be gone: it may be opening connections.
    pub may_open: bool,
    /// Its connections, as it recorded them.
    pub connections: Vec<Connection>,
    /// The slots it gave to workers whose operations still run.
    pub leased_slots: u32,
    /// How many sessions it holds.
    pub sessions: u32,
}

/// What poolers leave behind. Made by [`Store::succession`].
#[derive(Debug, Clone, Copy)]
pub struct Succession<'a> {
    store: &'a Store,
}

impl Store {
    /// What poolers leave behind.
    #[must_use]
    pub fn succession(&self) -> Succession<'_> {
        Succession { store: self }
    }
}

/// Instances where something of others than `$1` is left.
macro_rules! left_behind {
    () => {
        "(SELECT instance_id FROM pgmoor.instance_predecessors WHERE incarnation <> $1 \
         UNION SELECT instance_id FROM pgmoor.pooler_connections WHERE incarnation <> $1 \
         UNION SELECT instance_id FROM pgmoor.slot_leases WHERE incarnation <> $1 \
         UNION SELECT instance_id FROM pgmoor.sessions WHERE pooler_incarnation <> $1)"
    };
}

impl Succession<'_> {
    /// Records connections of the caller and removes others of its own. Where an instance was merged into another, they count
    /// there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(
        &self,
        incarnation: IncarnationId,
        opened: &[Connection],
        closed: &[Connection],
    ) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        if !opened.is_empty() {
            let mut merges = PastMerges::default();
            loop {
                let written = sqlx::query(
                    "INSERT INTO pgmoor.pooler_connections \
                 (incarnation, instance_id, backend_pid, backend_start, server_id, credential_kind, \
                  credential_user_id) \
                 SELECT $1, coalesce(i.id, s.instance_id), n.backend_pid, n.backend_start, n.server_id, \
                 n.credential_kind, n.credential_user_id \
                 FROM unnest($2::uuid[], $3::int[], $4::timestamptz[], $5::uuid[], $6::text[], $7::uuid[]) \
                 AS n (instance_id, backend_pid, backend_start, server_id, credential_kind, credential_user_id) \
                 LEFT JOIN pgmoor.instances AS i ON i.id = n.instance_id \
                 LEFT JOIN pgmoor.servers AS s ON s.id = n.server_id \
                 WHERE i.id IS NOT NULL OR s.instance_id IS NOT NULL \
                 ON CONFLICT ON CONSTRAINT pooler_connections_pkey DO NOTHING",
                )
                .bind(incarnation.as_uuid())
                .bind(instances(opened))
                .bind(pids(opened))
                .bind(starts(opened))
                .bind(
                    opened
                        .iter()
                        .map(|one| one.server_id.as_uuid())
                        .collect::<Vec<_>>(),
                )
                .bind(kinds(opened))
                .bind(users(opened))
                .execute(&mut *connection)
                .await;
                match written {
                    Err(error) if merges.again(&error, "pooler_connections_instance_id") => {}
                    written => {
                        written?;
                        break;
                    }
                }
            }
        }
        if !closed.is_empty() {
            remove(&mut connection, incarnation, closed).await?;
        }
        Ok(())
    }

    /// Removes connections of another pooler that are gone.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bury(&self, incarnation: IncarnationId, gone: &[Connection]) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        Ok(remove(&mut connection, incarnation, gone).await?)
    }

    /// Writes down that an operation has slots, by whomever they were given before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_lease(
        &self,
        incarnation: IncarnationId,
        lease: &SlotLease,
    ) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut merges = PastMerges::default();
        loop {
            let written = sqlx::query(
                "INSERT INTO pgmoor.slot_leases (operation, instance_id, incarnation, slots) \
             VALUES ($1, coalesce((SELECT into_id FROM pgmoor.instance_merges WHERE id = $2), $2), $3, $4) \
             ON CONFLICT ON CONSTRAINT slot_leases_pkey \
             DO UPDATE SET incarnation = excluded.incarnation, slots = excluded.slots",
            )
            .bind(&lease.operation)
            .bind(lease.instance_id.as_uuid())
            .bind(incarnation.as_uuid())
            .bind(i32::try_from(lease.slots).unwrap_or(i32::MAX))
            .execute(&mut *connection)
            .await;
            match written {
                Err(error) if merges.again(&error, "slot_leases_instance_id") => {}
                written => {
                    written?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Removes a lease that the caller gave, and nobody else since.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_lease(&self, incarnation: IncarnationId, lease: &SlotLease) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "DELETE FROM pgmoor.slot_leases WHERE operation = $1 AND instance_id = $2 AND incarnation = $3",
        )
        .bind(&lease.operation)
        .bind(lease.instance_id.as_uuid())
        .bind(incarnation.as_uuid())
        .execute(&mut *connection)
        .await?;
        Ok(())
    }

    /// Instances where other poolers left something and that can be claimed: given back, or their lease has run out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claimable(&self, incarnation: IncarnationId) -> Result<Vec<InstanceId>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let ids: Vec<Uuid> = sqlx::query_scalar(concat!(
            "SELECT instance_id FROM pgmoor.instance_owners AS o JOIN ",
            left_behind!(),
            " AS l USING (instance_id) \
             WHERE o.incarnation <> $1 AND (o.released OR o.lease_until <= clock_timestamp())"
        ))
        .bind(incarnation.as_uuid())
        .fetch_all(&mut *connection)
        .await?;
        Ok(ids.into_iter().map(InstanceId::from_uuid).collect())
    }

    /// Instances of the caller where other poolers left something.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn inherited(&self, incarnation: IncarnationId) -> Result<Vec<InstanceId>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let ids: Vec<Uuid> = sqlx::query_scalar(concat!(
            "SELECT instance_id FROM pgmoor.instance_owners AS o JOIN ",
            left_behind!(),
            " AS l USING (instance_id) WHERE o.incarnation = $1 AND NOT o.released"
        ))
        .bind(incarnation.as_uuid())
        .fetch_all(&mut *connection)
        .await?;
        Ok(ids.into_iter().map(InstanceId::from_uuid).collect())
    }

    /// The poolers other than the caller that left something on an instance.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forerunners(
        &self,
        instance_id: InstanceId,
        incarnation: IncarnationId,
    ) -> Result<Vec<Forerunner>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<ForerunnerRow> = sqlx::query_as(
            "WITH leases AS (SELECT incarnation, sum(slots) AS slots FROM pgmoor.slot_leases AS l \
             WHERE instance_id = $2 AND EXISTS (SELECT FROM pgmoor.operations AS o \
              WHERE 'operations/' || o.id = l.operation AND o.state = 'running') GROUP BY incarnation), \
             held AS (SELECT pooler_incarnation AS incarnation, count(*) AS sessions FROM pgmoor.sessions \
              WHERE instance_id = $2 GROUP BY pooler_incarnation), \
             left_by AS (SELECT incarnation FROM pgmoor.instance_predecessors WHERE instance_id = $2 \
              UNION SELECT incarnation FROM pgmoor.pooler_connections WHERE instance_id = $2 \
              UNION SELECT incarnation FROM pgmoor.slot_leases WHERE instance_id = $2 \
              UNION SELECT incarnation FROM held) \
             SELECT b.incarnation, coalesce(q.pooler_id, p.pooler_id) AS pooler_id, \
             coalesce(q.address, p.address) AS address, p.incarnation IS NOT NULL AS may_open, \
             coalesce(leases.slots, 0)::bigint AS leased_slots, coalesce(held.sessions, 0)::bigint AS sessions \
             FROM left_by AS b \
             LEFT JOIN pgmoor.instance_predecessors AS p ON p.instance_id = $2 AND p.incarnation = b.incarnation \
             LEFT JOIN pgmoor.poolers AS q ON q.incarnation = b.incarnation \
             LEFT JOIN leases ON leases.incarnation = b.incarnation \
             LEFT JOIN held ON held.incarnation = b.incarnation \
             WHERE b.incarnation <> $1 ORDER BY b.incarnation",
        )
        .bind(incarnation.as_uuid())
        .bind(instance_id.as_uuid())
        .fetch_all(&mut *connection)
        .await?;
        let connections: Vec<ConnectionRow> = sqlx::query_as(
            "SELECT incarnation, backend_pid, backend_start, server_id, credential_kind, credential_user_id \
             FROM pgmoor.pooler_connections \
             WHERE instance_id = $2 AND incarnation <> $1 ORDER BY backend_start, backend_pid",
        )
        .bind(incarnation.as_uuid())
        .bind(instance_id.as_uuid())
        .fetch_all(&mut *connection)
        .await?;
        let mut forerunners = Vec::new();
        for row in rows {
            let mut forerunner = Forerunner::try_from(row)?;
            let own = connections
                .iter()
                .filter(|row| row.incarnation == forerunner.incarnation.as_uuid());
            let own = own.map(|row| row.read(instance_id));
            forerunner.connections = own.collect();
            forerunners.push(forerunner);
        }
        Ok(forerunners)
    }

    /// Which of these instances turned out to be another, and which that is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn merged(&self, ids: &[InstanceId]) -> Result<Vec<(InstanceId, InstanceId)>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, Uuid)> =
            sqlx::query_as("SELECT id, into_id FROM pgmoor.instance_merges WHERE id = ANY($1)")
                .bind(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
                .fetch_all(&mut *connection)
                .await?;
        let merged = |(id, into)| (InstanceId::from_uuid(id), InstanceId::from_uuid(into));
        Ok(rows.into_iter().map(merged).collect())
    }

    /// Notes that a predecessor opens nothing any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle(
        &self,
        instance_id: InstanceId,
        incarnation: IncarnationId,
    ) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query("DELETE FROM pgmoor.instance_predecessors WHERE instance_id = $1 AND incarnation = $2")
            .bind(instance_id.as_uuid())
            .bind(incarnation.as_uuid())
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    /// Removes the leases of a pooler that is gone, of operations that do not run any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn bury_leases(
        &self,
        instance_id: InstanceId,
        incarnation: IncarnationId,
    ) -> Result<(), StoreError> {
        let mut connection = self.store.acquire().await?;
        sqlx::query(
            "DELETE FROM pgmoor.slot_leases AS l WHERE instance_id = $1 AND incarnation = $2 \
             AND NOT EXISTS (SELECT FROM pgmoor.operations AS o \
              WHERE 'operations/' || o.id = l.operation AND o.state = 'running')",
        )
        .bind(instance_id.as_uuid())
        .bind(incarnation.as_uuid())
        .execute(&mut *connection)
        .await?;
        Ok(())
    }
}

/// Counts what was left on `from` under `into`: they are one instance.
pub(crate) async fn absorb(
    tx: &mut PgConnection,
    into: InstanceId,
    from: InstanceId,
) -> Result<(), sqlx::Error> {
    for sql in [
        "INSERT INTO pgmoor.instance_merges (id, into_id) VALUES ($2, $1)",
        "UPDATE pgmoor.instance_merges SET into_id = $1 WHERE into_id = $2",
        // Who owned it does not know yet that it does not any more.
        "INSERT INTO pgmoor.instance_predecessors (instance_id, incarnation, pooler_id, address) \
         SELECT $2, o.incarnation, o.pooler_id, p.address FROM pgmoor.instance_owners AS o \
         LEFT JOIN pgmoor.poolers AS p ON p.incarnation = o.incarnation \
         WHERE o.instance_id = $2 AND NOT o.released AND NOT EXISTS (SELECT FROM pgmoor.instance_owners AS i \
          WHERE i.instance_id = $1 AND i.incarnation = o.incarnation) \
         ON CONFLICT ON CONSTRAINT instance_predecessors_pkey DO NOTHING",
        "DELETE FROM pgmoor.instance_predecessors AS f WHERE instance_id = $2 AND EXISTS (SELECT FROM \
         pgmoor.instance_predecessors AS i WHERE i.instance_id = $1 AND i.incarnation = f.incarnation)",
        "UPDATE pgmoor.instance_predecessors SET instance_id = $1 WHERE instance_id = $2",
        "UPDATE pgmoor.pooler_connections SET instance_id = $1 WHERE instance_id = $2",
        "UPDATE pgmoor.slot_leases SET instance_id = $1 WHERE instance_id = $2",
        "UPDATE pgmoor.sessions SET instance_id = $1 WHERE instance_id = $2",
    ] {
        sqlx::query(sql)
            .bind(into.as_uuid())
            .bind(from.as_uuid())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

async fn remove(
    connection: &mut PgConnection,
    incarnation: IncarnationId,
    gone: &[Connection],
) -> Result<(), sqlx::Error> {
    // By pid and start only: the instance may have turned out to be another meanwhile.
    sqlx::query(
        "DELETE FROM pgmoor.pooler_connections AS c USING unnest($2::int[], $3::timestamptz[]) \
         AS n (backend_pid, backend_start) WHERE c.incarnation = $1 AND c.backend_pid = n.backend_pid \
         AND c.backend_start = n.backend_start",
    )
    .bind(incarnation.as_uuid())
    .bind(pids(gone))
    .bind(starts(gone))
    .execute(connection)
    .await?;
    Ok(())
}

fn instances(connections: &[Connection]) -> Vec<Uuid> {
    connections.iter().map(|one| one.instance_id.as_uuid()).collect()
}

fn pids(connections: &[Connection]) -> Vec<i32> {
    connections.iter().map(|one| one.backend_pid).collect()
}

fn kinds(connections: &[Connection]) -> Vec<&'static str> {
    connections.iter().map(|one| one.credential.as_str()).collect()
}

fn users(connections: &[Connection]) -> Vec<Option<Uuid>> {
    let user = |one: &Connection| one.credential.user().map(|user| user.as_uuid());
    connections.iter().map(user).collect()
}

fn starts(connections: &[Connection]) -> Vec<OffsetDateTime> {
    connections.iter().map(|one| one.backend_start).collect()
}

#[derive(sqlx::FromRow)]
struct ForerunnerRow {
    incarnation: Uuid,
    pooler_id: Option<i16>,
    address: Option<String>,
    may_open: bool,
    leased_slots: i64,
    sessions: i64,
}

impl TryFrom<ForerunnerRow> for Forerunner {
    type Error = Inconsistency;

    fn try_from(row: ForerunnerRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("instance_predecessors", column, row.incarnation);
        let id = |id: i16| id.try_into().map(PoolerId).map_err(|_| wrong("pooler_id"));
        Ok(Self {
            incarnation: IncarnationId::from_uuid(row.incarnation),
            pooler_id: row.pooler_id.map(id).transpose()?,
            address: row.address,
            may_open: row.may_open,
            connections: Vec::new(),
            leased_slots: row.leased_slots.try_into().map_err(|_| wrong("leased_slots"))?,
            sessions: row.sessions.try_into().map_err(|_| wrong("sessions"))?,
        })
    }
}

#[derive(sqlx::FromRow)]
struct ConnectionRow {
    incarnation: Uuid,
    backend_pid: i32,
    backend_start: OffsetDateTime,
    server_id: Uuid,
    credential_kind: Option<String>,
    credential_user_id: Option<Uuid>,
}

impl ConnectionRow {
    fn read(&self, instance_id: InstanceId) -> Connection {
        let user = self.credential_user_id.map(UserId::from_uuid);
        let kind = self.credential_kind.as_deref();
        Connection {
            instance_id,
            backend_pid: self.backend_pid,
            backend_start: self.backend_start,
            server_id: ServerId::from_uuid(self.server_id),
            // A word of a later version is no harm: whoever cannot end it sees when it is gone.
            credential: kind
                .and_then(|kind| CredentialKind::of(kind, user))
                .unwrap_or(CredentialKind::Shared),
        }
    }
}
