//! What kind of user somebody is: a person, maybe one who was invited by an address, or a service account.

use std::collections::HashMap;

use domain::id::UserId;
use domain::username::Username;
use sqlx::Connection as _;
use uuid::Uuid;

use crate::Store;
use crate::error::{StoreError, violated_constraint};
use crate::users::{CreateUserError, NewUser, User, insert};

/// What kind of user somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A person.
    Person {
        /// The address they were invited by, in lower case.
        email: Option<String>,
    },
    /// A workload: without a password, and nobody logs in as it in a browser.
    ServiceAccount,
}

/// The kinds of users. Made by [`Store::accounts`].
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a> {
    store: &'a Store,
}

impl Store {
    /// What kind of users there are.
    #[must_use]
    pub fn accounts(&self) -> Accounts<'_> {
        Accounts { store: self }
    }
}

impl Accounts<'_> {
    /// Makes a user of a kind.
    ///
    /// # Errors
    /// [`CreateUserError::UsernameTaken`], [`CreateUserError::EmailTaken`].
    pub async fn create(&self, new: NewUser, account: &Account) -> Result<User, CreateUserError> {
        let (kind, email) = match account {
            Account::Person { email } => ("person", email.clone()),
            Account::ServiceAccount => ("service_account", None),
        };
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        let user = insert(&mut tx, &new).await?;
        sqlx::query("UPDATE pgmoor.users SET kind = $2, email = $3 WHERE id = $1")
            .bind(user.id.as_uuid())
            .bind(kind)
            .bind(email)
            .execute(&mut *tx)
            .await
            .map_err(|error| match violated_constraint(&error) {
                Some("users_email_key") => CreateUserError::EmailTaken,
                _ => error.into(),
            })?;
        tx.commit().await?;
        Ok(user)
    }

    /// The kinds of these users. Who does not exist is left out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn of(&self, ids: &[UserId]) -> Result<HashMap<UserId, Account>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<(Uuid, bool, Option<String>)> = sqlx::query_as(
            "SELECT id, kind = 'service_account', email FROM pgmoor.users WHERE id = ANY ($1)",
        )
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|(id, is_service_account, email)| {
                let account = if is_service_account {
                    Account::ServiceAccount
                } else {
                    Account::Person { email }
                };
                (UserId::from_uuid(id), account)
            })
            .collect())
    }

    /// The service account with this login name that may log in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_account(&self, username: &Username) -> Result<Option<UserId>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let id: Option<Uuid> = sqlx::query_scalar(
            "SELECT id FROM pgmoor.users WHERE username_key = $1 AND kind = 'service_account' AND NOT disabled",
        )
        .bind(username.key())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(id.map(UserId::from_uuid))
    }
}
