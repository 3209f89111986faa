//! What this process knows of users, tokens and what was revoked. In memory only; who reads the config
//! database is above.
//!
//! Invariant: what is known to be revoked wins over everything else that is known, in whatever order it was
//! learnt. So a record that was read before a revocation and arrives after it does no harm.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::access::{Caller, CredentialKind, PermissionSet};
use domain::id::{ApiTokenId, LoginId, UserId};
use parking_lot::Mutex;
use store::logins::TokenHash;
use store::users::User;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::access_token::AccessToken;
use crate::error::AuthError;
use crate::recent::Recent;
use crate::signing_key::KeyId;

/// How long a revocation is kept in mind: longer than any access token lives, and any read of the database
/// takes.
pub(crate) const MEMORY: Duration = Duration::from_secs(2 * 60 * 60);
/// How long what was read of a user counts without asking again. Revocations come on their own; this is for
/// changes.
pub(crate) const FRESH: Duration = Duration::from_secs(3);
/// From this age on the background task reads users anew that are in use, so that calls need not.
const AGEING: Duration = Duration::from_millis(1500);
/// How long a refused API token is refused without asking again. Nothing makes it good again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// A user as last read, or as an access token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserState {
    pub(crate) user: UserId,
    pub(crate) username: String,
    pub(crate) display_name: String,
    pub(crate) administrator: bool,
    pub(crate) disabled: bool,
    /// Until when their API tokens work, for want of a provider's word.
    pub(crate) vouch_expires: Option<OffsetDateTime>,
    /// What roles let them do that are bound to them or to their groups everywhere.
    pub(crate) everywhere: PermissionSet,
}

impl UserState {
    /// A user as read, with what roles let them do everywhere.
    pub(crate) fn of(user: User, everywhere: PermissionSet) -> Self {
        Self {
            user: user.id,
            username: user.username.as_str().to_owned(),
            display_name: user.display_name.as_str().to_owned(),
            administrator: user.administrator,
            disabled: user.disabled,
            vouch_expires: user.vouch_expire_time,
            everywhere,
        }
    }
}

/// An API token that was good when it was read.
#[derive(Debug)]
pub(crate) struct ApiTokenState {
    pub(crate) id: ApiTokenId,
    pub(crate) user: UserId,
    pub(crate) created: OffsetDateTime,
    pub(crate) expires: Option<OffsetDateTime>,
    /// Whether it was used since the database was told so.
    used: AtomicBool,
}

impl ApiTokenState {
    /// A token that is being used.
    pub(crate) const fn new(
        id: ApiTokenId,
        user: UserId,
        created: OffsetDateTime,
        expires: Option<OffsetDateTime>,
    ) -> Self {
        Self {
            id,
            user,
            created,
            expires,
            used: AtomicBool::new(true),
        }
    }
}

/// Something that was revoked: all of it, or what a user was given up to then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revoked {
    User(UserId, OffsetDateTime),
    Login(LoginId),
    ApiToken(ApiTokenId),
}

/// What is known of the user behind a credential.
#[derive(Debug)]
pub(crate) enum Known {
    /// As of at most [`FRESH`] ago.
    Fresh(Arc<UserState>),
    /// As of longer ago.
    Stale(Arc<UserState>),
    /// Nothing.
    Unknown,
}

/// What is known of an API token.
#[derive(Debug)]
pub(crate) enum KnownApiToken {
    /// It was good when it was read.
    Good(Arc<ApiTokenState>),
    /// It is refused.
    Refused(AuthError),
    /// Nothing.
    Unknown,
}

struct UserEntry {
    state: Arc<UserState>,
    read_at: Instant,
    used: AtomicBool,
}

struct State {
    access_tokens: Recent<TokenHash, (KeyId, AccessToken)>,
    users: Recent<UserId, Arc<UserEntry>>,
    api_tokens: Recent<TokenHash, Arc<ApiTokenState>>,
    refused: Recent<TokenHash, (AuthError, Instant)>,
    void_users: Remembered<UserId, OffsetDateTime>,
    ended_logins: Remembered<LoginId, ()>,
    ended_api_tokens: Remembered<ApiTokenId, ()>,
}

