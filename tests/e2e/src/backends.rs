//! How many backends a target has, watched while something else happens.

use std::time::Duration;

use harness::{Cluster, Connection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Backends that count against a budget: those of clients, but for the harness's own. PostgreSQL's workers
/// are not clients (manual, 28.2.3).
pub const COUNT_BACKENDS: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE backend_type = 'client backend' AND application_name <> 'harness'";

/// Time between two counts.
const INTERVAL: Duration = Duration::from_millis(5);

/// Client backends now, without the harness's.
pub async fn client_backends(connection: &Connection) -> i64 {
    let row = connection.query_one(COUNT_BACKENDS, &[]).await;
    row.expect("a superuser may count backends").get(0)
}

/// Counts a target's backends until it is asked for the most there were.
#[derive(Debug)]
pub struct BackendSampler {
    stop: CancellationToken,
    counting: JoinHandle<Counts>,
}

/// What a sampler saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// The most backends at once.
    pub most: i64,
    /// How often it counted.
    pub looks: u64,
}

impl BackendSampler {
    /// Begins to count.
    pub async fn start(cluster: &Cluster) -> Self {
        let stop = CancellationToken::new();
        let connection = cluster.connect().await;
        let stopped = stop.clone();
        #[allow(
            clippy::disallowed_methods,
            reason = "the sampler owns the task and awaits it in `finish`"
        )]
        let counting = tokio::spawn(async move {
            let mut counts = Counts::default();
            loop {
                counts.most = counts.most.max(client_backends(&connection).await);
                counts.looks += 1;
                if stopped
                    .run_until_cancelled(tokio::time::sleep(INTERVAL))
                    .await
                    .is_none()
                {
                    return counts;
                }
            }
        });
        Self { stop, counting }
    }

    /// Counts a last time and says what was seen.
    pub async fn finish(self) -> Counts {
        self.stop.cancel();
        self.counting.await.expect("the sampler does not panic")
    }
}
