//! Asking after those whose streams are open.
//!
//! A stream goes on though its access token has expired, and its client need not come back for another one. So the provider is
//! asked here, as often as it would be with refreshes, and by one of the instances.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use domain::id::LoginId;
use futures::{StreamExt as _, stream};
use store::provider_sessions::{ProviderCheck, ProviderStanding};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::ProviderLogins;
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::verifier::TokenVerifier;

/// How often it is looked whose turn it is.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Questions to providers at a time.
const AT_ONCE: usize = 8;

/// Asks providers after the logins that have streams open here.
#[derive(Debug, Clone)]
pub struct StreamChecks {
    logins: Arc<ProviderLogins>,
    verifier: Arc<TokenVerifier>,
}

impl StreamChecks {
    /// For the streams that this verifier watches.
    #[must_use]
    pub fn new(logins: Arc<ProviderLogins>, verifier: Arc<TokenVerifier>) -> Self {
        Self { logins, verifier }
    }

    /// Asks until it is cancelled. What fails is tried again at the next look.
    pub async fn run(self, cancelled: CancellationToken) {
        let looks = async {
            let mut ticks = interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if let Err(error) = self.round().await {
                    // Why was logged where it failed.
                    tracing::debug!(%error, "those whose streams are open are not asked after");
                }
            }
        };
        let _: Option<()> = cancelled.run_until_cancelled(looks).await;
    }

    /// Asks those whose turn it is.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`].
    pub async fn round(&self) -> Result<(), AuthError> {
        let open = self.verifier.logins_with_streams();
        if open.is_empty() {
            return Ok(());
        }
        let silent = self.logins.ask_after(&open).await?;
        self.verifier.note_silent(&silent);
        Ok(())
    }
}

impl ProviderLogins {
    /// Asks the providers of these logins where it is time to, and ends those that are over. Returns those whose provider has been
    /// silent for longer than it may.
    async fn ask_after(self: &Arc<Self>, logins: &[LoginId]) -> Result<HashSet<LoginId>, AuthError> {
        let options = self.parts.options;
        let sessions = self.parts.store.provider_sessions();
        let standings = sessions
            .standings(
                logins,
                options.check_interval,
                options.unavailable_grace,
                options.reauthenticate_after,
            )
            .await;
        let standings = standings.map_err(|error| self.store_error("reading logins", &error))?;
        let (mut silent, mut due) = (HashSet::new(), Vec::new());
        for (login, standing) in standings {
            match standing {
                ProviderStanding::Good => {}
                ProviderStanding::Due => due.push(login),
                ProviderStanding::Silent => drop(silent.insert(login)),
                ProviderStanding::TooOld => self.end_too_old(login).await?,
            }
        }
        let answers: Vec<_> = stream::iter(due)
            .map(|login| async move { (login, self.ask_after_one(login).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (login, answer) in answers {
            match answer {
                // One that has ended takes its streams with it.
                Ok(()) | Err(AuthError::Login(LoginFailure::EndedByProvider)) => {}
                Err(AuthError::Login(LoginFailure::ProviderUnavailable)) => drop(silent.insert(login)),
                Err(error) => tracing::warn!(login.id = %login, %error, "a login is not asked after"),
            }
        }
        Ok(silent)
    }

    async fn ask_after_one(self: &Arc<Self>, login: LoginId) -> Result<(), AuthError> {
        let options = self.parts.options;
        let sessions = self.parts.store.provider_sessions();
        let check = sessions
            .take_check_of(login, options.check_interval, options.unavailable_grace)
            .await;
        match check.map_err(|error| self.store_error("reading a login", &error))? {
            // Another instance asks.
            ProviderCheck::NotDue | ProviderCheck::Silent => Ok(()),
            ProviderCheck::Due(session) => self.check_to_the_end(session, false).await,
            ProviderCheck::Overdue(session) => self.check_to_the_end(session, true).await,
        }
    }

    async fn end_too_old(&self, login: LoginId) -> Result<(), AuthError> {
        let sessions = self.parts.store.provider_sessions();
        let session = sessions.get(login).await;
        let session = session.map_err(|error| self.store_error("reading a login", &error))?;
        let ended = sessions.end(login).await;
        ended.map_err(|error| self.store_error("ending a login", &error))?;
        if let Some(session) = session {
            self.record_end(&session, &LoginFailure::ReauthenticationRequired);
        }
        Ok(())
    }
}
