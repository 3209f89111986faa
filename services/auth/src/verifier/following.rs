//! What a verifier does between calls, driven by the [`crate::RevocationFeed`].
//!
//! Invariant: a revision counts as heard only after what it says was taken note of.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::id::UserId;
use store::StoreError;
use store::revocations::{Revocation, Subject};
use tokio::time::Instant;

use super::TokenVerifier;
use crate::access_token::SKEW;
use crate::standing::{Revoked, UserState};

impl TokenVerifier {
    /// Asks what was revoked since it was last asked, and whether the rules changed.
    pub(crate) async fn hear(&self) -> Result<(), StoreError> {
        let heard = self.hear_revocations().await;
        let was_deaf = self.deaf.swap(heard.is_err(), Ordering::Relaxed);
        heard?;
        *self.heard_at.lock() = Instant::now();
        if was_deaf {
            // The database may have forgotten by now what was revoked meanwhile. A token's own row says it
            // for good.
            self.standing.forget_api_tokens();
        }
        Ok(())
    }

    /// When the config database answered a question of the [`crate::RevocationFeed`] last.
    #[must_use]
    pub fn heard_at(&self) -> Instant {
        *self.heard_at.lock()
    }

    /// Reads the users anew who are in use, with their roles, in two queries, so that calls need not wait for it.
    pub(crate) async fn refresh_users(&self) -> Result<(), StoreError> {
        let read_at = Instant::now();
        let ageing = self.standing.ageing_users(read_at);
        if ageing.is_empty() {
            return Ok(());
        }
        let mut gone: HashSet<UserId> = ageing.iter().copied().collect();
        let everywhere = self.store.access().everywhere(&ageing).await?;
        for user in self.store.users().current(&ageing).await? {
            gone.remove(&user.id);
            let everywhere = everywhere.get(&user.id).copied().unwrap_or_default();
            let state = UserState::of(user, everywhere);
            self.standing.keep_user(Arc::new(state), read_at);
        }
        for user in gone {
            self.note_gone(user);
        }
        Ok(())
    }

    /// Takes note of a user who is not in the database any more: whatever they were given is void, also where
    /// it says who they were.
    pub(super) fn note_gone(&self, user: UserId) {
        // The database's clock may be ahead of this one.
        let gone = Revoked::User(user, self.clock.now() + SKEW);
        self.standing.revoke(&[gone], Instant::now());
    }

    async fn hear_revocations(&self) -> Result<(), StoreError> {
        let mut heard = self.heard.lock().await;
        loop {
            let news = self.store.revocations_since(*heard).await?;
            let revoked: Vec<_> = news.revocations.iter().map(revoked).collect();
            self.standing.revoke(&revoked, Instant::now());
            *heard = news.revision;
            self.note_policy(news.policy);
            if !revoked.is_empty() {
                self.changed.send_replace(());
            }
            if !news.more {
                return Ok(());
            }
        }
    }

    /// What was not heard within the deadline counts as not answered.
    pub(crate) fn set_deaf(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Reads the keys anew, to hear of those that were retired.
    pub(crate) async fn refresh_keys(&self) -> Result<(), StoreError> {
        self.keys.refresh().await
    }

    /// Writes down which API tokens were used, if that is this process's task.
    pub(crate) async fn note_use(&self) -> Result<(), StoreError> {
        if !self.options.notes_use {
            return Ok(());
        }
        for token in self.standing.take_used_api_tokens() {
            self.store.api_tokens().touch(token).await?;
        }
        Ok(())
    }
}

fn revoked(revocation: &Revocation) -> Revoked {
    match revocation.subject {
        Subject::User(id) => Revoked::User(id, revocation.revoke_time),
        Subject::Login(id) => Revoked::Login(id),
        Subject::ApiToken(id) => Revoked::ApiToken(id),
    }
}
