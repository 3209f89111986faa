//! Elevations: wishes to write for a while, and what came of them.
//!
//! Invariant: one that is active was approved by another user than the one who asked.

mod expiry;

use std::collections::BTreeSet;
use std::time::Duration;

use domain::id::{ElevationId, ServerId, UserId};
use domain::name::Identifier;
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::access::{bound_to, owns, scope_holds};
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::etag::Etag;
use crate::limits::LimitReached;
use crate::page::{Cursor, Page, PageRequest};
use crate::{Store, seconds};

pub use expiry::RECORD_TIME;

/// Elevations of a user on a server that are not over, at most.
pub const MAX_OPEN: u32 = 3;
/// Elevations that a user may ask for on a server within an hour, at most: those who may approve them see them all.
pub const MAX_RECENT: u32 = 20;
/// How long a wish waits for a decision.
pub const DECISION_TIME: Duration = Duration::from_secs(60 * 60);

/// How an elevation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElevationState {
    /// Asked for.
    Requested,
    /// Approved: it holds.
    Active,
    /// Denied.
    Denied,
    /// Ended before its time, or taken back.
    Ended,
    /// Its time is over.
    Expired,
}

impl ElevationState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Requested,
        Self::Active,
        Self::Denied,
        Self::Ended,
        Self::Expired,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Active => "active",
            Self::Denied => "denied",
            Self::Ended => "ended",
            Self::Expired => "expired",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElevationWish {
    /// The databases; empty for all that the user may use.
    pub databases: BTreeSet<Identifier>,
    /// Why.
    pub reason: String,
    /// For how long, in whole seconds.
    pub duration: Duration,
    /// The name of the session it is asked for; empty for none.
    pub session: String,
}

/// An elevation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerElevation {
    /// The id.
    pub id: ElevationId,
    /// The server.
    pub server: ServerId,
    /// Who asked.
    pub user: UserId,
    /// What was asked for.
    pub wish: ElevationWish,
    /// How it stands.
    pub state: ElevationState,
    /// Who approved or denied it, and when.
    pub decided: Option<(Option<UserId>, OffsetDateTime)>,
    /// When it expires, or did.
    pub expire_time: OffsetDateTime,
    /// Who ended it before its time, and when.
    pub ended: Option<(Option<UserId>, OffsetDateTime)>,
    /// When it was asked for.
    pub create_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
}

/// What is done with an elevation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElevationChange {
    /// It holds from now on, for no longer than this.
    Approve {
        /// The longest that the server's policy allows.
        longest: Duration,
    },
    /// It does not come to hold.
    Deny,
    /// It is over.
    End,
}

/// Why an elevation was not asked for or changed.
#[derive(Debug, Error)]
pub enum ElevationError {
    /// There is no such elevation or server.
    #[error("there is no such elevation")]
    NotFound,
    /// The user has as many as may be.
    #[error(transparent)]
    LimitReached(#[from] LimitReached),
    /// Nobody approves their own.
    #[error("nobody approves what they asked for themselves")]
    OwnApproval,
    /// It is longer than the policy allows.
    #[error("the elevation is longer than the policy allows")]
    TooLong,
    /// It does not stand so that this can be done.
    #[error("the elevation is {}", .0.as_str())]
    State(ElevationState),
    /// It changed since the etag was read.
    #[error("the elevation changed since the etag was read")]
    EtagMismatch,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ElevationError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("elevations_server_id" | "elevations_user_id") => Self::NotFound,
            Some("elevations_approval") => Self::OwnApproval,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for ElevationError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// Which elevations are listed.
#[derive(Debug, Clone, Default)]
pub struct ElevationFilter {
    /// On this server; nothing for all of them.
    pub server: Option<ServerId>,
    /// In these states; empty for all of them.
    pub states: Vec<ElevationState>,
}

/// The elevations. Made by [`Store::elevations`].
#[derive(Debug, Clone, Copy)]
pub struct Elevations<'a> {
    store: &'a Store,
}

impl Store {
    /// The elevations.
    #[must_use]
    pub fn elevations(&self) -> Elevations<'_> {
        Elevations { store: self }
    }
}

/// How `e` stands: what is over by the clock is expired, whether or not that was written down.
macro_rules! state {
    () => {
        "CASE WHEN e.state IN ('requested', 'active') AND e.expire_time <= clock_timestamp() THEN 'expired' \
         ELSE e.state END"
    };
}

/// The columns of [`ElevationRow`].
macro_rules! columns {
    () => {
        concat!(
            "e.id, e.server_id, e.user_id, e.databases, e.reason, e.duration_s, e.session, ",
            state!(),
            " AS state, e.decided_by, e.decide_time, e.expire_time, e.ended_by, e.end_time, e.version, \
             e.create_time"
        )
    };
}

