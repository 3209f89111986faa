//! Users: who can log in, and who administers pgmoor.
//!
//! Invariant: once there is an enabled administrator, there always is one.

use domain::id::UserId;
use domain::name::DisplayName;
use domain::username::Username;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection as _, PgConnection};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, store_variant, violated_constraint};
use crate::etag::Etag;
use crate::logins::EndReason;
use crate::page::{Cursor, Page, PageRequest};
use crate::revocations::{self, Subject};
use crate::{Store, administrators, api_tokens, logins};

/// A person or a workload that can log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id.
    pub id: UserId,
    /// The login name.
    pub username: Username,
    /// What people call the user.
    pub display_name: DisplayName,
    /// True for a user who administers pgmoor itself.
    pub administrator: bool,
    /// True for a user who may not log in.
    pub disabled: bool,
    /// When the user was made.
    pub create_time: OffsetDateTime,
    /// When the user was last changed.
    pub update_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
    /// Until when their API tokens work, for want of a provider's word; `None` where none is needed, or it was not asked for.
    pub vouch_expire_time: Option<OffsetDateTime>,
}

/// A user to make.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The id.
    pub id: UserId,
    /// The login name.
    pub username: Username,
    /// What people call the user.
    pub display_name: DisplayName,
    /// The password's hash (a PHC string); `None` for a user who cannot log in with a password.
    pub password_hash: Option<SecretString>,
    /// True for a user who administers pgmoor itself.
    pub administrator: bool,
}

/// A change of a user: what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// The new display name.
    pub display_name: Option<DisplayName>,
    /// Whether the user administers pgmoor.
    pub administrator: Option<bool>,
    /// Whether the user may not log in. Disabling ends logins and revokes tokens.
    pub disabled: Option<bool>,
    /// The etag as read before; `None` to change whatever is there.
    pub etag: Option<Etag>,
}

/// A user with what a password is checked against.
#[derive(Debug, Clone)]
pub struct UserWithPassword {
    /// The user.
    pub user: User,
    /// The password's hash, if there is one.
    pub password_hash: Option<SecretString>,
}

/// Why a user was not made.
#[derive(Debug, Error)]
pub enum CreateUserError {
    /// The login name is taken, in this or another spelling.
    #[error("the username is taken")]
    UsernameTaken,
    /// Another user was invited by this address.
    #[error("the email is another user's")]
    EmailTaken,
    /// There are users already.
    #[error("there are users already")]
    NotFirst,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a user was not changed.
#[derive(Debug, Error)]
pub enum UpdateUserError {
    /// There is no such user.
    #[error("there is no such user")]
    NotFound,
    /// The user changed since the etag was read.
    #[error("the user changed since the etag was read")]
    EtagMismatch,
    /// No enabled administrator would be left.
    #[error("the last enabled administrator cannot be disabled or demoted")]
    LastAdministrator,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(UpdateUserError);

impl From<sqlx::Error> for CreateUserError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("users_username_key") => Self::UsernameTaken,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for CreateUserError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// The users. Made by [`Store::users`].
#[derive(Debug, Clone, Copy)]
pub struct Users<'a> {
    store: &'a Store,
}

impl Store {
    /// The users.
    #[must_use]
    pub fn users(&self) -> Users<'_> {
        Users { store: self }
    }
}