/// Facts with the moment they were learnt.
#[derive(Debug)]
struct Remembered<K, V>(HashMap<K, (V, Instant)>);

impl<K: Eq + Hash, V: Copy> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).map(|(value, _)| *value)
    }

    fn forget(&mut self, now: Instant) {
        self.0
            .retain(|_, (_, learnt)| now.duration_since(*learnt) < MEMORY);
    }
}

/// What this process knows. Constant work under one lock; nothing waits while holding it.
pub(crate) struct Standing(Mutex<State>);

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing").finish_non_exhaustive()
    }
}

impl Standing {
    /// Keeps at most `capacity` tokens and users of each kind.
    pub(crate) fn new(capacity: usize) -> Self {
        Self(Mutex::new(State {
            access_tokens: Recent::new(capacity),
            users: Recent::new(capacity),
            api_tokens: Recent::new(capacity),
            refused: Recent::new(capacity),
            void_users: Remembered(HashMap::new()),
            ended_logins: Remembered(HashMap::new()),
            ended_api_tokens: Remembered(HashMap::new()),
        }))
    }

    /// What an access token says whose signature was checked before, and by which key it was signed.
    pub(crate) fn access_token(&self, hash: &TokenHash) -> Option<(KeyId, AccessToken)> {
        self.0.lock().access_tokens.get(hash)
    }

    /// Keeps an access token whose signature was checked.
    pub(crate) fn keep_access_token(&self, hash: TokenHash, key: KeyId, token: AccessToken) {
        self.0.lock().access_tokens.insert(hash, (key, token));
    }

    /// Forgets an access token that is good no more.
    pub(crate) fn forget_access_token(&self, hash: &TokenHash) {
        self.0.lock().access_tokens.remove(hash);
    }

    pub(crate) fn api_token(&self, hash: &TokenHash, now: Instant) -> KnownApiToken {
        let mut state = self.0.lock();
        if let Some(token) = state.api_tokens.get(hash) {
            token.used.store(true, Ordering::Relaxed);
            return KnownApiToken::Good(token);
        }
        match state.refused.get(hash) {
            Some((reason, since)) if now.duration_since(since) < REFUSED_FOR => {
                KnownApiToken::Refused(reason)
            }
            _ => KnownApiToken::Unknown,
        }
    }

    pub(crate) fn keep_api_token(&self, hash: TokenHash, token: Arc<ApiTokenState>) {
        self.0.lock().api_tokens.insert(hash, token);
    }

    pub(crate) fn keep_refused_api_token(&self, hash: TokenHash, reason: AuthError, now: Instant) {
        self.0.lock().refused.insert(hash, (reason, now));
    }

    /// The API tokens that were used since this was last asked.
    pub(crate) fn take_used_api_tokens(&self) -> Vec<ApiTokenId> {
        let mut used = Vec::new();
        self.0.lock().api_tokens.for_each(|_, token| {
            if token.used.swap(false, Ordering::Relaxed) {
                used.push(token.id);
            }
        });
        used
    }

    /// What is known of a user, who counts as in use from now on.
    pub(crate) fn user(&self, id: UserId, now: Instant) -> Known {
        let Some(entry) = self.0.lock().users.get(&id) else {
            return Known::Unknown;
        };
        entry.used.store(true, Ordering::Relaxed);
        let state = Arc::clone(&entry.state);
        if now.duration_since(entry.read_at) < FRESH {
            Known::Fresh(state)
        } else {
            Known::Stale(state)
        }
    }

    /// What was read of a user at that moment or later.
    pub(crate) fn user_since(&self, id: UserId, since: Instant) -> Option<Arc<UserState>> {
        let entry = self.0.lock().users.get(&id)?;
        (entry.read_at >= since).then(|| Arc::clone(&entry.state))
    }

    /// Keeps what a read that began at `read_at` found, unless a later one was faster.
    pub(crate) fn keep_user(&self, user: Arc<UserState>, read_at: Instant) {
        let mut state = self.0.lock();
        let known = state.users.get(&user.user);
        if known.as_ref().is_some_and(|known| known.read_at > read_at) {
            return;
        }
        let entry = UserEntry {
            read_at,
            used: AtomicBool::new(known.is_none()),
            state: user,
        };
        state.users.insert(entry.state.user, Arc::new(entry));
    }

