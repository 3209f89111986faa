//! What a server allows.

use domain::access::ServerPolicy;
use domain::id::ServerId;
use sqlx::Connection as _;

use super::{Server, Servers, UpdateServerError, lock, read};
use crate::counter::Counter;
use crate::elevations;
use crate::etag::Etag;

impl Servers<'_> {
    /// Sets what a server allows.
    ///
    /// # Errors
    /// [`UpdateServerError::NotFound`], [`UpdateServerError::EtagMismatch`].
    pub async fn set_policy(
        &self,
        id: ServerId,
        policy: &ServerPolicy,
        etag: Option<&Etag>,
    ) -> Result<Server, UpdateServerError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let before = lock(&mut tx, id).await?.ok_or(UpdateServerError::NotFound)?;
        if !Etag::allows(etag, before.version) {
            return Err(UpdateServerError::EtagMismatch);
        }
        sqlx::query(
            "UPDATE pgmoor.servers SET policy = $2, version = version + 1, update_time = clock_timestamp() \
             WHERE id = $1",
        )
        .bind(id.as_uuid())
        .bind(policy.to_json())
        .execute(&mut *tx)
        .await?;
        elevations::follow_policy(&mut tx, id, policy.max_elevation).await?;
        let row = read(&mut tx, id).await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }
}
