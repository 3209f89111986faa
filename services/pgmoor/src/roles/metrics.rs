//! The listener for Prometheus, where one is configured.

use config::Config;
use domain::clock::{Clock as _, SystemClock};
use sessions::directory::Directory;
use telemetry::metrics::{Family, Kind, Metrics, Sample, Source};
use tokio::net::TcpListener;

use super::listener;
use crate::lifecycle::Lifecycle;

/// Binds the configured address. Before anything else starts, as every listener.
///
/// # Errors
/// When it cannot be bound.
pub(crate) async fn bind(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    match config.metrics.listen {
        Some(address) => Ok(Some(listener::bind("metrics.listen", address).await?)),
        None => Ok(None),
    }
}

/// The figures of a process of that role.
pub(crate) fn of_role(role: &'static str) -> Metrics {
    let start_time = SystemClock.now().unix_timestamp() as f64;
    Metrics::new(role, env!("CARGO_PKG_VERSION"), start_time)
}

/// Serves figures, where somebody wants them, as long as anything else is served.
pub(crate) fn serve(lifecycle: &Lifecycle, listener: Option<TcpListener>, metrics: Metrics) {
    let Some(listener) = listener else { return };
    let retire = lifecycle.retiring();
    lifecycle.background("the metrics", async move {
        metrics.serve(listener, retire).await;
        Ok(())
    });
}

/// Which poolers an API instance or a worker knows.
#[derive(Debug)]
pub(crate) struct KnownPoolers(pub(crate) Directory);

impl Source for KnownPoolers {
    fn families(&self) -> Vec<Family> {
        let snapshot = self.0.snapshot();
        let draining = snapshot
            .poolers
            .iter()
            .filter(|pooler| !pooler.takes_new_sessions);
        let draining = draining.count();
        let serving = snapshot.poolers.len() - draining;
        let samples = [("serving", serving), ("draining", draining)].map(|(state, count)| Sample {
            labels: vec![("state", state.to_owned())],
            value: count as f64,
        });
        vec![Family {
            name: "pgmoor_poolers",
            help: "Registered poolers whose lease runs, as this process knows them",
            kind: Kind::Gauge,
            samples: samples.to_vec(),
        }]
    }
}
