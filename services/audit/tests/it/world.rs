//! Arrangements: a config database, and processes that write their trails to it.

use std::sync::Arc;
use std::time::Duration;

use audit::chain::{Broken, Verifier};
use audit::{AuditLog, Kind, LogOptions, WriterRole};
use domain::clock::SystemClock;
use domain::id::IncarnationId;
use domain::random::SystemRandom;
use harness::{Cluster, Database};
use store::audit::AuditSnapshot;
use store::{ConnectOptions, Store, migrate};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A migrated config database.
pub(crate) struct World {
    /// As its owner.
    pub(crate) store: Store,
    pub(crate) database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Cluster::shared().await).await
    }

    pub(crate) async fn on(cluster: &Cluster) -> Self {
        let database = cluster.create_database().await;
        migrate::run(&database.url().into()).await.unwrap();
        Self {
            store: connect(&database.url()).await,
            database,
        }
    }

    /// A store as a member of a group role, in a cluster.
    pub(crate) async fn store_as(&self, cluster: &Cluster, group: &str) -> Store {
        let login = cluster.create_login(&format!("IN ROLE {group}")).await;
        connect(&self.database.url_as(&login)).await
    }

    /// A process that writes its trail.
    pub(crate) async fn process(&self, cluster: &Cluster, options: LogOptions) -> Process {
        let store = self.store_as(cluster, "pgmoor_pooler").await;
        let (log, writer) = AuditLog::new(
            WriterRole::Pooler,
            options,
            Arc::new(SystemClock),
            Arc::new(SystemRandom),
        );
        let stop = CancellationToken::new();
        let id = writer.id();
        let running = TaskTracker::new().spawn(writer.run(store, stop.clone()));
        Process {
            log,
            id,
            stop,
            running,
        }
    }

    /// A trail of that many calls, from a process that has ended.
    pub(crate) async fn trail(&self, calls: i64) -> IncarnationId {
        let process = self.process(Cluster::shared().await, often()).await;
        for number in 0..calls {
            process.call(number);
        }
        process.end().await
    }

    /// The trail as it stands.
    pub(crate) async fn trail_now(&self) -> AuditSnapshot {
        self.store.audit_snapshot().await.unwrap()
    }

    /// Compares a chain with its hashes.
    pub(crate) async fn verify(&self, writer: IncarnationId) -> Result<Verifier, Broken> {
        let mut audit = self.trail_now().await;
        let mut verifier = Verifier::new(audit.anchor(writer).await.unwrap().as_ref());
        let mut after = 0;
        loop {
            let batch = audit.chain(writer, after, 100).await.unwrap();
            for kept in &batch {
                verifier.next(&kept.record)?;
                after = kept.record.sequence;
            }
            if batch.len() < 100 {
                return Ok(verifier);
            }
        }
    }
}

/// Options of a process that writes at once.
pub(crate) fn often() -> LogOptions {
    LogOptions {
        flush_interval: Duration::from_millis(20),
        ..LogOptions::default()
    }
}

pub(crate) struct Process {
    pub(crate) log: AuditLog,
    pub(crate) id: IncarnationId,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Process {
    /// Records a call with that number.
    pub(crate) fn call(&self, number: i64) {
        let mut entry = self.log.entry(Kind::Call);
        entry.method = "pgmoor.test.v1.TestService/Call".to_owned();
        entry.resources = vec![format!("servers/{number}")];
        entry.row_count = number;
        self.log.record(entry);
    }

    /// Ends it as it should.
    pub(crate) async fn end(self) -> IncarnationId {
        self.stop.cancel();
        self.running.await.unwrap();
        self.id
    }

    /// Ends it as kill -9 does.
    pub(crate) fn kill(&self) {
        self.running.abort();
    }
}

pub(crate) async fn connect(url: &str) -> Store {
    Store::connect(&ConnectOptions {
        url: url.into(),
        max_connections: 4,
        application_name: "audit tests".to_owned(),
    })
    .await
    .unwrap()
}
