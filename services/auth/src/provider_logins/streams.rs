//! Asking after those whose streams are open.
//!
//! A stream goes on though its access token has expired, and its client need not come back for another one. So the provider is
//! asked here, as often as it would be with refreshes, and by one of the instances. Each provider is asked on its own: one that does
//! not answer keeps no other one's logins waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::LoginId;
use futures::{StreamExt as _, stream};
use store::provider_sessions::{ProviderCheck, ProviderStanding, StandingLogin};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::ProviderLogins;
use crate::error::AuthError;
use crate::login_failure::LoginFailure;
use crate::verifier::TokenVerifier;

/// How often it is looked whose turn it is.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a look may take, and how long the answer about one login is waited for. Longer than a provider may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Questions to one provider at a time.
const AT_ONCE: usize = 8;

/// Logins that it is time to ask after, by their provider.
type Due = HashMap<String, Vec<LoginId>>;

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
            let (mut tasks, mut asked) = (JoinSet::new(), HashMap::new());
            let mut ticks = interval(LOOK_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match timeout(DEADLINE, self.look()).await {
                    Ok(Ok(due)) => self.ask(due, &mut tasks, &mut asked),
                    // Why was logged where it failed.
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "those whose streams are open are not asked after");
                    }
                    Err(_) => tracing::warn!("looking who is to be asked after took too long"),
                }
            }
        };
        let _: Option<()> = cancelled.run_until_cancelled(looks).await;
    }

    /// Whose turn it is. Those that are over are ended, and those whose provider has been silent for longer than it may are noted.
    async fn look(&self) -> Result<Due, AuthError> {
        let open = self.verifier.logins_with_streams();
        let mut due = Due::new();
        if open.is_empty() {
            return Ok(due);
        }
        let mut silent = HashMap::new();
        let mut old = Vec::new();
        for login in self.logins.standings(&open).await? {
            match login.standing {
                ProviderStanding::Good => drop(silent.insert(login.login_id, false)),
                ProviderStanding::Silent => drop(silent.insert(login.login_id, true)),
                ProviderStanding::Due => due.entry(login.provider).or_default().push(login.login_id),
                ProviderStanding::TooOld => old.push(login.login_id),
            }
        }
        self.verifier.note_silent(&silent);
        for login in old {
            self.logins.end_too_old(login).await?;
        }
        Ok(due)
    }

    /// Begins to ask the providers that are not being asked still.
    fn ask(&self, due: Due, tasks: &mut JoinSet<()>, asked: &mut HashMap<String, AbortHandle>) {
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "asking a provider after those whose streams are open failed");
            }
        }
        asked.retain(|_, task| !task.is_finished());
        for (provider, logins) in due {
            asked
                .entry(provider)
                .or_insert_with(|| tasks.spawn(self.clone().ask_provider(logins)));
        }
    }

    /// Asks one provider after these logins.
    async fn ask_provider(self, logins: Vec<LoginId>) {
        let checks = &self;
        stream::iter(logins)
            .for_each_concurrent(AT_ONCE, |login| checks.ask_after(login))
            .await;
    }

    async fn ask_after(&self, login: LoginId) {
        // What is asked goes on to its end though nobody waits for it.
        let silent = match timeout(DEADLINE, self.logins.ask_after(login)).await {
            // One that has ended takes its streams with it.
            Ok(Ok(()) | Err(AuthError::Login(LoginFailure::EndedByProvider))) => false,
            Ok(Err(AuthError::Login(LoginFailure::ProviderUnavailable))) => true,
            Ok(Err(error)) => {
                tracing::warn!(login.id = %login, %error, "a login is not asked after");
                return;
            }
            Err(_) => {
                tracing::warn!(login.id = %login, "asking after a login took too long");
                return;
            }
        };
        self.verifier.note_silent(&HashMap::from([(login, silent)]));
    }
}

impl ProviderLogins {
    async fn standings(&self, logins: &[LoginId]) -> Result<Vec<StandingLogin>, AuthError> {
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
        standings.map_err(|error| self.store_error("reading logins", &error))
    }

    /// Asks the provider of a login where it is time to, and ends the login where it is over.
    async fn ask_after(self: &Arc<Self>, login: LoginId) -> Result<(), AuthError> {
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
        let ended = ended.map_err(|error| self.store_error("ending a login", &error))?;
        // Another instance may have ended it, and recorded that.
        if let Some(session) = session.filter(|_| ended) {
            self.record_end(&session, &LoginFailure::ReauthenticationRequired);
        }
        Ok(())
    }
}
