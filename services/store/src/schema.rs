//! Whether this program and the database's schema understand each other.
//!
//! The rule: a program refuses a schema that lacks a migration the program was built with, and one that
//! declares itself incompatible with it. A newer schema that does not is fine, so that migrations can run
//! before programs are replaced.

use thiserror::Error;

use crate::error::{StoreError, store_variant};
use crate::{Store, migrate};

/// Why the schema cannot be used.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// The database has no schema of pgmoor's.
    #[error("the config database is not migrated; run: pgmoor migrate")]
    NotMigrated,
    /// Migrations are pending.
    #[error("the config database has schema version {found}, and {wanted} is needed; run: pgmoor migrate")]
    SchemaTooOld {
        /// The schema's version.
        found: i64,
        /// The version this program needs.
        wanted: i64,
    },
    /// The schema is too new for this program.
    #[error(
        "the config database has schema version {found}, which needs programs of schema version \
         {min_compatible} or later; this one has {supported}"
    )]
    Incompatible {
        /// The schema's version.
        found: i64,
        /// The least version of a program that may use it.
        min_compatible: i64,
        /// The version of this program.
        supported: i64,
    },
    /// The question could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

store_variant!(SchemaError);

impl Store {
    /// Checks that this program may use the schema.
    ///
    /// # Errors
    /// When it may not, or the database cannot be asked.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let mut connection = self.acquire().await?;
        let exists: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'pgmoor' AND c.relname = 'schema_compatibility')",
        )
        .fetch_one(&mut *connection)
        .await?;
        if !exists {
            return Err(SchemaError::NotMigrated);
        }
        let (found, min_compatible): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT max(version), max(min_compatible) FROM pgmoor.schema_compatibility")
                .fetch_one(&mut *connection)
                .await?;
        let (Some(found), Some(min_compatible)) = (found, min_compatible) else {
            return Err(SchemaError::NotMigrated);
        };
        let supported = migrate::version();
        if min_compatible > supported {
            return Err(SchemaError::Incompatible {
                found,
                min_compatible,
                supported,
            });
        }
        if found < supported {
            return Err(SchemaError::SchemaTooOld {
                found,
                wanted: supported,
            });
        }
        Ok(())
    }
}