use {columns, state};

/// What a policy leaves of the elevations of its server: none where it allows none any more, and none longer than it allows.
pub(crate) async fn follow_policy(
    tx: &mut PgConnection,
    server: ServerId,
    longest: Option<Duration>,
) -> Result<(), sqlx::Error> {
    let sql = match longest {
        None => {
            "UPDATE pgmoor.elevations SET state = 'ended', end_time = clock_timestamp(), version = version + 1, \
             update_time = clock_timestamp() WHERE server_id = $1 AND state IN ('requested', 'active') \
             AND $2::float8 IS NULL"
        }
        Some(_) => {
            "UPDATE pgmoor.elevations SET expire_time = decide_time + make_interval(secs => $2), \
             version = version + 1, update_time = clock_timestamp() WHERE server_id = $1 AND state = 'active' \
             AND expire_time > decide_time + make_interval(secs => $2)"
        }
    };
    sqlx::query(sql)
        .bind(server.as_uuid())
        .bind(longest.map(seconds))
        .execute(tx)
        .await
        .map(drop)
}

impl Elevations<'_> {
    /// Asks for an elevation.
    ///
    /// # Errors
    /// [`ElevationError`] by cause.
    pub async fn request(
        &self,
        id: ElevationId,
        server: ServerId,
        user: UserId,
        wish: &ElevationWish,
    ) -> Result<ServerElevation, ElevationError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        // The wishes of one user are counted one after the other.
        let known: Option<i32> =
            sqlx::query_scalar("SELECT 1 FROM pgmoor.users WHERE id = $1 FOR NO KEY UPDATE")
                .bind(user.as_uuid())
                .fetch_optional(&mut *tx)
                .await?;
        known.ok_or(ElevationError::NotFound)?;
        let (open, recent): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state IN ('requested', 'active') AND expire_time > clock_timestamp()), \
             count(*) FILTER (WHERE create_time > clock_timestamp() - make_interval(secs => $3)) \
             FROM pgmoor.elevations WHERE user_id = $1 AND server_id = $2",
        )
        .bind(user.as_uuid())
        .bind(server.as_uuid())
        .bind(seconds(DECISION_TIME))
        .fetch_one(&mut *tx)
        .await?;
        let limits = [
            (
                "elevations of the user on the server that are not over",
                open,
                MAX_OPEN,
            ),
            (
                "elevations that the user asked for within an hour",
                recent,
                MAX_RECENT,
            ),
        ];
        for (limit, count, most) in limits {
            let most = i64::from(most);
            if count >= most {
                return Err(LimitReached { limit, most }.into());
            }
        }
        let row: ElevationRow = sqlx::query_as(concat!(
            "INSERT INTO pgmoor.elevations AS e (id, server_id, user_id, databases, reason, duration_s, session, \
             expire_time) VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8)) \
             RETURNING ",
            columns!()
        ))
        .bind(id.as_uuid())
        .bind(server.as_uuid())
        .bind(user.as_uuid())
        .bind(wish.databases.iter().map(Identifier::as_str).collect::<Vec<_>>())
        .bind(&wish.reason)
        .bind(i64::try_from(wish.duration.as_secs()).unwrap_or(i64::MAX))
        .bind(&wish.session)
        .bind(seconds(DECISION_TIME))
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Reads an elevation.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(
        &self,
        server: ServerId,
        id: ElevationId,
    ) -> Result<Option<ServerElevation>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<ElevationRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.elevations AS e WHERE e.server_id = $1 AND e.id = $2"
        ))
        .bind(server.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(ServerElevation::try_from).transpose()?)
    }

    /// Lists the elevations that the user asked for or may decide upon, oldest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(
        &self,
        user: UserId,
        filter: &ElevationFilter,
        page: &PageRequest,
    ) -> Result<Page<ServerElevation>, StoreError> {
        let (after_time, after_id) = page.after.as_ref().map(Cursor::time_and_id).transpose()?.unzip();
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<ElevationRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.elevations AS e JOIN pgmoor.servers AS s ON s.id = e.server_id \
             WHERE (e.user_id = $1 OR ",
            owns!("$1"),
            // These built-in roles have elevations.approve.
            " OR EXISTS (SELECT FROM pgmoor.role_bindings AS b LEFT JOIN pgmoor.roles AS r ON r.id = b.role_id \
                WHERE ",
            bound_to!("$1"),
            " AND ",
            scope_holds!(),
            " AND (b.role_name IN ('administrator', 'operator') OR 'elevations.approve' = ANY (r.permissions)))) \
             AND ($2::uuid IS NULL OR e.server_id = $2) AND (cardinality($3::text[]) = 0 OR ",
            state!(),
            " = ANY ($3)) AND ($4::timestamptz IS NULL OR (e.create_time, e.id) > ($4, $5)) \
             ORDER BY e.create_time, e.id LIMIT $6"
        ))
        .bind(user.as_uuid())
        .bind(filter.server.map(ServerId::as_uuid))
        .bind(states)
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let elevations = rows.into_iter().map(ServerElevation::try_from);
        let elevations = elevations.collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(elevations, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Decides upon an elevation, or ends it.
    ///
    /// # Errors
    /// [`ElevationError`] by cause.
    pub async fn change(
        &self,
        server: ServerId,
        id: ElevationId,
        by: UserId,
        change: ElevationChange,
        etag: Option<&Etag>,
    ) -> Result<ServerElevation, ElevationError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let row: Option<ElevationRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.elevations AS e WHERE e.server_id = $1 AND e.id = $2 FOR UPDATE"
        ))
        .bind(server.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *tx)
        .await?;
        let row = row.ok_or(ElevationError::NotFound)?;
        if !Etag::allows(etag, row.version) {
            return Err(ElevationError::EtagMismatch);
        }
        let before = ServerElevation::try_from(row)?;
        let sql = match (change, before.state) {
            (ElevationChange::Approve { .. }, _) if before.user == by => {
                return Err(ElevationError::OwnApproval);
            }
            (ElevationChange::Approve { longest }, ElevationState::Requested)
                if before.wish.duration > longest =>
            {
                return Err(ElevationError::TooLong);
            }
            (ElevationChange::Approve { .. }, ElevationState::Requested) => concat!(
                "UPDATE pgmoor.elevations AS e SET state = 'active', decided_by = $3, \
                 decide_time = clock_timestamp(), \
                 expire_time = clock_timestamp() + make_interval(secs => duration_s), \
                 version = version + 1, update_time = clock_timestamp() \
                 WHERE server_id = $1 AND id = $2 RETURNING ",
                columns!()
            ),
            (ElevationChange::Deny, ElevationState::Requested) => concat!(
                "UPDATE pgmoor.elevations AS e SET state = 'denied', decided_by = $3, \
                 decide_time = clock_timestamp(), version = version + 1, update_time = clock_timestamp() \
                 WHERE server_id = $1 AND id = $2 RETURNING ",
                columns!()
            ),
            (ElevationChange::End, ElevationState::Requested | ElevationState::Active) => concat!(
                "UPDATE pgmoor.elevations AS e SET state = 'ended', ended_by = $3, \
                 end_time = clock_timestamp(), version = version + 1, update_time = clock_timestamp() \
                 WHERE server_id = $1 AND id = $2 RETURNING ",
                columns!()
            ),
            (_, state) => return Err(ElevationError::State(state)),
        };
        let row: ElevationRow = sqlx::query_as(sql)
            .bind(server.as_uuid())
            .bind(id.as_uuid())
            .bind(by.as_uuid())
            .fetch_one(&mut *tx)
            .await?;
        // Only what comes to hold, or ceases to, changes a decision.
        if row.state == ElevationState::Active.as_str() || before.state == ElevationState::Active {
            Counter::Policy.next(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(row.try_into()?)
    }
}

