//! What the rules were last heard to be, and who a caller is by them: for what was let in and goes on.

use std::sync::Arc;

use domain::access::Caller;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{TokenVerifier, caller};
use crate::error::AuthError;

/// The revision of roles, bindings, groups, grants, policies, owners and administrators that was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardPolicy {
    /// The revision.
    pub revision: i64,
    /// When it was first heard of: what is read from then on is at least as new.
    pub since: Instant,
}

impl HeardPolicy {
    /// Before anything was heard.
    pub(super) fn none() -> Self {
        Self {
            revision: 0,
            since: Instant::now(),
        }
    }
}

impl TokenVerifier {
    /// Changes with the rules, as they are heard of.
    #[must_use]
    pub fn policy(&self) -> watch::Receiver<HeardPolicy> {
        self.policy.subscribe()
    }

    /// The caller as the config database has them at that moment or later.
    ///
    /// # Errors
    /// [`AuthError::TokenRevoked`] where they must leave; [`AuthError::Unavailable`] where the config database is away.
    pub async fn current(&self, known: &Caller, since: Instant) -> Result<Arc<Caller>, AuthError> {
        let user = match self.standing.user_since(known.user, since) {
            Some(user) => user,
            None => self.read_user(known.user).await?,
        };
        if user.disabled {
            return Err(AuthError::TokenRevoked);
        }
        self.admit(caller(&user, known.credential, known.issued, known.expires))
    }

    /// Takes note of the rules' revision.
    pub(super) fn note_policy(&self, revision: i64) {
        let heard = HeardPolicy {
            revision,
            since: Instant::now(),
        };
        self.policy.send_if_modified(|known| {
            let is_new = known.revision != revision;
            if is_new {
                *known = heard;
            }
            is_new
        });
    }
}
