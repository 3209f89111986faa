//! The logins of a user as they see them: with which client, from where, since when.

use domain::id::{LoginId, UserId};
use sqlx::Connection as _;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::error::StoreError;
use crate::logins::EndReason;
use crate::page::{Cursor, Page, PageRequest};
use crate::revocations::{self, Subject};

/// A login that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The login.
    pub login_id: LoginId,
    /// Whose it is.
    pub user_id: UserId,
    /// The client, as it says itself.
    pub client_name: Option<String>,
    /// Where it called from.
    pub address: Option<String>,
    /// The provider it was begun at; none for a password.
    pub provider: Option<String>,
    /// When it was begun.
    pub create_time: OffsetDateTime,
    /// When it was last refreshed; none where it never was.
    pub refresh_time: Option<OffsetDateTime>,
}

/// The logins of users. Made by [`Store::devices`].
#[derive(Debug, Clone, Copy)]
pub struct Devices<'a> {
    store: &'a Store,
}

impl Store {
    /// The logins of users, as they see them.
    #[must_use]
    pub fn devices(&self) -> Devices<'_> {
        Devices { store: self }
    }
}

impl Devices<'_> {
    /// Lists a user's logins that have not ended and can still be refreshed, newest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, user: UserId, page: &PageRequest) -> Result<Page<Device>, StoreError> {
        let after = page.after.as_ref().map(Cursor::time_and_id).transpose()?;
        let (after_time, after_id) = after.unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT l.id, l.user_id, l.client_name, l.address, l.provider, l.create_time, l.refresh_time \
             FROM pgmoor.logins AS l WHERE l.user_id = $1 AND l.end_time IS NULL \
             AND EXISTS (SELECT FROM pgmoor.refresh_tokens AS t WHERE t.login_id = l.id AND t.use_time IS NULL \
             AND t.expire_time > clock_timestamp()) \
             AND ($2::timestamptz IS NULL OR (l.create_time, l.id) < ($2, $3)) \
             ORDER BY l.create_time DESC, l.id DESC LIMIT $4",
        )
        .bind(user.as_uuid())
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let devices = rows.into_iter().map(Device::from).collect();
        Ok(Page::from_rows(devices, page.size, |device: &Device| {
            Cursor::of_time_and_id(device.create_time, device.login_id.as_uuid())
        }))
    }

    /// Ends a login of the user. False where they have no such login. Ending it again changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke(&self, user: UserId, login: LoginId) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let owned: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pgmoor.logins WHERE id = $1 AND user_id = $2)")
                .bind(login.as_uuid())
                .bind(user.as_uuid())
                .fetch_one(&mut *tx)
                .await?;
        if owned && crate::logins::end(&mut tx, login, EndReason::Revoked).await? {
            revocations::append(&mut tx, &[Subject::Login(login)]).await?;
        }
        tx.commit().await?;
        Ok(owned)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    user_id: Uuid,
    client_name: Option<String>,
    address: Option<String>,
    provider: Option<String>,
    create_time: OffsetDateTime,
    refresh_time: Option<OffsetDateTime>,
}

impl From<Row> for Device {
    fn from(row: Row) -> Self {
        Self {
            login_id: LoginId::from_uuid(row.id),
            user_id: UserId::from_uuid(row.user_id),
            client_name: row.client_name,
            address: row.address,
            provider: row.provider,
            create_time: row.create_time,
            refresh_time: row.refresh_time,
        }
    }
}
