//! One operation in this worker's hands: what it needs, what it tells, and how it ends.
//!
//! Invariant: every way out writes one outcome under the attempt's fence, and leaves neither program nor backend nor
//! half-written artifact behind.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::operation::{OperationKind, OperationOutcome};
use rpc::errors::v1::ErrorReason;
use store::backups::NewBackup;
use store::operations::{Attempt, AttemptError, Claimed, Operation};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::backup::Published;
use crate::failure::{Failure, Halt};
use crate::journal::Journal;
use crate::reach::Reach;
use crate::slots::{self, Slots};
use crate::stop::{Interrupted, Stop, StopReason};
use crate::{Context, RETRY_PAUSE, backup, keeper, restore, upholding};

/// An operation that is carried out.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) context: &'a Context,
    pub(crate) operation: Operation,
    pub(crate) attempt: Attempt,
    pub(crate) journal: Journal,
    pub(crate) stop: Stop,
    /// Held while the log is written down, so that its pieces keep their order.
    pub(crate) writing_log: tokio::sync::Mutex<()>,
    reach: OnceLock<Reach>,
    /// Held to the end: what the program's backends still do counts after the program.
    slots: OnceLock<Slots>,
    program_started: AtomicBool,
}

/// How the work itself came out.
enum Done {
    Backup(Box<Published>),
    Restore,
}

