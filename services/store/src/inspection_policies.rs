//! What the inspection of a server's role lets pass.

use domain::id::ServerId;

use crate::Store;
use crate::error::{StoreError, violated_constraint};

/// What an inspection lets pass. The default: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InspectionPolicy {
    /// Functions that are trusted not to write: signatures, or `extension:NAME`.
    pub trusted_functions: Vec<String>,
}

/// The policies. Made by [`Store::inspection_policies`].
#[derive(Debug, Clone, Copy)]
pub struct InspectionPolicies<'a> {
    store: &'a Store,
}

impl Store {
    /// What inspections of servers' roles let pass.
    #[must_use]
    pub fn inspection_policies(&self) -> InspectionPolicies<'_> {
        InspectionPolicies { store: self }
    }
}

impl InspectionPolicies<'_> {
    /// A server's policy.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get(&self, server: ServerId) -> Result<InspectionPolicy, StoreError> {
        let mut connection = self.store.acquire().await?;
        let sql = "SELECT trusted_functions FROM pgmoor.inspection_policies WHERE server_id = $1";
        let trusted_functions: Option<Vec<String>> = sqlx::query_scalar(sql)
            .bind(server.as_uuid())
            .fetch_optional(&mut *connection)
            .await?;
        Ok(InspectionPolicy {
            trusted_functions: trusted_functions.unwrap_or_default(),
        })
    }

    /// Sets a server's policy. False where there is no such server.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set(&self, server: ServerId, policy: &InspectionPolicy) -> Result<bool, StoreError> {
        let mut connection = self.store.acquire().await?;
        let set = sqlx::query(
            "INSERT INTO pgmoor.inspection_policies (server_id, trusted_functions) \
             VALUES ($1, $2) ON CONFLICT ON CONSTRAINT inspection_policies_pkey DO UPDATE SET \
             trusted_functions = excluded.trusted_functions, update_time = clock_timestamp()",
        )
        .bind(server.as_uuid())
        .bind(&policy.trusted_functions)
        .execute(&mut *connection)
        .await;
        match set {
            Ok(_) => Ok(true),
            Err(error) if violated_constraint(&error) == Some("inspection_policies_server_id") => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
