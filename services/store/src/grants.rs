//! Grants on servers: shares in the use of them.

use std::collections::BTreeSet;

use domain::access::{Access, GrantLimits, Principal};
use domain::id::{GrantId, GroupId, ServerId, UserId};
use domain::name::Identifier;
use serde_json::Value;
use sqlx::Connection as _;
use sqlx::types::Json;
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::Store;
use crate::counter::Counter;
use crate::error::{Inconsistency, StoreError, violated_constraint};
use crate::etag::Etag;
use crate::limits::{self, LimitReached};
use crate::page::{Cursor, Page, PageRequest};
use crate::role_bindings::principal;

/// A share in the use of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerGrant {
    /// The id.
    pub id: GrantId,
    /// The server.
    pub server: ServerId,
    /// Who has it.
    pub member: Principal,
    /// How far, where and how long.
    pub terms: GrantTerms,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// Changes with every change.
    pub etag: Etag,
}

/// How far, where and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTerms {
    /// How far.
    pub access: Access,
    /// The databases; empty for all that the server's policy allows.
    pub databases: BTreeSet<Identifier>,
    /// What is narrowed.
    pub limits: GrantLimits,
    /// From then on it gives nothing.
    pub expire_time: Option<OffsetDateTime>,
}

/// Why a grant was not made or changed.
#[derive(Debug, Error)]
pub enum GrantError {
    /// There is no such grant or server.
    #[error("there is no such grant")]
    NotFound,
    /// There is no such user or group.
    #[error("there is no such user or group")]
    MemberNotFound,
    /// It changed since the etag was read.
    #[error("the grant changed since the etag was read")]
    EtagMismatch,
    /// There are as many as there may be.
    #[error(transparent)]
    LimitReached(#[from] LimitReached),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for GrantError {
    fn from(error: sqlx::Error) -> Self {
        match violated_constraint(&error) {
            Some("server_grants_server_id") => Self::NotFound,
            Some("server_grants_user_id" | "server_grants_group_id") => Self::MemberNotFound,
            _ => Self::Store(error.into()),
        }
    }
}

impl From<Inconsistency> for GrantError {
    fn from(error: Inconsistency) -> Self {
        Self::Store(error.into())
    }
}

/// The grants. Made by [`Store::grants`].
#[derive(Debug, Clone, Copy)]
pub struct Grants<'a> {
    store: &'a Store,
}

impl Store {
    /// The grants on servers.
    #[must_use]
    pub fn grants(&self) -> Grants<'_> {
        Grants { store: self }
    }
}

/// The columns of [`GrantRow`].
macro_rules! columns {
    () => {
        "id, server_id, user_id, group_id, access, databases, limits, expire_time, version, create_time, \
         update_time"
    };
}