    /// The users who were in use since they were last read, and whose state is getting old.
    pub(crate) fn ageing_users(&self, now: Instant) -> Vec<UserId> {
        let mut ageing = Vec::new();
        self.0.lock().users.for_each(|user, entry| {
            if entry.used.load(Ordering::Relaxed) && now.duration_since(entry.read_at) >= AGEING {
                ageing.push(*user);
            }
        });
        ageing
    }

    /// Takes note of what was revoked.
    pub(crate) fn revoke(&self, revoked: &[Revoked], now: Instant) {
        let mut state = self.0.lock();
        for revoked in revoked {
            match *revoked {
                Revoked::User(id, until) => {
                    let until = state.void_users.get(&id).map_or(until, |known| known.max(until));
                    state.void_users.0.insert(id, (until, now));
                    state.users.remove(&id);
                }
                Revoked::Login(id) => {
                    state.ended_logins.0.insert(id, ((), now));
                }
                Revoked::ApiToken(id) => {
                    state.ended_api_tokens.0.insert(id, ((), now));
                }
            }
        }
        state.void_users.forget(now);
        state.ended_logins.forget(now);
        state.ended_api_tokens.forget(now);
    }

    /// Forgets what may have been revoked while nobody was told. Access tokens need not be: they are
    /// short-lived.
    pub(crate) fn forget_api_tokens(&self) {
        self.0.lock().api_tokens.retain(|_, _| false);
    }

    /// Whether an access token was revoked, as far as is known.
    pub(crate) fn check_access_token(&self, token: &AccessToken) -> Result<(), AuthError> {
        let state = self.0.lock();
        let void = state
            .void_users
            .get(&token.user)
            .is_some_and(|until| token.issued <= until);
        if void || state.ended_logins.get(&token.login).is_some() {
            Err(AuthError::TokenRevoked)
        } else {
            Ok(())
        }
    }

    /// Whether an API token was revoked, as far as is known.
    pub(crate) fn check_api_token(&self, token: &ApiTokenState) -> Result<(), AuthError> {
        let state = self.0.lock();
        let void = state
            .void_users
            .get(&token.user)
            .is_some_and(|until| token.created <= until);
        if void || state.ended_api_tokens.get(&token.id).is_some() {
            return Err(AuthError::TokenRevoked);
        }
        Ok(())
    }

