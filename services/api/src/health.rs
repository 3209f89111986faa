//! Health of each service (gRPC health checking protocol), for balancers and orchestrators.
//!
//! Invariant: a service is SERVING only while this instance can carry out its calls; while it drains, none
//! is.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Names of the services that need a live pooler.
const POOLED: [&str; 2] = [
    rpc::query::v1::query_service_server::SERVICE_NAME,
    rpc::catalog::v1::catalog_service_server::SERVICE_NAME,
];

/// Says how each service stands. Cloning it shares it.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    state: Arc<Mutex<State>>,
    /// Held while the reporter is told, so that an older state never overwrites a newer one.
    telling: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    services: Vec<&'static str>,
    pooler_live: bool,
    draining: bool,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            reporter: HealthReporter::new(),
            state: Arc::default(),
            telling: Arc::default(),
        }
    }

    pub(crate) fn reporter(&self) -> HealthReporter {
        self.reporter.clone()
    }

    /// Adds a service. Its status is told with the next change.
    pub(crate) fn add<S: NamedService>(&self) {
        self.state.lock().services.push(S::NAME);
    }

    /// Says whether a pooler is there to serve sessions.
    pub async fn set_pooler_live(&self, live: bool) {
        let changed = std::mem::replace(&mut self.state.lock().pooler_live, live) != live;
        if changed {
            tracing::info!(live, "pooler availability changed");
            self.tell().await;
        }
    }

    /// Says that this instance is going away and takes no new calls.
    ///
    /// Watchers are told and their streams end, which would hold the drain otherwise.
    pub async fn set_draining(&self) {
        self.state.lock().draining = true;
        self.tell().await;
        let services = self.state.lock().services.clone();
        let mut reporter = self.reporter();
        for service in std::iter::once("").chain(services) {
            // Forgetting a service ends its watchers' streams, after what they were told last.
            reporter.clear_service_status(service).await;
        }
        self.tell().await;
    }

    /// Tells the reporter how everything stands.
    pub(crate) async fn tell(&self) {
        let _telling = self.telling.lock().await;
        let statuses: Vec<_> = {
            let state = self.state.lock();
            let serving = |up| {
                if up {
                    ServingStatus::Serving
                } else {
                    ServingStatus::NotServing
                }
            };
            let whole = ("", serving(!state.draining));
            let each = state.services.iter().map(|service| {
                let up = !state.draining && (state.pooler_live || !POOLED.contains(service));
                (*service, serving(up))
            });
            std::iter::once(whole).chain(each).collect()
        };
        for (service, status) in statuses {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
