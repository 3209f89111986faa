//! Why a caller is not let in.

use std::error::Error;
use std::time::Duration;

use domain::access::Permission;
use domain::random::{self, Random};
use store::StoreError;
use thiserror::Error;
use uuid::Uuid;

use crate::login_failure::LoginFailure;

/// Why a caller is not let in. Each variant is one reason of `pgmoor.errors.v1`; [`crate::status::status`]
/// writes it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    /// The call carries no credentials.
    #[error("the call carries no bearer token")]
    CredentialsMissing,
    /// The token is not one of ours, or was tampered with.
    #[error("the token is not valid")]
    TokenInvalid,
    /// The token has expired.
    #[error("the token has expired")]
    TokenExpired,
    /// The token was revoked, its login ended, or its user is disabled.
    #[error("the token was revoked")]
    TokenRevoked,
    /// No provider vouches for the user of the API token any more.
    #[error("no provider vouches for the user of the token any more")]
    NotVouched,
    /// User name or password is wrong. Which of them is never said.
    #[error("user name or password is wrong")]
    LoginFailed,
    /// Too many failed logins under this name.
    #[error("too many failed logins")]
    LoginThrottled {
        /// When a login under this name is looked at again.
        retry_after: Duration,
    },
    /// A login with a provider comes to nothing.
    #[error("{0}")]
    Login(LoginFailure),
    /// The caller is known and lacks a permission.
    #[error("the caller lacks the permission {permission}")]
    PermissionMissing {
        /// The permission.
        permission: Permission,
    },
    /// The config database is needed for the answer and cannot be reached, or too many wait for it.
    #[error("who the caller is cannot be checked now")]
    Unavailable,
    /// A fault of pgmoor. The log has the rest under this id.
    #[error("checking the caller failed (error {error_id})")]
    Internal {
        /// What the log is searched for.
        error_id: Uuid,
    },
}

impl From<LoginFailure> for AuthError {
    fn from(failure: LoginFailure) -> Self {
        Self::Login(failure)
    }
}

/// Longest chain of causes that is logged.
const MAX_CAUSES: usize = 8;

impl AuthError {
    /// A fault of pgmoor: logged here, once, and shown to the caller as an id.
    pub(crate) fn fault(random: &dyn Random, doing: &'static str, error: &dyn Error) -> Self {
        let error_id = uuid::Builder::from_random_bytes(random::bytes(random)).into_uuid();
        let mut causes = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause.filter(|_| causes.len() < MAX_CAUSES) {
            causes.push(error.to_string());
            cause = error.source();
        }
        tracing::error!(error.id = %error_id, error.causes = ?causes, "{doing} failed");
        Self::Internal { error_id }
    }

    /// What a failure of the config database means for the caller.
    pub(crate) fn of_store(random: &dyn Random, doing: &'static str, error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Aborted(_) | StoreError::TimedOut(_) => {
                tracing::warn!(%error, "{doing} needs the config database");
                Self::Unavailable
            }
            StoreError::PrivilegeMissing(_)
            | StoreError::Inconsistent(_)
            | StoreError::InvalidCursor
            | StoreError::Unexpected(_) => Self::fault(random, doing, error),
        }
    }
}
