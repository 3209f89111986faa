//! What becomes of what was found of a role: it is kept for all poolers, and who is in charge is told where a limit is not kept
//! any more.

use audit::Kind;
use domain::id::CredentialId;
use rpc::server::v1::Enforcement;
use tokio::time::Instant;

use super::Pooler;
use crate::error::PoolerError;
use crate::inspection::{Bound, Finding, Known, Subject};
use crate::status::store_error;

/// Reasons that are logged.
const TOLD: usize = 5;

impl Pooler {
    /// Takes over what is stored of a role, where that is news.
    pub(super) async fn recall(&self, known: &Known) -> Result<(), PoolerError> {
        if let Some(role) = known.subject.stored() {
            // Before it is asked: nothing is to seem younger than it is.
            let now = self.0.clock.now();
            let kept = self.0.store.inspections().get(&role).await.map_err(store_error)?;
            if let Some(kept) = kept {
                known.learn(Finding::from_store(kept, now));
            }
        }
        Ok(())
    }

    /// Keeps what was found with a credential by a look that began then, and returns it as it is kept. Where that cannot be written
    /// down it is known here at least.
    pub(super) async fn keep_finding(
        &self,
        known: &Known,
        credential: Option<CredentialId>,
        finding: Finding,
        began: Instant,
    ) -> Finding {
        self.0.inspections.counts.looked();
        let (mut before, mut finding) = (known.finding(), finding);
        // Of a credential that is gone by now there is nothing to keep.
        if let Some((role, credential)) = known.subject.stored().zip(credential) {
            let found = finding.to_store(credential);
            let written = self
                .0
                .store
                .inspections()
                .set(&role, &found, began.elapsed())
                .await;
            match written {
                Ok(Some(written)) => {
                    let now = self.0.clock.now();
                    before = written
                        .before
                        .map(|kept| Finding::from_store(kept, now))
                        .or(before);
                    finding = finding.kept_at(written.check_time);
                }
                // Whoever looked later tells what became of the role.
                Ok(None) => {
                    before = None;
                    if let Err(error) = self.recall(known).await {
                        tracing::debug!(server.id = %role.server, %error, "a later look at a role could not be read");
                    }
                }
                Err(error) => {
                    tracing::warn!(server.id = %role.server, %error, "what was found of a role could not be written down");
                }
            }
        }
        known.set(finding.clone());
        let lost = before.iter().flat_map(|before| finding.lost(before));
        for (bound, now) in lost {
            self.tell_of_loss(&known.subject, bound, &now);
        }
        finding
    }

    /// PostgreSQL kept a role within a limit, and does not any more.
    fn tell_of_loss(&self, subject: &Subject, bound: Bound, now: &Enforcement) {
        let reasons = now.reasons.iter().take(TOLD).map(|reason| reason.text.as_str());
        tracing::warn!(
            server.id = %subject.server, role = %subject.username, database = %subject.database, limit = bound.as_str(),
            reason_count = now.reason_count, reasons = reasons.collect::<Vec<_>>().join("; "),
            "a role is not kept within its limit any more"
        );
        self.0.inspections.counts.lost(bound);
        let Some(audit) = &self.0.options.audit else {
            return;
        };
        let mut entry = audit.entry(Kind::Inspection);
        entry.correlation_id = audit.correlation_id();
        entry.user_id = subject.kind.user();
        entry.resources = vec![format!("servers/{}", subject.server)];
        entry.database = subject.database.to_string();
        entry.role = subject.username.to_string();
        entry.outcome = match bound {
            Bound::ReadOnly => "READ_ONLY_BEST_EFFORT",
            Bound::Tenancy => "TENANCY_BEST_EFFORT",
        }
        .to_owned();
        entry.count = now.reason_count;
        audit.record(entry);
    }
}
