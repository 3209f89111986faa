//! `pgmoor worker`: runs operations. It listens on nothing but, where that is configured, for Prometheus.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use audit::{AuditLog, WriterRole};
use config::{Config, Role};
use domain::clock::SystemClock;
use domain::egress::EgressPolicy;
use domain::id::IncarnationId;
use domain::random::{Random, SystemRandom};
use sealing::Opener;
use sessions::Sessions;
use sessions::client::PoolerClient;
use sessions::directory::Directory;
use store::Store;
use target::tools::ToolboxOptions;
use telemetry::Telemetry;
use worker::{Worker, WorkerOptions, WorkerParts};

use super::audit::AuditFigures;
use super::metrics::{self, KnownPoolers};
use super::storage::Objects;
use super::{directory, egress_policy, key_ring, storage, trust};
use crate::database;
use crate::lifecycle::{Left, Lifecycle};

/// How long the worker may take to notice that its operations were cut off.
const LAST_STEPS: Duration = Duration::from_secs(15);

/// Works until the process is asked to stop.
///
/// # Errors
/// When it cannot start, when one of its tasks dies, or when operations had to be cut off.
pub(crate) async fn run(config: &Config, telemetry: &mut Option<Telemetry>) -> anyhow::Result<()> {
    let identity = config.trust.require_identity(Role::Worker)?;
    config.config_database.require_url()?;
    let opener = key_ring::open(&config.sealing)?;
    super::egress_rules(&config.egress)?;
    config.storage.require_directory()?;
    *telemetry = Some(super::start_telemetry(config, "pgmoor-worker")?);
    let lifecycle = Lifecycle::new("pgmoor worker")?;
    key_ring::follow(&lifecycle, &config.sealing, opener.clone());
    let metrics_listener = metrics::bind(config).await?;

    let store = database::connect(&config.config_database, "pgmoor worker").await?;
    let egress = egress_policy(&config.egress, &store).await?;
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    let objects = storage::open(&config.storage, &random)?;
    let poolers = Directory::default();
    directory::refresh(&store, &poolers)
        .await
        .context("the poolers cannot be looked up")?;
    let sessions = PoolerClient::new(
        poolers.clone(),
        Some(trust::client(&identity)?),
        telemetry::propagation::inject_metadata,
    );
    let mut figures = metrics::of_role("worker");
    figures.add(KnownPoolers(poolers.clone()));
    let (polled, retire) = (store.clone(), lifecycle.retiring());
    lifecycle.background("the directory of poolers", async move {
        directory::poll(polled, poolers, |_| std::future::ready(()), retire).await;
        Ok(())
    });
    let seams = Seams {
        store: store.clone(),
        sessions: Arc::new(sessions),
        opener,
        egress,
        objects,
        scratch_directory: config.worker.scratch_directory.clone(),
        path: config::Environment::of_process()
            .get("PATH")
            .map(ToOwned::to_owned),
    };
    let log = start(config, &lifecycle, seams).await?;
    figures.add(AuditFigures(vec![("worker", log)]));
    metrics::serve(&lifecycle, metrics_listener, figures);
    tracing::info!("pgmoor worker works");
    let grace = config.worker.drain_timeout + LAST_STEPS;
    let ended = lifecycle.until_stopped(grace, async { Left::Finished }).await;
    store.close().await;
    ended
}

/// What a worker stands on.
pub(crate) struct Seams {
    /// The config database, as the role of the worker.
    pub(crate) store: Store,
    /// Where slots are asked for.
    pub(crate) sessions: Arc<dyn Sessions>,
    /// Opens passwords.
    pub(crate) opener: Opener,
    /// Where instances may be.
    pub(crate) egress: EgressPolicy,
    /// Where files and artifacts are.
    pub(crate) objects: Objects,
    /// Where archives that are being restored lie.
    pub(crate) scratch_directory: PathBuf,
    /// Where programs are looked for, besides the usual places.
    pub(crate) path: Option<std::ffi::OsString>,
}

/// Starts to work.
///
/// # Errors
/// When the scratch directory cannot be made.
pub(crate) async fn start(config: &Config, lifecycle: &Lifecycle, seams: Seams) -> anyhow::Result<AuditLog> {
    let log = super::audit::start(config, lifecycle, WriterRole::Worker, seams.store.clone());
    super::audit::retain(config, lifecycle, seams.store.clone(), log.clone());
    let section = &config.worker;
    let options = WorkerOptions {
        concurrency: usize::try_from(section.concurrency).unwrap_or(1),
        drain_timeout: section.drain_timeout,
        scratch_bytes: section.scratch_bytes,
        egress: seams.egress,
        toolbox: ToolboxOptions {
            directories: section.tool_directories.clone(),
            path: seams.path,
            known_places: true,
        },
        ..WorkerOptions::new(seams.scratch_directory)
    };
    let parts = WorkerParts {
        store: seams.store,
        sessions: seams.sessions,
        opener: seams.opener,
        artifacts: seams.objects.artifacts,
        files: seams.objects.files,
        clock: Arc::new(SystemClock),
        incarnation: IncarnationId::generate(&SystemRandom),
    };
    let directory = options.scratch_directory.clone();
    let worker = Worker::new(parts, options).await.with_context(|| {
        format!(
            "worker.scratch_directory = {} cannot be used",
            directory.display()
        )
    })?;
    let stop = lifecycle.stopping();
    lifecycle.serve("the operations", async move {
        worker.run(stop).await;
        Ok(())
    });
    Ok(log)
}
