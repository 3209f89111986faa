//! The worker: claims operations from the config database and carries them out with PostgreSQL's own programs.
//!
//! Invariants: an operation is carried out under a lease and every write names the attempt, so that of two workers that both
//! believe to have it one is heard; a program connects only to checked addresses, within the instance's budget, and ends with
//! its backends; an artifact appears whole, in the transaction that ends its operation.
//!
//! A worker that is told to end takes nothing new and lets what runs go on for a while. Then a backup is handed back, to be
//! begun anew elsewhere; a restore that has begun to write fails with `SHUTTING_DOWN`, since nobody may begin it twice. A
//! worker that is killed loses its leases: backups are queued again, restores fail with `LOST`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admission;
mod backup;
mod cleaning;
mod failure;
mod job;
mod journal;
mod keeper;
mod options;
mod program;
mod reach;
mod restore;
mod slots;
mod stop;
mod tenancy;
mod upholding;

use std::sync::Arc;
use std::time::Duration;

use domain::clock::Clock;
use domain::id::IncarnationId;
use parking_lot::Mutex;
use sealing::Opener;
use sessions::Sessions;
use storage::{Artifacts, UserFiles};
use store::{Store, StoreError};
use target::tools::Toolbox;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use options::WorkerOptions;

use crate::stop::{Stop, StopReason};

/// The pause before the config database is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What a worker works with.
#[derive(Clone)]
pub struct WorkerParts {
    /// The config database.
    pub store: Store,
    /// Where slots are asked for.
    pub sessions: Arc<dyn Sessions>,
    /// Opens passwords.
    pub opener: Opener,
    /// Backups' artifacts.
    pub artifacts: Artifacts,
    /// Users' files.
    pub files: UserFiles,
    /// The time, for the age of files.
    pub clock: Arc<dyn Clock>,
    /// This process.
    pub incarnation: IncarnationId,
}

impl std::fmt::Debug for WorkerParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerParts")
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

/// What every operation shares.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) opener: Opener,
    pub(crate) artifacts: Artifacts,
    pub(crate) files: UserFiles,
    pub(crate) toolbox: Toolbox,
    pub(crate) options: WorkerOptions,
    /// What runs beside the operations: the holders of their slots.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    /// Reads from the config database, again and again while it is away, for as long as a lease lasts: an operation that
    /// waited its turn is not to fail for a hiccup.
    pub(crate) async fn patient<'a, T, F>(&'a self, read: impl Fn(&'a Store) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let end = Instant::now() + self.options.lease;
        loop {
            match read(&self.store).await {
                Err(error) if Instant::now() < end => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the config database is asked again"
                    );
                    sleep(RETRY_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// A worker that is ready to work.
#[derive(Debug)]
pub struct Worker {
    context: Arc<Context>,
    clock: Arc<dyn Clock>,
    incarnation: IncarnationId,
    /// The operations that run, to be told when the time to drain is over.
    running: Arc<Mutex<Vec<Stop>>>,
}

impl Worker {
    /// Finds the installed programs and makes the scratch directory.
    ///
    /// # Errors
    /// Where the scratch directory cannot be made or written to: said now, not by the first operation.
    pub async fn new(parts: WorkerParts, options: WorkerOptions) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(&options.scratch_directory).await?;
        tempfile::tempdir_in(&options.scratch_directory)?.close()?;
        let toolbox = Toolbox::discover(&options.toolbox).await;
        if toolbox.tools().is_empty() {
            tracing::error!("no pg_dump and pg_restore are installed; every backup and restore will fail");
        }
        let context = Context {
            store: parts.store,
            sessions: parts.sessions,
            opener: parts.opener,
            artifacts: parts.artifacts,
            files: parts.files,
            toolbox,
            options,
            tasks: TaskTracker::new(),
        };
        Ok(Self {
            context: Arc::new(context),
            clock: parts.clock,
            incarnation: parts.incarnation,
            running: Arc::default(),
        })
    }

    /// The installed programs.
    #[must_use]
    pub fn toolbox(&self) -> &Toolbox {
        &self.context.toolbox
    }

    /// Works until `shutdown` is cancelled, then drains. Returns when nothing runs any more. Dropped before, it ends like a
    /// worker that is killed, but for the programs it started: they go at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut jobs = JoinSet::new();
        tokio::join!(
            self.claim_operations(&mut jobs, &shutdown),
            self.clean_up(&shutdown)
        );
        self.drain(jobs).await;
    }

    async fn claim_operations(&self, jobs: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let free = Arc::new(Semaphore::new(self.context.options.concurrency.max(1)));
        loop {
            let permit = tokio::select! {
                () = shutdown.cancelled() => return,
                permit = Arc::clone(&free).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { return };
            while jobs.try_join_next().is_some() {}
            let operations = self.context.store.operations();
            match operations
                .claim(self.incarnation, self.context.options.lease)
                .await
            {
                Ok(Some(claimed)) => {
                    let stop = Stop::default();
                    self.register(&stop);
                    let context = Arc::clone(&self.context);
                    jobs.spawn(async move {
                        let _permit = permit;
                        Box::pin(job::run(&context, claimed, stop)).await;
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no operation can be claimed"
                    );
                }
            }
            drop(permit);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(self.context.options.poll_interval) => {}
            }
        }
    }

    async fn clean_up(&self, shutdown: &CancellationToken) {
        let options = &self.context.options;
        let mut reaping = interval(options.lease / 3);
        let mut cleaning = interval(options.cleaning_interval);
        for ticks in [&mut reaping, &mut cleaning] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            let work = async {
                tokio::select! {
                    _ = reaping.tick() => cleaning::reap(&self.context).await,
                    _ = cleaning.tick() => cleaning::clean(&self.context, self.clock.as_ref()).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = work => {}
            }
        }
    }

    /// Waits for the operations that run, and stops them when the time is over.
    async fn drain(&self, mut jobs: JoinSet<()>) {
        let ended = async { while jobs.join_next().await.is_some() {} };
        if timeout(self.context.options.drain_timeout, ended).await.is_err() {
            for stop in self.running.lock().iter() {
                stop.stop(StopReason::Shutdown);
            }
            while jobs.join_next().await.is_some() {}
        }
        self.context.tasks.close();
        self.context.tasks.wait().await;
    }

    fn register(&self, stop: &Stop) {
        let mut running = self.running.lock();
        running.retain(Stop::is_alive);
        running.push(stop.clone());
    }
}
