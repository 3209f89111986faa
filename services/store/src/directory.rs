//! Which poolers there are and what each owns, as an API instance or a worker asks every second.

use std::time::Duration;

use domain::id::InstanceId;
use domain::session::PoolerId;
use uuid::Uuid;

use crate::error::{Inconsistency, StoreError};
use crate::poolers::Pooler;
use crate::{Store, seconds};

/// So long a pooler is still looked for that gives no sign of life. While the config database is away none can, and they
/// serve what they have.
const LATELY: Duration = Duration::from_secs(10);

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The poolers that are alive or were so lately, by id.
    pub poolers: Vec<Pooler>,
    /// Who owns an instance: also a pooler whose lease has run out, because it serves what it has until
    /// somebody takes over.
    pub owners: Vec<(InstanceId, PoolerId)>,
}

impl Store {
    /// The poolers that are alive, and what they own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn directory(&self) -> Result<Directory, StoreError> {
        let poolers = self.poolers().list_seen(LATELY).await?;
        let mut connection = self.acquire().await?;
        let rows: Vec<(Uuid, i16)> = sqlx::query_as(
            "SELECT o.instance_id, o.pooler_id FROM pgmoor.instance_owners AS o \
             JOIN pgmoor.poolers AS p ON p.incarnation = o.incarnation \
             WHERE NOT o.released AND p.lease_until > clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(seconds(LATELY))
        .fetch_all(&mut *connection)
        .await?;
        let owner = |(instance, pooler): (Uuid, i16)| -> Result<_, Inconsistency> {
            let id = pooler.try_into();
            let id = id.map_err(|_| Inconsistency::new("instance_owners", "pooler_id", instance))?;
            Ok((InstanceId::from_uuid(instance), PoolerId(id)))
        };
        let owners = rows.into_iter().map(owner).collect::<Result<_, _>>()?;
        Ok(Directory { poolers, owners })
    }
}
