//! Sessions end when what they were opened by does: a grant that is revoked or expires, a role that is taken away, a policy
//! that becomes stricter, a user who is disabled. Sessions that write by an elevation only read once that is over.
//!
//! Invariant: with the config database there, it is known within seconds; while it is away, what was known stays good, and a
//! grant expires all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::access::ServerFacts;
use domain::id::{ServerId, UserId};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Pooler;
use crate::error::LossCause;
use crate::rights::Standing;
use crate::session::Session;
use crate::visitors::Visitor;

/// How often it is looked whether anything changed.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer of the config database is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Sessions whose facts are read at a time.
const BATCH: usize = 1000;

/// Of whom on which server.
type Pair = (UserId, ServerId);

impl Pooler {
    /// Ends sessions and scripts whose rights are gone, until it is cancelled.
    pub(super) async fn uphold_rights(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut works = true;
        loop {
            ticks.tick().await;
            let renewing = self.renew_rights();
            tokio::pin!(renewing);
            let renewed = loop {
                tokio::select! {
                    biased;
                    renewed = &mut renewing => break renewed,
                    // What expires does not wait for a config database that is slow to answer.
                    _ = ticks.tick() => self.end_without_rights(),
                }
            };
            if renewed != works {
                works = renewed;
                match works {
                    true => tracing::info!("rights can be read again"),
                    false => tracing::warn!("rights cannot be read; what was known stays good"),
                }
            }
            self.end_without_rights();
        }
    }

    /// Reads the rights anew that are older than the last change. False where some could not be read.
    async fn renew_rights(&self) -> bool {
        let stale = |session: &Arc<Session>, revision| session.facts.rights.revision() < revision;
        if self.used().next().is_none() {
            return true;
        }
        let access = self.0.store.access();
        let Ok(Ok(revision)) = timeout(PATIENCE, access.revision()).await else {
            return false;
        };
        let mut all = true;
        let stale: Vec<_> = self.used().filter(|session| stale(session, revision)).collect();
        for stale in stale.chunks(BATCH) {
            let mut pairs: Vec<Pair> = stale.iter().map(pair).collect();
            pairs.sort_unstable();
            pairs.dedup();
            // Those of some must not hold up the others.
            let Ok(Ok(facts)) = timeout(PATIENCE, access.all_server_facts(&pairs)).await else {
                all = false;
                continue;
            };
            let facts: HashMap<Pair, Arc<ServerFacts>> = facts
                .into_iter()
                .map(|(pair, facts)| (pair, Arc::new(facts)))
                .collect();
            let mut without_server = Vec::new();
            for session in stale {
                match facts.get(&pair(session)) {
                    Some(facts) => session.facts.rights.renew(facts),
                    None => without_server.push(session),
                }
            }
            all &= self.keep_owners(&without_server, revision).await;
        }
        all
    }

    /// Ends sessions on servers that are gone, but those of their owners: they go on until they need another connection, or until
    /// they would not own them any more. False where it cannot be read who would.
    async fn keep_owners(&self, sessions: &[&Arc<Session>], revision: i64) -> bool {
        if sessions.is_empty() {
            return true;
        }
        let owner = |session: &Arc<Session>| (session.facts.owner, session.facts.rights.ownership());
        let owners: Vec<_> = sessions.iter().map(|session| owner(session)).collect();
        let access = self.0.store.access();
        let Ok(Ok(still)) = timeout(PATIENCE, access.still_owners(&owners)).await else {
            return false;
        };
        for (session, owner) in sessions.iter().zip(&owners) {
            match still.contains(owner) {
                true => session.facts.rights.keep(revision),
                false => self.end(session, LossCause::AccessRevoked),
            }
        }
        true
    }

    fn end_without_rights(&self) {
        let now = self.0.clock.now();
        for session in self.used() {
            match session.facts.rights.stand(now) {
                Standing::Stands => {}
                Standing::Falls => {
                    let needs = session.fall();
                    self.serve(&session, needs);
                }
                Standing::Over => self.end(&session, LossCause::AccessRevoked),
            }
        }
    }

    /// Whatever runs as somebody: sessions, and scripts without one.
    fn used(&self) -> impl Iterator<Item = Arc<Session>> {
        let scripts = self
            .0
            .visitors
            .all()
            .into_iter()
            .filter_map(|visitor| match visitor {
                Visitor::Script(session) => Some(session),
                Visitor::Opening(_) => None,
            });
        self.0.registry.all().into_iter().chain(scripts)
    }

    fn end(&self, session: &Arc<Session>, cause: LossCause) {
        if session.facts.script.is_some() {
            session.facts.rights.end();
        } else {
            self.begin_close(session, cause);
        }
    }
}

fn pair(session: &Arc<Session>) -> Pair {
    (session.facts.owner, session.facts.name.server)
}
