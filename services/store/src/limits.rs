//! How many of something there may be below one parent.
//!
//! Invariant: whoever adds one holds the parent's row from before it counts to its commit, so that two who add at once see
//! each other.

use sqlx::PgConnection;
use thiserror::Error;
use uuid::Uuid;

/// Grants on a server that have not expired.
pub const GRANTS_OF_A_SERVER: i64 = 1000;
/// Bindings of roles to one user or group.
pub const BINDINGS_OF_A_MEMBER: i64 = 100;
/// Members of a group that were added by hand or by rule. What a provider says of a person is followed beyond it.
pub const MEMBERS_OF_A_GROUP: i64 = 10_000;
/// Operations of a user that are queued or run.
pub const UNFINISHED_OPERATIONS_OF_A_USER: i64 = 1000;

/// There are as many as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there are {most} {limit} already, as many as there may be")]
pub struct LimitReached {
    /// What there are so many of.
    pub limit: &'static str,
    /// How many.
    pub most: i64,
}

/// A parent with what is counted below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    lock: &'static str,
    count: &'static str,
    reached: LimitReached,
}

macro_rules! limit {
    ($parent:literal, $children:literal, $name:literal, $most:expr) => {
        Limit {
            lock: concat!(
                "SELECT true FROM pgmoor.",
                $parent,
                " WHERE id = $1 FOR NO KEY UPDATE"
            ),
            count: concat!(
                "SELECT count(*) FROM (SELECT FROM pgmoor.",
                $children,
                " LIMIT $2) AS found"
            ),
            reached: LimitReached {
                limit: $name,
                most: $most,
            },
        }
    };
}

pub(crate) const GRANTS: Limit = limit!(
    "servers",
    "server_grants WHERE server_id = $1 AND (expire_time IS NULL OR expire_time > clock_timestamp())",
    "grants on the server",
    GRANTS_OF_A_SERVER
);
pub(crate) const USER_BINDINGS: Limit = limit!(
    "users",
    "role_bindings WHERE user_id = $1",
    "roles bound to the user",
    BINDINGS_OF_A_MEMBER
);
pub(crate) const GROUP_BINDINGS: Limit = limit!(
    "groups",
    "role_bindings WHERE group_id = $1",
    "roles bound to the group",
    BINDINGS_OF_A_MEMBER
);
pub(crate) const MEMBERS: Limit = limit!(
    "groups",
    "group_members WHERE group_id = $1 AND source NOT LIKE 'oidc:%'",
    "members of the group",
    MEMBERS_OF_A_GROUP
);
pub(crate) const OPERATIONS: Limit = limit!(
    "users",
    "operations WHERE owner_id = $1 AND state IN ('queued', 'running')",
    "operations of the user that have not ended",
    UNFINISHED_OPERATIONS_OF_A_USER
);

impl Limit {
    /// Holds the parent's row. A parent that is not there is the caller's to notice.
    pub(crate) async fn lock(&self, tx: &mut PgConnection, parent: Uuid) -> Result<(), sqlx::Error> {
        sqlx::query(self.lock).bind(parent).execute(tx).await.map(drop)
    }

    /// After one was added: whether there are too many now.
    pub(crate) async fn check(
        &self,
        tx: &mut PgConnection,
        parent: Uuid,
    ) -> Result<Result<(), LimitReached>, sqlx::Error> {
        let most = self.reached.most;
        let count: i64 = sqlx::query_scalar(self.count)
            .bind(parent)
            .bind(most.saturating_add(1))
            .fetch_one(tx)
            .await?;
        Ok(if count > most { Err(self.reached) } else { Ok(()) })
    }
}
