//! What a session was opened with, and whether it still stands.

use std::sync::Arc;

use domain::access::{Access, Decision, Denial, GrantLimits, Ownership, Permission, ServerFacts, decide};
use domain::limits::Limits;
use domain::name::Identifier;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// A user's rights in one database of a server, as they were decided and as they are known now.
#[derive(Debug)]
pub(crate) struct Rights {
    database: Identifier,
    /// How far it may go. Never more than when it was opened.
    access: Access,
    current: Mutex<Current>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct Current {
    facts: Arc<ServerFacts>,
    limits: GrantLimits,
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
            access: decision.access.limit(wish),
            current: Mutex::new(Current {
                limits: decision.limits,
                facts,
            }),
            ended: CancellationToken::new(),
        })
    }

    /// How far it may go.
    pub(crate) fn access(&self) -> Access {
        self.access
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

    /// Keeps what is known, as of that revision, where the user owned the server. False where they did not.
    pub(crate) fn keep_as_owner(&self, revision: i64) -> bool {
        let mut current = self.current.lock();
        let mut facts = ServerFacts::clone(&current.facts);
        facts.revision = revision;
        let owns = facts.ownership != Ownership::None;
        current.facts = Arc::new(facts);
        owns
    }

    /// Whether the session may go on as it was opened, and how far its limits go then.
    pub(crate) fn stand(&self, now: OffsetDateTime) -> bool {
        let mut current = self.current.lock();
        let Decision { access, limits, .. } = {
            let decision = decide(&current.facts, Some(&self.database), now);
            if decision.check(Permission::SessionsUse).is_err() {
                return false;
            }
            decision
        };
        current.limits = limits;
        access >= self.access
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
