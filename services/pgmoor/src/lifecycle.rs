//! From the first request to stop until the process is gone.
//!
//! The order: health says not serving, what outlives a call is ended · servers stop accepting and finish what
//! they have · background tasks (pollers, heartbeats, leases) end · closing line. A deadline, or a second
//! signal, cuts off whatever is left. A task that dies stops the process in the same order, and the process
//! fails.
//!
//! Invariant: every task of a role runs through here, so that none outlives the drain and none dies unseen.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long background tasks may take to end once nothing needs them.
const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// The tasks of a process and how they are stopped.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    role: &'static str,
    signals: Signals,
    tasks: Tasks,
    servers: TaskTracker,
    background: TaskTracker,
}

/// What tasks share with the lifecycle. Clones stand for the same process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    /// Soft: take no new work, finish what there is.
    stop: CancellationToken,
    /// Background tasks end: no server needs them any more.
    retire: CancellationToken,
    /// Hard: what is left is dropped.
    end: CancellationToken,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

/// How a process left: what [`Lifecycle::until_stopped`] waits for before its servers stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// With nothing unfinished.
    Finished,
    /// With work that was cut off at the deadline.
    CutOff,
}

/// How the drain went, the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Drain {
    Graceful,
    DeadlinePassed,
    SecondSignal,
}

impl Drain {
    fn as_str(self) -> &'static str {
        match self {
            Self::Graceful => "graceful",
            Self::DeadlinePassed => "cut off at the deadline",
            Self::SecondSignal => "cut off by a second signal",
        }
    }
}

impl Lifecycle {
    /// Starts listening for signals. `role` names the process in its closing line.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub(crate) fn new(role: &'static str) -> anyhow::Result<Self> {
        Ok(Self {
            role,
            signals: Signals::listen().context("signals cannot be received")?,
            tasks: Tasks::default(),
            servers: TaskTracker::new(),
            background: TaskTracker::new(),
        })
    }

    /// Cancelled when the process shall take no new work.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.tasks.stop.clone()
    }

    /// Cancelled when background tasks shall end.
    pub(crate) fn retiring(&self) -> CancellationToken {
        self.tasks.retire.clone()
    }

    /// Runs a server: it must end by itself, all calls answered, after [`Self::stopping`] is cancelled.
    pub(crate) fn serve(
        &self,
        name: &'static str,
        server: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let tasks = self.tasks.clone();
        let stop = tasks.stop.clone();
        self.servers
            .spawn(async move { tasks.watch(name, server, &stop).await });
    }

    /// Runs a task that servers depend on: it must end by itself after [`Self::retiring`] is cancelled.
    pub(crate) fn background(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let tasks = self.tasks.clone();
        let retire = tasks.retire.clone();
        self.background
            .spawn(async move { tasks.watch(name, task, &retire).await });
    }

    /// Waits for a signal or for a task to die, then stops everything in order. `leave` runs first, while
    /// servers still answer: it takes the process out of the load balancers and ends what outlives a call.
    /// Calls have `drain_timeout` after that.
    ///
    /// # Errors
    /// When a task died, or work was cut off.
    pub(crate) async fn until_stopped(
        mut self,
        drain_timeout: Duration,
        leave: impl Future<Output = Left>,
    ) -> anyhow::Result<()> {
        tokio::select! {
            signal = self.signals.next() => tracing::info!(signal, "stopping"),
            () = self.tasks.stop.cancelled() => tracing::error!("stopping because a task died"),
        }
        let started = Instant::now();
        let left = tokio::select! {
            left = leave => match left {
                Left::Finished => Drain::Graceful,
                Left::CutOff => Drain::DeadlinePassed,
            },
            _ = self.signals.next() => Drain::SecondSignal,
        };
        self.tasks.stop.cancel();
        let drain = match left {
            Drain::SecondSignal => left,
            Drain::Graceful | Drain::DeadlinePassed => left.max(self.drain(drain_timeout).await),
        };
        self.tasks.retire.cancel();
        self.tasks.end.cancel();
        let failure = self.tasks.failure.lock().take();
        tracing::info!(
            drain = drain.as_str(),
            drain_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            failed = failure.is_some(),
            "{} stopped",
            self.role
        );
        match (failure, drain) {
            (Some(failure), _) => Err(failure),
            (None, Drain::Graceful) => Ok(()),
            (None, cut_off) => bail!("unfinished work was {}", cut_off.as_str()),
        }
    }

    async fn drain(&mut self, drain_timeout: Duration) -> Drain {
        self.servers.close();
        self.background.close();
        let drain = tokio::select! {
            () = self.servers.wait() => Drain::Graceful,
            () = sleep(drain_timeout) => Drain::DeadlinePassed,
            _ = self.signals.next() => Drain::SecondSignal,
        };
        if drain == Drain::SecondSignal {
            return drain;
        }
        self.tasks.retire.cancel();
        let retired = tokio::select! {
            () = self.background.wait() => Drain::Graceful,
            () = sleep(BACKGROUND_TIMEOUT) => Drain::DeadlinePassed,
            _ = self.signals.next() => Drain::SecondSignal,
        };
        drain.max(retired)
    }
}

