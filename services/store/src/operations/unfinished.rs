//! Which of many operations go on: one question for all that somebody waits for.

use std::collections::HashSet;

use domain::id::OperationId;
use uuid::Uuid;

use super::Operations;
use crate::error::StoreError;

impl Operations<'_> {
    /// Those of `ids` that have not ended. The others have, or are forgotten.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unfinished(&self, ids: &[OperationId]) -> Result<HashSet<OperationId>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        let unfinished: Vec<Uuid> =
            sqlx::query_scalar("SELECT id FROM pgmoor.operations WHERE id = ANY ($1) AND end_time IS NULL")
                .bind(ids)
                .fetch_all(&mut *connection)
                .await?;
        Ok(unfinished.into_iter().map(OperationId::from_uuid).collect())
    }
}
