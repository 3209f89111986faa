//! Revisions: numbers that are given in the order of the commits. The crate's documentation says why they are
//! rows.

use sqlx::PgConnection;

/// A row of `pgmoor.counters`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counter {
    Policy,
    Revocations,
    Settings,
    SigningKeys,
}

impl Counter {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Revocations => "revocations",
            Self::Settings => "settings",
            Self::SigningKeys => "signing_keys",
        }
    }

    /// Gives the next revision. Others who ask wait until this transaction ends: do it last.
    pub(crate) async fn next(self, tx: &mut PgConnection) -> Result<i64, sqlx::Error> {
        let sql = "UPDATE pgmoor.counters SET revision = revision + 1 WHERE name = $1 RETURNING revision";
        sqlx::query_scalar(sql).bind(self.name()).fetch_one(tx).await
    }

    /// Makes this transaction the only one that holds the counter.
    pub(crate) async fn lock(self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let sql = "SELECT revision FROM pgmoor.counters WHERE name = $1 FOR UPDATE";
        sqlx::query_scalar::<_, i64>(sql)
            .bind(self.name())
            .fetch_one(tx)
            .await
            .map(drop)
    }

    /// The revision of the last committed change.
    pub(crate) async fn current(self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        let sql = "SELECT revision FROM pgmoor.counters WHERE name = $1";
        sqlx::query_scalar(sql)
            .bind(self.name())
            .fetch_one(connection)
            .await
    }
}