/// What is written down when an attempt ends.
enum Record<'a> {
    Backup(&'a NewBackup),
    Outcome(&'a OperationOutcome),
    HandBack,
}

/// The name that the backends of an attempt bear. Only we know it before they are there: ids are random.
pub(crate) fn application_name(attempt: &Attempt) -> String {
    format!("pgmoor/op/{}/{}", attempt.operation_id, attempt.number)
}

/// Carries an operation out and writes down how it ended.
pub(crate) async fn run(context: &Context, claimed: Claimed, stop: Stop) {
    let job = Job {
        context,
        operation: claimed.operation,
        attempt: claimed.attempt,
        journal: Journal::new(context.options.log_bytes),
        stop,
        writing_log: tokio::sync::Mutex::new(()),
        reach: OnceLock::new(),
        slots: OnceLock::new(),
        program_started: AtomicBool::new(false),
    };
    let id = job.operation.id;
    tracing::info!(operation.id = %id, kind = %job.operation.kind, attempt = job.attempt.number, "operation begins");
    let over = CancellationToken::new();
    let work = async {
        let done = job.work().await;
        let outcome = job.end(done).await;
        over.cancel();
        outcome
    };
    // Side by side, and the keeper is never broken off in the middle of a write.
    let (outcome, (), ()) = tokio::join!(work, keeper::keep(&job, &over), upholding::uphold(&job, &over));
    tracing::info!(operation.id = %id, outcome, "operation ends");
}

impl Job<'_> {
    async fn work(&self) -> Result<Done, Halt> {
        match self.operation.kind {
            OperationKind::Backup => Ok(Done::Backup(Box::new(backup::run(self).await?))),
            OperationKind::Restore => restore::run(self).await.map(|()| Done::Restore),
        }
    }

    /// Finds the way to the operation's server, if its owner may go there.
    pub(crate) async fn find(&self) -> Result<(), Halt> {
        let operation = &self.operation;
        Box::pin(admission::check(self.context, operation)).await?;
        let name = application_name(&self.attempt);
        let reach = Reach::find(
            self.context,
            (operation.server_id, operation.owner_id),
            &operation.database,
            name,
            &self.journal,
        )
        .await?;
        self.reach.get_or_init(|| reach);
        Ok(())
    }

    /// The way that was found.
    pub(crate) fn reach(&self) -> Result<&Reach, Halt> {
        let unknown =
            || Failure::new(ErrorReason::Internal, "the way to the server was not looked for").into();
        self.reach.get().ok_or_else(unknown)
    }

    /// Waits for connections within the budget. They are the job's as long as there is one.
    pub(crate) async fn lease(&self, count: i32) -> Result<(), Halt> {
        let who = (self.operation.id, self.operation.owner_id);
        let instance = self.reach()?.server.instance_id;
        let Context { sessions, tasks, .. } = self.context;
        let slots = slots::lease(sessions, tasks, instance, who, count, &self.journal).await?;
        self.slots.get_or_init(|| slots);
        // Much may have changed in the queue.
        Box::pin(admission::check(self.context, &self.operation)).await
    }

    /// From here on the server has, or had, backends of this attempt.
    pub(crate) fn program_started(&self) {
        self.program_started.store(true, Ordering::Relaxed);
    }

    async fn end(&self, done: Result<Done, Halt>) -> &'static str {
        match done {
            Ok(Done::Backup(published)) => self.publish(*published).await,
            Ok(Done::Restore) => self.finish(OperationOutcome::Succeeded).await,
            Err(Halt::Failed(failure)) => {
                self.end_backends().await;
                self.fail(failure).await
            }
            Err(Halt::Interrupted(Interrupted(reason))) => {
                self.end_backends().await;
                self.interrupted(reason).await
            }
        }
    }

    async fn publish(&self, published: Published) -> &'static str {
        // The last look: what is published stays.
        if !upholding::stands(self).await {
            if let Err(error) = self.context.artifacts.delete(&published.key).await {
                tracing::warn!(%error, "an artifact that belongs to no backup was not removed yet");
            }
            return self.revoked().await;
        }
        self.write_the_rest().await;
        let Err(error) = self.record(&Record::Backup(&published.backup)).await else {
            return "succeeded";
        };
        // Without a row the artifact is nobody's. If the row is there after all, and only its news was lost, it stays.
        if matches!(error, AttemptError::Superseded)
            && matches!(
                self.context.store.backups().get(published.backup.id).await,
                Ok(None)
            )
            && let Err(error) = self.context.artifacts.delete(&published.key).await
        {
            tracing::warn!(%error, "an artifact that belongs to no backup was not removed yet");
        }
        "superseded"
    }

    async fn interrupted(&self, reason: StopReason) -> &'static str {
        match (reason, self.operation.kind) {
            (StopReason::LeaseLost, _) => "lost",
            (StopReason::Cancelled, _) => {
                self.journal.line("pgmoor: cancelled");
                self.finish(OperationOutcome::Cancelled).await
            }
            (StopReason::AccessRevoked, _) => self.revoked().await,
            (StopReason::Shutdown, OperationKind::Restore)
                if self.program_started.load(Ordering::Relaxed) =>
            {
                let message = "the worker had to end in the middle of the restore";
                self.fail(Failure::new(ErrorReason::ShuttingDown, message)).await
            }
            (StopReason::Shutdown, _) => {
                self.journal
                    .line("pgmoor: the worker ends, another one begins anew");
                keeper::flush(self).await;
                match self.record(&Record::HandBack).await {
                    Ok(()) => "handed back",
                    Err(_) => "superseded",
                }
            }
        }
    }

    async fn revoked(&self) -> &'static str {
        let message = "what allowed the operation was taken away while it ran";
        self.fail(Failure::new(ErrorReason::AccessRevoked, message)).await
    }

    async fn fail(&self, mut failure: Failure) -> &'static str {
        failure.message = self.journal.scrub(&failure.message).replace('\0', "");
        self.journal
            .line(&format!("pgmoor: {}: {}", failure.reason, failure.message));
        self.finish(OperationOutcome::Failed(failure.into())).await
    }

    /// What the keeper did not write down yet: once an operation has ended, nothing is added to it.
    async fn write_the_rest(&self) {
        keeper::renew(self).await;
        keeper::flush(self).await;
    }

    async fn finish(&self, outcome: OperationOutcome) -> &'static str {
        self.write_the_rest().await;
        match (self.record(&Record::Outcome(&outcome)).await, &outcome) {
            (Err(_), _) => "superseded",
            (Ok(()), OperationOutcome::Succeeded) => "succeeded",
            (Ok(()), OperationOutcome::Failed(_)) => "failed",
            (Ok(()), OperationOutcome::Cancelled) => "cancelled",
        }
    }

    /// Writes down how it ended, again and again while the config database is away, for as long as the lease can last.
    async fn record(&self, record: &Record<'_>) -> Result<(), AttemptError> {
        let operations = self.context.store.operations();
        let end = Instant::now() + self.context.options.lease;
        loop {
            let written = match record {
                Record::Backup(backup) => operations.finish_backup(&self.attempt, backup).await.map(drop),
                Record::Outcome(outcome) => operations.finish(&self.attempt, outcome).await.map(drop),
                Record::HandBack => operations.hand_back(&self.attempt).await,
            };
            match written {
                Err(AttemptError::Store(error)) if Instant::now() < end => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an outcome is not written yet"
                    );
                    sleep(RETRY_PAUSE).await;
                }
                written => return written,
            }
        }
    }

    async fn end_backends(&self) {
        let Some(reach) = self
            .reach
            .get()
            .filter(|_| self.program_started.load(Ordering::Relaxed))
        else {
            return;
        };
        if let Err(Halt::Failed(failure)) = reach.end_backends().await {
            self.journal
                .line("pgmoor: the server did not confirm that the program's backends are gone");
            tracing::warn!(operation.id = %self.operation.id, failure.message, "backends may be left");
        }
    }
}
