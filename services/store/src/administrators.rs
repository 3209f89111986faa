//! The rule that the last administrator stays: somebody must be able to let others in.
//!
//! Invariant: every change that could take the last one away locks all of them first, in one order, and so comes after every other
//! such change.

use sqlx::PgConnection;
use uuid::Uuid;

/// An administrator who is not disabled.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Administrator {
    pub(crate) id: Uuid,
    /// The provider whose groups made them one; nothing where somebody did.
    #[sqlx(rename = "administrator_provider")]
    pub(crate) provider: Option<String>,
}

/// Locks all who are not disabled until the transaction ends.
pub(crate) async fn locked(tx: &mut PgConnection) -> Result<Vec<Administrator>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, administrator_provider FROM pgmoor.users WHERE administrator AND NOT disabled \
         ORDER BY id FOR NO KEY UPDATE",
    )
    .fetch_all(tx)
    .await
}

/// Whether this is the only one.
pub(crate) fn is_last(administrators: &[Administrator], user: Uuid) -> bool {
    matches!(administrators, [last] if last.id == user)
}