impl Tasks {
    /// Runs a task to its end; one that ends before `asked` is cancelled, or fails, or panics, takes the
    /// process with it.
    async fn watch(
        self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>>,
        asked: &CancellationToken,
    ) {
        let ended = tokio::select! {
            ended = AssertUnwindSafe(task).catch_unwind() => ended,
            () = self.end.cancelled() => return,
        };
        let failure = match ended {
            Ok(Ok(())) if asked.is_cancelled() => return,
            Ok(Ok(())) => anyhow!("{name} ended though nobody asked it to"),
            Ok(Err(error)) => error.context(format!("{name} failed")),
            Err(_) => anyhow!("{name} panicked"),
        };
        self.failure.lock().get_or_insert(failure);
        self.stop.cancel();
    }
}

/// The signals that mean "stop": SIGTERM from a supervisor, SIGINT from a terminal.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn stopped(lifecycle: Lifecycle) -> anyhow::Result<()> {
        lifecycle.until_stopped(LONG, async { Left::Finished }).await
    }

    #[tokio::test]
    async fn task_that_fails_stops_the_others_and_the_process_fails() {
        let lifecycle = Lifecycle::new("test").unwrap();
        let (stopping, retiring) = (lifecycle.stopping(), lifecycle.retiring());
        lifecycle.serve("server", async move {
            stopping.cancelled().await;
            Ok(())
        });
        lifecycle.background("poller", async move {
            retiring.cancelled().await;
            Ok(())
        });
        lifecycle.background("feed", async { Err(anyhow!("no database")) });
        assert_eq!(
            format!("{:#}", stopped(lifecycle).await.unwrap_err()),
            "feed failed: no database"
        );
    }

    #[tokio::test]
    async fn task_that_panics_or_ends_early_fails_the_process() {
        let lifecycle = Lifecycle::new("test").unwrap();
        lifecycle.background("feed", async { panic!("a bug") });
        assert_eq!(stopped(lifecycle).await.unwrap_err().to_string(), "feed panicked");

        let lifecycle = Lifecycle::new("test").unwrap();
        lifecycle.background("feed", async { Ok(()) });
        assert_eq!(
            stopped(lifecycle).await.unwrap_err().to_string(),
            "feed ended though nobody asked it to"
        );
    }

    #[tokio::test]
    async fn background_tasks_outlive_the_servers() {
        let lifecycle = Lifecycle::new("test").unwrap();
        let (stopping, retiring) = (lifecycle.stopping(), lifecycle.retiring());
        let retiring_for_server = retiring.clone();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (server, poller) = (seen.clone(), seen.clone());
        lifecycle.serve("server", async move {
            stopping.cancelled().await;
            tokio::task::yield_now().await;
            assert!(!retiring_for_server.is_cancelled());
            server.lock().push("server");
            Ok(())
        });
        lifecycle.background("poller", async move {
            retiring.cancelled().await;
            poller.lock().push("poller");
            Ok(())
        });
        lifecycle.tasks.stop.cancel();
        stopped(lifecycle).await.unwrap();
        assert_eq!(*seen.lock(), ["server", "poller"]);
    }

    #[tokio::test]
    async fn drain_ends_at_its_deadline() {
        let lifecycle = Lifecycle::new("test").unwrap();
        lifecycle.serve("server", std::future::pending());
        lifecycle.tasks.stop.cancel();
        let error = lifecycle
            .until_stopped(Duration::from_millis(20), async { Left::Finished })
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "unfinished work was cut off at the deadline");
    }
}
