//! Where a session that shares backends finds them.

use std::sync::Arc;

use domain::access::Access;
use parking_lot::Mutex;

use crate::inspection::Known;
use crate::pools::Pool;

/// A pool, and what is known of the role that its backends log in as. A session that nothing holds on a backend moves to
/// another one when it may go farther or less far than before, or when its user has another credential by now.
#[derive(Debug, Clone)]
pub(crate) struct Home(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    access: Access,
    role: Option<Arc<Known>>,
}

impl Home {
    pub(crate) fn new(pool: Arc<Pool>, access: Access, role: Option<Arc<Known>>) -> Self {
        Self(Arc::new(Mutex::new(Inner { pool, access, role })))
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.0.lock().pool)
    }

    /// How far the session could go when this was chosen.
    pub(crate) fn access(&self) -> Access {
        self.0.lock().access
    }

    /// What is known of the role by which the session reads, where it only reads.
    pub(crate) fn role(&self) -> Option<Arc<Known>> {
        self.0.lock().role.clone()
    }

    /// Without a `role` the one known before stays, for when the session only reads again.
    pub(crate) fn move_to(&self, pool: Arc<Pool>, access: Access, role: Option<Arc<Known>>) {
        let mut inner = self.0.lock();
        let role = role.or_else(|| inner.role.take());
        *inner = Inner { pool, access, role };
    }
}
