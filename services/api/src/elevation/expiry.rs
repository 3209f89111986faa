//! Elevations whose time is over are written down as that, with a record each, by whichever API instance comes first. What they
//! gave ended before, in the poolers.
//!
//! Invariant: that one is over without a record is written down with it, until the record is in the trail. So if this instance
//! dies in between, another one records it.

use std::collections::HashMap;
use std::time::Duration;

use ::audit::{AuditLog, Kind, Receipt, Writing};
use domain::id::ElevationId;
use store::Store;
use store::elevations::ServerElevation;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(2);
/// How long one look may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long elevations are kept that are over.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long the records of this instance are waited for at its end.
const LAST: Duration = Duration::from_secs(3);

/// Looks after elevations that are over.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    pub(crate) store: Store,
    pub(crate) audit: AuditLog,
}

/// Elevations whose record this instance has left and not yet reported as written.
type Unreported = HashMap<ElevationId, Receipt>;

impl Expiry {
    /// A look now and then, until `stop`. What fails is tried in the next.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut unreported = Unreported::new();
        let looks = async {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if timeout(DEADLINE, self.look(&mut unreported)).await.is_err() {
                    tracing::warn!("expiring elevations took too long");
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(looks).await;
        let last = async {
            for receipt in unreported.values_mut() {
                receipt.settled().await;
            }
            self.report(&mut unreported).await;
        };
        // Those that are left are recorded once more, by another instance.
        let _ = timeout(LAST, last).await;
    }

    async fn look(&self, unreported: &mut Unreported) {
        let elevations = self.store.elevations();
        self.report(unreported).await;
        match elevations.expire().await {
            Ok(expired) => {
                for elevation in expired {
                    // What waits here for long comes again.
                    let record = unreported.entry(elevation.id);
                    record.or_insert_with(|| self.record(&elevation));
                }
            }
            Err(error) => tracing::debug!(%error, "expiring elevations failed"),
        }
        if let Err(error) = elevations.prune(KEPT).await {
            tracing::debug!(%error, "forgetting old elevations failed");
        }
    }

    /// Reports which are recorded.
    async fn report(&self, unreported: &mut Unreported) {
        unreported.retain(|_, receipt| receipt.look() != Writing::Lost);
        let written = unreported
            .iter_mut()
            .filter_map(|(id, receipt)| (receipt.look() == Writing::Done).then_some(*id));
        let written: Vec<ElevationId> = written.collect();
        if written.is_empty() {
            return;
        }
        match self.store.elevations().recorded(&written).await {
            Ok(()) => unreported.retain(|id, _| !written.contains(id)),
            Err(error) => tracing::debug!(%error, "reporting recorded elevations failed"),
        }
    }

    fn record(&self, elevation: &ServerElevation) -> Receipt {
        let mut entry = self.audit.entry(Kind::Elevation);
        entry.correlation_id = self.audit.correlation_id();
        entry.user_id = Some(elevation.user);
        entry.resources = vec![
            format!("servers/{}", elevation.server),
            format!("servers/{}/elevations/{}", elevation.server, elevation.id),
        ];
        entry.session.clone_from(&elevation.wish.session);
        entry.outcome = match elevation.decided {
            Some(_) => "EXPIRED",
            None => "NOT_DECIDED",
        }
        .to_owned();
        self.audit.record_with_receipt(entry)
    }
}
