//! Bringing the schema up to date: what `pgmoor migrate` does, as the owner of the database.
//!
//! Invariant: one migration run at a time per database, and each migration wholly or not at all.

use secrecy::SecretString;
use sqlx::migrate::{MigrateError as DriverError, Migrator};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use thiserror::Error;

use crate::connection::address::Address;
use crate::connection::{ConnectError, InvalidUrl, find_primary};
use crate::error::{StoreError, store_variant};

/// The group roles that grants go to. They cannot log in; a login role is made a member of one of them.
pub const GROUP_ROLES: [&str; 3] = ["pgmoor_api", "pgmoor_pooler", "pgmoor_worker"];

const APPLICATION_NAME: &str = "pgmoor migrate";
/// The key of our advisory lock: `pgmoor` in ASCII. It is taken in the database that is migrated, which is
/// ours.
const LOCK_KEY: i64 = 0x7067_6d6f_6f72;
/// How long another run is waited for, and then how long each statement waits for a table's lock.
const WAIT_FOR_OTHER_RUN: &str = "SET lock_timeout = '60s'";
const WAIT_FOR_TABLE: &str = "SET lock_timeout = '10s'";
/// Roles belong to the cluster: migrations of two databases may make them at once, and then one of them finds
/// them made.
const CREATE_ROLES: &str = "\
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pgmoor_api', 'pgmoor_pooler', 'pgmoor_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$";

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The schema's version before; 0 where there was none.
    pub from: i64,
    /// The schema's version now.
    pub to: i64,
}

/// Why the schema was not brought up to date.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The database cannot be used at all.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Another run has held the lock for a minute.
    #[error("another migration of this database is running")]
    Busy,
    /// The group roles are missing, and the owner may not make them.
    #[error("the roles {} are missing and the owner may not create roles; as a role with CREATEROLE run: \
        {}", roles.join(", "), self.sql())]
    RolesMissing {
        /// The missing roles.
        roles: Vec<String>,
    },
    /// A migration that was applied differs from the one this program has.
    #[error("migration {version} was applied in another form than this program has it")]
    Altered {
        /// The migration's version.
        version: i64,
    },
    /// A migration failed and was rolled back.
    #[error("migration {version} failed")]
    Failed {
        /// The migration's version.
        version: i64,
        /// What PostgreSQL said.
        #[source]
        cause: StoreError,
    },
    /// The migrations' own bookkeeping is not readable.
    #[error("the record of applied migrations cannot be used: {0}")]
    Record(#[source] DriverError),
    /// The database failed in between.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(MigrateError);

impl From<InvalidUrl> for MigrateError {
    fn from(error: InvalidUrl) -> Self {
        ConnectError::from(error).into()
    }
}

impl MigrateError {
    /// The SQL that makes the missing roles; empty for other errors.
    #[must_use]
    pub fn sql(&self) -> String {
        let Self::RolesMissing { roles } = self else {
            return String::new();
        };
        roles
            .iter()
            .map(|role| format!("CREATE ROLE {role} NOLOGIN;"))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Applies the migrations that are pending, and makes the group roles they grant to.
///
/// # Errors
/// When the database cannot be reached or a migration fails; those before it stay applied.
pub async fn run(url: &SecretString) -> Result<Migrated, MigrateError> {
    let address = Address::parse(url)?;
    let primary = find_primary(&address, APPLICATION_NAME).await?;
    let mut connection = address.options(&primary.host, APPLICATION_NAME).connect().await?;
    sqlx::raw_sql(WAIT_FOR_OTHER_RUN).execute(&mut connection).await?;
    // The lock goes with the connection, however this ends.
    let locked = sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK_KEY)
        .execute(&mut connection)
        .await;
    locked.map_err(|error| match StoreError::from(error) {
        StoreError::TimedOut(_) => MigrateError::Busy,
        other => MigrateError::Store(other),
    })?;
    sqlx::raw_sql(WAIT_FOR_TABLE).execute(&mut connection).await?;
    ensure_roles(&mut connection).await?;
    let from = applied(&mut connection).await?;
    migrator()
        .run_direct(None, &mut connection, false)
        .await
        .map_err(failure)?;
    let to = applied(&mut connection).await?;
    // A goodbye that fails changes nothing.
    let _ = connection.close().await;
    Ok(Migrated { from, to })
}

/// The schema version this program was built for.
pub(crate) fn version() -> i64 {
    migrator()
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    migrator.dangerous_set_table_name("pgmoor.schema_migrations");
    migrator.create_schema("pgmoor");
    // Ours is held already; a newer schema is `check_schema`'s business.
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

async fn applied(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let table: Option<String> = sqlx::query_scalar("SELECT to_regclass('pgmoor.schema_migrations')::text")
        .fetch_one(&mut *connection)
        .await?;
    if table.is_none() {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(version), 0) FROM pgmoor.schema_migrations WHERE success";
    sqlx::query_scalar(sql).fetch_one(connection).await
}

async fn ensure_roles(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT wanted FROM unnest($1::text[]) AS wanted \
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) ORDER BY wanted",
    )
    .bind(GROUP_ROLES)
    .fetch_all(&mut *connection)
    .await?;
    if missing.is_empty() {
        return Ok(());
    }
    match sqlx::raw_sql(CREATE_ROLES)
        .execute(connection)
        .await
        .map_err(StoreError::from)
    {
        Ok(_) => Ok(()),
        Err(StoreError::PrivilegeMissing(_)) => Err(MigrateError::RolesMissing { roles: missing }),
        Err(error) => Err(error.into()),
    }
}

fn failure(error: DriverError) -> MigrateError {
    match error {
        DriverError::Execute(cause) => MigrateError::Store(cause.into()),
        DriverError::ExecuteMigration(cause, version) => MigrateError::Failed {
            version,
            cause: cause.into(),
        },
        DriverError::VersionMismatch(version) => MigrateError::Altered { version },
        other => MigrateError::Record(other),
    }
}
