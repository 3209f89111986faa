//! What a session was opened with, and whether it still stands.

use std::sync::Arc;

use domain::access::{
    Access, Decision, Denial, Elevated, GrantLimits, Ownership, Permission, ServerFacts, decide,
};
use domain::id::ElevationId;
use domain::limits::Limits;
use domain::name::Identifier;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// A user's rights in one database of a server, as they were decided and as they are known now.
#[derive(Debug)]
pub(crate) struct Rights {
    database: Identifier,
    /// How far it may go for life. Never more than when it was opened.
    lasting: Access,
    /// It may write while its owner is elevated, and only read before and after.
    follows_elevations: bool,
    current: Mutex<Current>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Current {
    facts: Arc<ServerFacts>,
    limits: GrantLimits,
    /// How far it might go without elevations.
    unelevated: Access,
    /// The elevation that counts for it.
    elevated: Option<Elevated>,
    /// It writes by that.
    raised: bool,
}

/// Whether a session may go on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may.
    Stands,
    /// It may only read from now on.
    Falls,
    /// It may not.
    Over,
}

impl Rights {
    /// Decides whether the user may do this in the database, and how far: no farther than they wish.
    pub(crate) fn decide(
        facts: Arc<ServerFacts>,
        database: Identifier,
        permission: Permission,
        wish: Option<Access>,
    ) -> Result<Self, Denial> {
        let decision = decide(&facts, Some(&database), facts.read_time);
        decision.check(permission)?;
        Ok(Self {
            database,
            lasting: decision.access.limit(wish),
            follows_elevations: false,
            current: Mutex::new(Current {
                limits: decision.limits,
                unelevated: decision.unelevated,
                elevated: decision.elevated,
                raised: false,
                facts,
            }),
            ended: CancellationToken::new(),
        })
    }

    /// Rights of a session that only reads, but while its owner is elevated. Of one whose owner may write anyway, or that was
    /// asked to be read-only, nothing changes.
    pub(crate) fn follow_elevations(self, wish: Option<Access>) -> Self {
        let may_write = self.current.lock().unelevated == Access::ReadWrite;
        if may_write || wish == Some(Access::ReadOnly) {
            return self;
        }
        self.followed()
    }

    /// As [`Rights::follow_elevations`], of a session that was opened so.
    pub(crate) fn followed(mut self) -> Self {
        let current = self.current.get_mut();
        current.raised = current.elevated.is_some();
        self.lasting = Access::ReadOnly;
        self.follows_elevations = true;
        self
    }

    /// How far it may go.
    pub(crate) fn access(&self) -> Access {
        if self.follows_elevations && self.current.lock().raised {
            return Access::ReadWrite;
        }
        self.lasting
    }

    /// How far it may go whatever becomes of elevations.
    pub(crate) fn lasting(&self) -> Access {
        self.lasting
    }

    /// Whether it may write while its owner is elevated.
    pub(crate) fn follows_elevations(&self) -> bool {
        self.follows_elevations
    }

    /// The elevation by which it writes.
    pub(crate) fn elevated(&self) -> Option<Elevated> {
        let current = self.current.lock();
        let needs = match self.follows_elevations {
            true => current.raised,
            false => self.lasting == Access::ReadWrite && current.unelevated == Access::ReadOnly,
        };
        current.elevated.filter(|_| needs)
    }

    /// Its id.
    pub(crate) fn elevation(&self) -> Option<ElevationId> {
        self.elevated().map(|elevated| elevated.by)
    }

    /// Whether it writes by an elevation that it would lose.
    pub(crate) fn is_raised(&self) -> bool {
        self.follows_elevations && self.current.lock().raised
    }

    /// Whether an elevation lets it write now.
    pub(crate) fn may_be_raised(&self, now: OffsetDateTime) -> bool {
        let lasts = |elevated: &Elevated| elevated.until > now;
        self.follows_elevations && self.current.lock().elevated.as_ref().is_some_and(lasts)
    }

    /// Has it write, or only read again. It must hold no backend, or one that is given up at once.
    pub(crate) fn set_raised(&self, raised: bool) {
        self.current.lock().raised = raised && self.follows_elevations;
    }

    /// The limits of an instance as they hold here.
    pub(crate) fn narrow(&self, limits: Limits) -> Limits {
        self.limits().narrow(limits)
    }

    /// What is narrowed.
    pub(crate) fn limits(&self) -> GrantLimits {
        self.current.lock().limits
    }

    /// The policy revision of what is known.
    pub(crate) fn revision(&self) -> i64 {
        self.current.lock().facts.revision
    }

    /// Takes note of how things are now.
    pub(crate) fn renew(&self, facts: &Arc<ServerFacts>) {
        let mut current = self.current.lock();
        if facts.revision >= current.facts.revision {
            current.facts = Arc::clone(facts);
        }
    }

    /// By what the user owned the server, as far as is known.
    pub(crate) fn ownership(&self) -> Ownership {
        self.current.lock().facts.ownership
    }

    /// Keeps what is known, as of that revision: the server is gone, and the session is its owner's.
    pub(crate) fn keep(&self, revision: i64) {
        let mut current = self.current.lock();
        let mut facts = ServerFacts::clone(&current.facts);
        facts.revision = revision;
        current.facts = Arc::new(facts);
    }

    /// Whether the session may go on as it is, and how far its limits go then.
    pub(crate) fn stand(&self, now: OffsetDateTime) -> Standing {
        let mut current = self.current.lock();
        let decision = decide(&current.facts, Some(&self.database), now);
        if decision.check(Permission::SessionsUse).is_err() {
            return Standing::Over;
        }
        let Decision {
            access,
            limits,
            unelevated,
            elevated,
            ..
        } = decision;
        current.limits = limits;
        current.unelevated = unelevated;
        current.elevated = elevated;
        match access >= self.lasting {
            true if current.raised && elevated.is_none() => Standing::Falls,
            true => Standing::Stands,
            false => Standing::Over,
        }
    }

    /// Ends what goes by them.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Waits until they are ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}
