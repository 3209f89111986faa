//! The secrets of a world, so that a test can look for them where none may be.

use std::sync::{Mutex, PoisonError};

/// Every password and token that was handed out, with what it is.
#[derive(Default)]
pub struct Secrets(Mutex<Vec<(String, String)>>);

impl Secrets {
    /// Remembers a secret. `what` names it in a failure's text, which never shows the secret itself.
    pub fn remember(&self, what: &str, secret: &str) {
        assert!(secret.len() >= 8, "{what} is too short to be looked for");
        let mut secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !secrets.iter().any(|(_, other)| other == secret) {
            secrets.push((what.to_owned(), secret.to_owned()));
        }
    }

    /// What each secret found in `text` is.
    #[must_use]
    pub fn found_in(&self, text: &str) -> Vec<String> {
        let secrets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = secrets.iter().filter(|(_, secret)| text.contains(secret));
        found.map(|(what, _)| what.clone()).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("count", &self.count()).finish()
    }
}
