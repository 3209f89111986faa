//! How often a password may be tried.
//!
//! Three things are counted, in the same window: a name from an address, an address over all names, and a name from everywhere.
//! Each is counted only where the one before did not refuse. The last two are for guesses at many names, or from many addresses at
//! once, and would let somebody lock another one out; so they do not hold where somebody of that name has logged in before. Names
//! of users and names of nobody are counted alike.

use std::time::Duration;

use domain::source_address;
use store::login_throttles::{Attempt, ThrottlePolicy};
use store::{Store, StoreError};

/// The time that attempts are counted in.
pub(crate) const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Attempts under one name from one address.
const BY_NAME_AND_ADDRESS: ThrottlePolicy = policy(10);
/// Attempts from one address that came to nothing. A balancer or an office may have one address.
const BY_ADDRESS: ThrottlePolicy = policy(200);
/// Attempts under one name from everywhere.
const BY_NAME: ThrottlePolicy = policy(100);
/// How long an address is known that somebody logged in from.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

const fn policy(limit: u32) -> ThrottlePolicy {
    ThrottlePolicy {
        limit,
        window: WINDOW,
    }
}

/// An attempt that is counted.
#[derive(Debug)]
pub(crate) struct PasswordAttempt {
    name: String,
    block: Option<String>,
}

impl PasswordAttempt {
    /// An attempt under a name, as names are compared, from an address if that is known.
    pub(crate) fn new(name: &str, address: Option<&str>) -> Self {
        Self {
            name: name.to_owned(),
            block: address.map(source_address::block),
        }
    }

    fn by_name_and_address(&self) -> String {
        let block = self.block.as_deref().unwrap_or("unknown");
        format!("login:{block} {}", self.name)
    }

    fn by_name(&self) -> String {
        format!("login-name:{}", self.name)
    }

    fn by_address(&self) -> Option<String> {
        self.block.as_ref().map(|block| format!("login-address:{block}"))
    }

    /// Counts it, before the password is looked at, and says whether it is allowed.
    pub(crate) async fn count(&self, store: &Store) -> Result<Attempt, StoreError> {
        let throttles = store.login_throttles();
        let attempt = throttles
            .attempt(&self.by_name_and_address(), BY_NAME_AND_ADDRESS)
            .await?;
        if attempt != Attempt::Allowed {
            // Somebody who goes on with a wrong password keeps nobody else at the address out.
            return Ok(attempt);
        }
        let mut is_home = false;
        if let Some(key) = self.by_address() {
            let attempt = throttles.attempt(&key, BY_ADDRESS).await?;
            if attempt != Attempt::Allowed {
                is_home = self.comes_from_home(store).await?;
                if !is_home {
                    return Ok(attempt);
                }
            }
        }
        let attempt = throttles.attempt(&self.by_name(), BY_NAME).await?;
        if attempt != Attempt::Allowed && !is_home && !self.comes_from_home(store).await? {
            return Ok(attempt);
        }
        Ok(Attempt::Allowed)
    }

    /// Forgets what was counted under the name, after an attempt that succeeded. Others from the address stay counted: who has an
    /// account does not guess at others' for ever.
    pub(crate) async fn succeeded(&self, store: &Store) -> Result<(), StoreError> {
        let throttles = store.login_throttles();
        throttles.clear(&self.by_name_and_address()).await?;
        throttles.clear(&self.by_name()).await?;
        if let Some(key) = self.by_address() {
            throttles.take_back(&key).await?;
        }
        Ok(())
    }

    /// Whether somebody of this name has logged in from there before.
    async fn comes_from_home(&self, store: &Store) -> Result<bool, StoreError> {
        let Some(block) = &self.block else {
            return Ok(false);
        };
        let is_same = |address: &str| source_address::block(address) == *block;
        store.logins().knows_address(&self.name, is_same, KNOWN_FOR).await
    }
}