#[derive(sqlx::FromRow)]
struct ElevationRow {
    id: Uuid,
    server_id: Uuid,
    user_id: Uuid,
    databases: Vec<String>,
    reason: String,
    duration_s: i64,
    session: String,
    state: String,
    decided_by: Option<Uuid>,
    decide_time: Option<OffsetDateTime>,
    expire_time: OffsetDateTime,
    ended_by: Option<Uuid>,
    end_time: Option<OffsetDateTime>,
    version: i64,
    create_time: OffsetDateTime,
}

impl TryFrom<ElevationRow> for ServerElevation {
    type Error = Inconsistency;

    fn try_from(row: ElevationRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("elevations", column, row.id);
        let databases = row.databases.iter().map(|name| name.parse());
        let user = |id: Option<Uuid>| id.map(UserId::from_uuid);
        Ok(Self {
            id: ElevationId::from_uuid(row.id),
            server: ServerId::from_uuid(row.server_id),
            user: UserId::from_uuid(row.user_id),
            wish: ElevationWish {
                databases: databases
                    .collect::<Result<_, _>>()
                    .map_err(|_| wrong("databases"))?,
                duration: u64::try_from(row.duration_s)
                    .map(Duration::from_secs)
                    .map_err(|_| wrong("duration_s"))?,
                reason: row.reason,
                session: row.session,
            },
            state: ElevationState::parse(&row.state).ok_or_else(|| wrong("state"))?,
            decided: row.decide_time.map(|time| (user(row.decided_by), time)),
            expire_time: row.expire_time,
            ended: row.end_time.map(|time| (user(row.ended_by), time)),
            create_time: row.create_time,
            etag: Etag::of(row.version),
        })
    }
}