impl Grants<'_> {
    /// Makes a grant.
    ///
    /// # Errors
    /// [`GrantError`] by cause.
    pub async fn create(
        &self,
        id: GrantId,
        server: ServerId,
        member: Principal,
        terms: &GrantTerms,
    ) -> Result<ServerGrant, GrantError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        limits::GRANTS.lock(&mut tx, server.as_uuid()).await?;
        let row: GrantRow = sqlx::query_as(concat!(
            "INSERT INTO pgmoor.server_grants (id, server_id, user_id, group_id, access, databases, limits, \
             expire_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING ",
            columns!()
        ))
        .bind(id.as_uuid())
        .bind(server.as_uuid())
        .bind(member.user().map(UserId::as_uuid))
        .bind(member.group().map(GroupId::as_uuid))
        .bind(terms.access.as_str())
        .bind(names(&terms.databases))
        .bind(terms.limits.to_json())
        .bind(terms.expire_time)
        .fetch_one(&mut *tx)
        .await?;
        limits::GRANTS.check(&mut tx, server.as_uuid()).await??;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Reads a grant on a server.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, server: ServerId, id: GrantId) -> Result<Option<ServerGrant>, StoreError> {
        let mut connection = self.store.acquire().await?;
        let row: Option<GrantRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.server_grants WHERE server_id = $1 AND id = $2"
        ))
        .bind(server.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
        Ok(row.map(ServerGrant::try_from).transpose()?)
    }

    /// Lists the grants on a server, oldest first.
    ///
    /// # Errors
    /// [`StoreError::InvalidCursor`] for a cursor of another listing.
    pub async fn list(&self, server: ServerId, page: &PageRequest) -> Result<Page<ServerGrant>, StoreError> {
        let (after_time, after_id) = page.after.as_ref().map(Cursor::time_and_id).transpose()?.unzip();
        let mut connection = self.store.acquire().await?;
        let rows: Vec<GrantRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM pgmoor.server_grants WHERE server_id = $1 \
             AND ($2::timestamptz IS NULL OR (create_time, id) > ($2, $3)) ORDER BY create_time, id LIMIT $4"
        ))
        .bind(server.as_uuid())
        .bind(after_time)
        .bind(after_id)
        .bind(page.size.probe())
        .fetch_all(&mut *connection)
        .await?;
        let grants = rows.into_iter().map(ServerGrant::try_from);
        let grants = grants.collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(grants, page.size, |it| {
            Cursor::of_time_and_id(it.create_time, it.id.as_uuid())
        }))
    }

    /// Changes a grant's terms.
    ///
    /// # Errors
    /// [`GrantError`] by cause.
    pub async fn update(
        &self,
        server: ServerId,
        id: GrantId,
        terms: &GrantTerms,
        etag: Option<&Etag>,
    ) -> Result<ServerGrant, GrantError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        check(&mut tx, server, id, etag).await?;
        let row: GrantRow = sqlx::query_as(concat!(
            "UPDATE pgmoor.server_grants SET access = $3, databases = $4, limits = $5, expire_time = $6, \
             version = version + 1, update_time = clock_timestamp() WHERE server_id = $1 AND id = $2 \
             RETURNING ",
            columns!()
        ))
        .bind(server.as_uuid())
        .bind(id.as_uuid())
        .bind(terms.access.as_str())
        .bind(names(&terms.databases))
        .bind(terms.limits.to_json())
        .bind(terms.expire_time)
        .fetch_one(&mut *tx)
        .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(row.try_into()?)
    }

    /// Revokes a grant.
    ///
    /// # Errors
    /// [`GrantError`] by cause.
    pub async fn delete(&self, server: ServerId, id: GrantId, etag: Option<&Etag>) -> Result<(), GrantError> {
        let mut connection = self.store.acquire().await?;
        let mut tx = connection.begin().await?;
        check(&mut tx, server, id, etag).await?;
        sqlx::query("DELETE FROM pgmoor.server_grants WHERE server_id = $1 AND id = $2")
            .bind(server.as_uuid())
            .bind(id.as_uuid())
            .execute(&mut *tx)
            .await?;
        Counter::Policy.next(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn names(databases: &BTreeSet<Identifier>) -> Vec<&str> {
    databases.iter().map(Identifier::as_str).collect()
}

async fn check(
    tx: &mut sqlx::PgConnection,
    server: ServerId,
    id: GrantId,
    etag: Option<&Etag>,
) -> Result<(), GrantError> {
    let version: Option<i64> = sqlx::query_scalar(
        "SELECT version FROM pgmoor.server_grants WHERE server_id = $1 AND id = $2 FOR UPDATE",
    )
    .bind(server.as_uuid())
    .bind(id.as_uuid())
    .fetch_optional(tx)
    .await?;
    if Etag::allows(etag, version.ok_or(GrantError::NotFound)?) {
        Ok(())
    } else {
        Err(GrantError::EtagMismatch)
    }
}

#[derive(sqlx::FromRow)]
struct GrantRow {
    id: Uuid,
    server_id: Uuid,
    user_id: Option<Uuid>,
    group_id: Option<Uuid>,
    access: String,
    databases: Vec<String>,
    limits: Json<Value>,
    expire_time: Option<OffsetDateTime>,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
}

impl TryFrom<GrantRow> for ServerGrant {
    type Error = Inconsistency;

    fn try_from(row: GrantRow) -> Result<Self, Inconsistency> {
        let wrong = |column| Inconsistency::new("server_grants", column, row.id);
        let databases = row.databases.iter().map(|name| name.parse());
        Ok(Self {
            id: GrantId::from_uuid(row.id),
            server: ServerId::from_uuid(row.server_id),
            member: principal(row.user_id, row.group_id).ok_or_else(|| wrong("user_id"))?,
            terms: GrantTerms {
                access: row.access.parse().map_err(|()| wrong("access"))?,
                databases: databases
                    .collect::<Result<_, _>>()
                    .map_err(|_| wrong("databases"))?,
                limits: GrantLimits::from_json(&row.limits.0).ok_or_else(|| wrong("limits"))?,
                expire_time: row.expire_time,
            },
            create_time: row.create_time,
            update_time: row.update_time,
            etag: Etag::of(row.version),
        })
    }
}
