//! Elevations whose time is over are written down as that, with a record each, by whichever API instance comes first. What they
//! gave ended before, in the poolers.

use std::time::Duration;

use ::audit::{AuditLog, Kind};
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

/// Looks after elevations that are over.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    pub(crate) store: Store,
    pub(crate) audit: AuditLog,
}

impl Expiry {
    /// A look now and then, until `stop`. What fails is tried in the next.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let looks = async {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if timeout(DEADLINE, self.look()).await.is_err() {
                    tracing::warn!("expiring elevations took too long");
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(looks).await;
    }

    async fn look(&self) {
        let elevations = self.store.elevations();
        match elevations.expire().await {
            Ok(expired) => expired.iter().for_each(|elevation| self.record(elevation)),
            Err(error) => tracing::debug!(%error, "expiring elevations failed"),
        }
        if let Err(error) = elevations.prune(KEPT).await {
            tracing::debug!(%error, "forgetting old elevations failed");
        }
    }

    fn record(&self, elevation: &ServerElevation) {
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
        self.audit.record(entry);
    }
}