impl Users<'_> {
    /// Makes a user.
    ///
    /// # Errors
    /// [`CreateUserError::UsernameTaken`].
    pub async fn create(&self, new: NewUser) -> Result<User, CreateUserError> {
        let mut connection = self.store.acquire().await?;
        insert(&mut connection, &new).await
    }

    /// Makes the first user: how a fresh database gets its administrator, once, however many processes try.
    ///
    /// # Errors
    /// [`CreateUserError::NotFirst`] where there is a user already.
    pub async fn create_first(&self, new: NewUser) -> Result<User, CreateUserError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        // Any row that everybody locks will do; this one is not in the way of anything else yet.
        crate::counter::Counter::SigningKeys.lock(&mut tx).await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pgmoor.users)")
            .fetch_one(&mut *tx)
            .await?;
        if exists {
            return Err(CreateUserError::NotFirst);
        }
        let user = insert(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Reads a user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<UserRow> = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time, vouch_expire_time \
             FROM pgmoor.users WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(User::try_from).transpose()?)
    }

    /// Reads users as they are now, in one query, in no particular order. Who does not exist is left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn current(&self, ids: &[UserId]) -> Result<Vec<User>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<UserRow> = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time, vouch_expire_time \
             FROM pgmoor.users WHERE id = ANY($1)",
        )
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        let users: Result<Vec<_>, _> = rows.into_iter().map(User::try_from).collect();
        Ok(users?)
    }

    /// Reads a user with the password's hash, by id. Only for the role `pgmoor_api`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_with_password(&self, id: UserId) -> Result<Option<UserWithPassword>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<UserWithPasswordRow> = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time, \
             password_hash FROM pgmoor.users WHERE id = $1",
        )
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(UserWithPassword::try_from).transpose()?)
    }

    /// Reads a user with the password's hash, by login name in any spelling. Only for the role `pgmoor_api`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find_by_username(
        &self,
        username: &Username,
    ) -> Result<Option<UserWithPassword>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<UserWithPasswordRow> = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time, \
             password_hash FROM pgmoor.users WHERE username_key = $1",
        )
        .bind(username.key())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(UserWithPassword::try_from).transpose()?)
    }

    /// Lists users by login name, without regard to case.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, page: &PageRequest) -> Result<Page<User>, StoreError> {
        let after = page
            .after
            .as_ref()
            .map(Cursor::parts::<1>)
            .transpose()?
            .map(|[key]| key);
        let mut connection = self.store.acquire().await?;
        let rows: Vec<UserRow> = sqlx::query_as(
            "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time \
             FROM pgmoor.users WHERE $1::text IS NULL OR username_key > $1 ORDER BY username_key LIMIT $2",
        )
        .bind(after)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let users = rows
            .into_iter()
            .map(User::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(users, page.size, |user| {
            Cursor::of([user.username.key()])
        }))
    }

    /// Changes a user. Disabling one ends their logins, revokes their API tokens, and tells the verifiers.
    ///
    /// # Errors
    /// [`UpdateUserError`] by cause.
    pub async fn update(&self, id: UserId, change: UserChange) -> Result<User, UpdateUserError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let administrators = administrators::locked(&mut tx).await?;
        let before = lock(&mut tx, id).await?.ok_or(UpdateUserError::NotFound)?;
        if !Etag::allows(change.etag.as_ref(), before.version) {
            return Err(UpdateUserError::EtagMismatch);
        }
        let administrator = change.administrator.unwrap_or(before.administrator);
        let disabled = change.disabled.unwrap_or(before.disabled);
        let steps_down = before.administrator && !before.disabled && (disabled || !administrator);
        if steps_down && administrators::is_last(&administrators, id.as_uuid()) {
            return Err(UpdateUserError::LastAdministrator);
        }
        let row: UserRow = sqlx::query_as(
            "UPDATE pgmoor.users SET display_name = coalesce($2, display_name), administrator = $3, disabled \
             = $4, \
             administrator_provider = CASE WHEN $5 THEN NULL ELSE administrator_provider END, \
             version = version + 1, update_time = clock_timestamp() WHERE id = $1 \
             RETURNING id, username, display_name, administrator, disabled, version, create_time, \
             update_time",
        )
        .bind(id.as_uuid())
        .bind(change.display_name.as_ref().map(DisplayName::as_str))
        .bind(administrator)
        .bind(disabled)
        .bind(change.administrator.is_some())
        .fetch_one(&mut *tx)
        .await?;
        if disabled && !before.disabled {
            logins::end_all(&mut tx, id, EndReason::Disabled).await?;
            api_tokens::revoke_all(&mut tx, id).await?;
            revocations::append(&mut tx, &[Subject::User(id)]).await?;
        }
        if disabled != before.disabled || administrator != before.administrator {
            // What is open is decided again.
            Counter::Policy.next(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Sets the password's hash and ends all logins of the user. API tokens live on.
    ///
    /// # Errors
    /// [`UpdateUserError::NotFound`].
    pub async fn set_password(
        &self,
        id: UserId,
        password_hash: &SecretString,
    ) -> Result<User, UpdateUserError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let row: Option<UserRow> = sqlx::query_as(
            "UPDATE pgmoor.users SET password_hash = $2, vouch_expire_time = NULL, version = version + 1, \
             update_time = clock_timestamp() \
             WHERE id = $1 \
             RETURNING id, username, display_name, administrator, disabled, version, create_time, \
             update_time",
        )
        .bind(id.as_uuid())
        .bind(password_hash.expose_secret())
        .fetch_optional(&mut *tx)
        .await?;
        let user = User::try_from(row.ok_or(UpdateUserError::NotFound)?)?;
        let ended = logins::end_all(&mut tx, id, EndReason::Password).await?;
        let ended: Vec<Subject> = ended.into_iter().map(Subject::Login).collect();
        revocations::append(&mut tx, &ended).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Replaces the hash of the same password, for one made with better parameters. Nothing else changes, not
    /// even the etag. False where the password changed in between.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rehash_password(
        &self,
        id: UserId,
        old: &SecretString,
        new: &SecretString,
    ) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "UPDATE pgmoor.users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
        let done = sqlx::query(sql)
            .bind(id.as_uuid())
            .bind(old.expose_secret())
            .bind(new.expose_secret())
            .execute(&mut *connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

pub(crate) async fn insert(connection: &mut PgConnection, new: &NewUser) -> Result<User, CreateUserError> {
    let row: UserRow = sqlx::query_as(
        "INSERT INTO pgmoor.users (id, username, username_key, display_name, password_hash, administrator) \
         VALUES ($1, $2, $3, $4, $5, $6) \
         RETURNING id, username, display_name, administrator, disabled, version, create_time, update_time",
    )
    .bind(new.id.as_uuid())
    .bind(new.username.as_str())
    .bind(new.username.key())
    .bind(new.display_name.as_str())
    .bind(new.password_hash.as_ref().map(ExposeSecret::expose_secret))
    .bind(new.administrator)
    .fetch_one(connection)
    .await?;
    Ok(row.try_into()?)
}

async fn lock(tx: &mut PgConnection, id: UserId) -> Result<Option<UserRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, username, display_name, administrator, disabled, version, create_time, update_time \
         FROM pgmoor.users WHERE id = $1 FOR NO KEY UPDATE",
    )
    .bind(id.as_uuid())
    .fetch_optional(tx)
    .await
}

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct UserRow {
    id: Uuid,
    username: String,
    display_name: String,
    administrator: bool,
    disabled: bool,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
    /// Read where tokens are checked, and nowhere else.
    #[sqlx(default)]
    vouch_expire_time: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct UserWithPasswordRow {
    #[sqlx(flatten)]
    user: UserRow,
    password_hash: Option<String>,
}

impl TryFrom<UserRow> for User {
    type Error = Inconsistency;

    fn try_from(row: UserRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("users", column, row.id);
        Ok(Self {
            id: UserId::from_uuid(row.id),
            username: row.username.parse().map_err(|_| wrong("username"))?,
            display_name: row.display_name.parse().map_err(|_| wrong("display_name"))?,
            administrator: row.administrator,
            disabled: row.disabled,
            create_time: row.create_time,
            update_time: row.update_time,
            etag: Etag::of(row.version),
            vouch_expire_time: row.vouch_expire_time,
        })
    }
}

impl TryFrom<UserWithPasswordRow> for UserWithPassword {
    type Error = Inconsistency;

    fn try_from(row: UserWithPasswordRow) -> Result<Self, Inconsistency> {
        Ok(Self {
            user: row.user.try_into()?,
            password_hash: row.password_hash.map(SecretString::from),
        })
    }
}