    /// Whether somebody who was let in must leave, as far as is known.
    pub(crate) fn check_caller(&self, caller: &Caller) -> Result<(), AuthError> {
        let state = self.0.lock();
        let ended = match caller.credential {
            CredentialKind::AccessToken { login } => state.ended_logins.get(&login).is_some(),
            CredentialKind::ApiToken { id } => state.ended_api_tokens.get(&id).is_some(),
        };
        let void = state
            .void_users
            .get(&caller.user)
            .is_some_and(|until| caller.issued <= until);
        if ended || void {
            Err(AuthError::TokenRevoked)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SeededRandom;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-02 12:00:00 UTC);
    const MINUTE: time::Duration = time::Duration::MINUTE;

    struct Ids {
        user: UserId,
        login: LoginId,
        token: ApiTokenId,
    }

    fn ids() -> Ids {
        let random = SeededRandom::new(4);
        Ids {
            user: UserId::generate(&random),
            login: LoginId::generate(&random),
            token: ApiTokenId::generate(&random),
        }
    }

    fn user(ids: &Ids, administrator: bool) -> Arc<UserState> {
        let (username, display_name) = ("alice".to_owned(), "Alice".to_owned());
        Arc::new(UserState {
            user: ids.user,
            username,
            display_name,
            administrator,
            disabled: false,
            vouch_expires: None,
            everywhere: PermissionSet::NONE,
        })
    }

    fn api_token(ids: &Ids) -> ApiTokenState {
        ApiTokenState::new(ids.token, ids.user, NOON, None)
    }

    fn access_token(ids: &Ids, issued: OffsetDateTime) -> AccessToken {
        AccessToken {
            user: ids.user,
            login: ids.login,
            issued,
            expires: issued + 10 * MINUTE,
            provider: None,
            stated: None,
        }
    }

    #[test]
    fn user_is_fresh_for_a_while_and_then_stale() {
        let (standing, ids, now) = (Standing::new(10), ids(), Instant::now());
        assert!(matches!(standing.user(ids.user, now), Known::Unknown));
        standing.keep_user(user(&ids, false), now);
        assert!(matches!(standing.user(ids.user, now), Known::Fresh(_)));
        assert!(matches!(standing.user(ids.user, now + FRESH), Known::Stale(_)));
    }

    #[test]
    fn slow_read_does_not_replace_a_later_one() {
        let (standing, ids, early) = (Standing::new(10), ids(), Instant::now());
        let late = early + Duration::from_millis(1);
        standing.keep_user(user(&ids, true), late);
        standing.keep_user(user(&ids, false), early);
        assert!(matches!(standing.user(ids.user, late), Known::Fresh(user) if user.administrator));
    }

    #[test]
    fn only_users_in_use_are_read_again_in_the_background() {
        let (standing, ids, start) = (Standing::new(10), ids(), Instant::now());
        standing.keep_user(user(&ids, false), start);
        let later = start + AGEING;
        assert_eq!(standing.ageing_users(later), [ids.user]);
        standing.keep_user(user(&ids, false), later);
        let much_later = later + AGEING;
        assert_eq!(standing.ageing_users(much_later), []);
        assert!(matches!(standing.user(ids.user, much_later), Known::Fresh(_)));
        assert_eq!(standing.ageing_users(much_later), [ids.user]);
    }

    #[test]
    fn use_of_an_api_token_is_told_once() {
        let (standing, ids) = (Standing::new(10), ids());
        standing.keep_api_token([1; 32], Arc::new(api_token(&ids)));
        assert_eq!(standing.take_used_api_tokens(), [ids.token]);
        assert_eq!(standing.take_used_api_tokens(), []);
        standing.api_token(&[1; 32], Instant::now());
        assert_eq!(standing.take_used_api_tokens(), [ids.token]);
    }

    #[test]
    fn revocation_of_a_user_voids_what_was_given_before_and_nothing_after() {
        let (standing, ids) = (Standing::new(10), ids());
        standing.revoke(&[Revoked::User(ids.user, NOON)], Instant::now());
        standing.revoke(&[Revoked::User(ids.user, NOON - MINUTE)], Instant::now());
        assert_eq!(
            standing.check_access_token(&access_token(&ids, NOON)),
            Err(AuthError::TokenRevoked)
        );
        assert_eq!(
            standing.check_access_token(&access_token(&ids, NOON + MINUTE)),
            Ok(())
        );
        assert_eq!(
            standing.check_api_token(&api_token(&ids)),
            Err(AuthError::TokenRevoked)
        );
    }

    #[test]
    fn record_that_arrives_after_its_revocation_is_still_revoked() {
        let (standing, ids) = (Standing::new(10), ids());
        standing.revoke(
            &[Revoked::ApiToken(ids.token), Revoked::Login(ids.login)],
            Instant::now(),
        );
        standing.keep_api_token([1; 32], Arc::new(api_token(&ids)));
        let KnownApiToken::Good(token) = standing.api_token(&[1; 32], Instant::now()) else {
            panic!("it was kept")
        };
        assert_eq!(standing.check_api_token(&token), Err(AuthError::TokenRevoked));
        assert_eq!(
            standing.check_access_token(&access_token(&ids, NOON)),
            Err(AuthError::TokenRevoked)
        );
    }

    #[test]
    fn revocations_are_forgotten_when_nothing_can_depend_on_them() {
        let (standing, ids, start) = (Standing::new(10), ids(), Instant::now());
        standing.revoke(&[Revoked::Login(ids.login)], start);
        standing.revoke(&[], start + MEMORY - Duration::from_secs(1));
        assert!(standing.check_access_token(&access_token(&ids, NOON)).is_err());
        standing.revoke(&[], start + MEMORY);
        assert_eq!(standing.check_access_token(&access_token(&ids, NOON)), Ok(()));
    }
}
