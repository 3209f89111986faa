//! Tells a layer around authentication who called, also where the call is refused.

use std::sync::{Arc, OnceLock};

use domain::access::Caller;

/// Whom authentication recognised. Put it into a request's extensions, keep a clone, and look at it afterwards.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<OnceLock<Arc<Caller>>>);

impl Seen {
    /// The caller, if somebody was recognised.
    #[must_use]
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.0.get()
    }

    /// Somebody was recognised. The first one counts.
    pub fn set(&self, caller: &Arc<Caller>) {
        // A request is authenticated once.
        let _ = self.0.set(Arc::clone(caller));
    }
}
