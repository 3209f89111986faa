//! Which logins have streams open in this process: a stream outlives the access token it was opened with, so that its login may be
//! asked after by nobody but us.

use std::collections::HashMap;
use std::sync::Arc;

use domain::id::LoginId;
use parking_lot::Mutex;

/// The open streams, by login. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenStreams(Arc<Mutex<HashMap<LoginId, Open>>>);

#[derive(Debug, Default)]
struct Open {
    streams: usize,
    /// Its provider has said nothing for longer than it may.
    silent: bool,
}

/// A stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: OpenStreams,
    login: LoginId,
}

impl OpenStreams {
    pub(crate) fn enter(&self, login: LoginId) -> OpenStream {
        self.0.lock().entry(login).or_default().streams += 1;
        OpenStream {
            streams: self.clone(),
            login,
        }
    }

    pub(crate) fn logins(&self) -> Vec<LoginId> {
        self.0.lock().keys().copied().collect()
    }

    /// Whether these logins' providers are silent. True where one came to be.
    pub(crate) fn note_silent(&self, logins: &HashMap<LoginId, bool>) -> bool {
        let mut streams = self.0.lock();
        let mut any = false;
        for (login, silent) in logins {
            if let Some(open) = streams.get_mut(login) {
                any |= *silent && !open.silent;
                open.silent = *silent;
            }
        }
        any
    }

    pub(crate) fn is_silent(&self, login: LoginId) -> bool {
        self.0.lock().get(&login).is_some_and(|open| open.silent)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.streams.0.lock();
        if let Some(open) = streams.get_mut(&self.login) {
            open.streams = open.streams.saturating_sub(1);
            if open.streams == 0 {
                streams.remove(&self.login);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::random::SystemRandom;

    use super::*;

    #[test]
    fn login_is_asked_after_while_one_of_its_streams_is_open() {
        let (streams, login) = (OpenStreams::default(), LoginId::generate(&SystemRandom));
        let (one, two) = (streams.enter(login), streams.enter(login));
        drop(one);
        assert_eq!(streams.logins(), [login]);
        let silent = HashMap::from([(login, true)]);
        assert!(streams.note_silent(&silent), "it is news");
        assert!(!streams.note_silent(&silent), "it is none");
        let other = HashMap::from([(LoginId::generate(&SystemRandom), true)]);
        assert!(!streams.note_silent(&other), "it has no streams");
        assert!(streams.is_silent(login));
        assert!(!streams.note_silent(&HashMap::from([(login, false)])));
        assert!(!streams.is_silent(login), "the provider answers again");
        drop(two);
        assert!(streams.logins().is_empty());
    }
}
