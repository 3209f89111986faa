//! Looking at roles from time to time, whether or not anybody uses them: at the role that read-only sessions of each server log in
//! as, and at whatever else a session that only reads logs in as here.
//!
//! The owner of an instance looks, so that each role is looked at once, whatever the number of poolers. An instance that nobody
//! owns is claimed for it by the pooler that its sessions would come to as well.
//!
//! A look gives way: where anybody waits for a connection, or the server does not answer, it is left for later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::sessions::client::proposed;
use domain::id::{InstanceId, ServerId};
use domain::random::bytes;
use futures::StreamExt as _;
use futures::stream;
use store::inspections::{Due, Schedule};
use store::poolers::PoolerState;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Pooler;
use crate::error::{PoolerError, TargetError};
use crate::inspection::{Known, Subject};
use crate::status::store_error;

/// Instances that are looked at at a time.
const TURNS: usize = 4;
/// Most roles in a round.
const MOST: u32 = 1000;
/// How long a look may wait for a connection that nobody else waits for.
const QUEUE: Duration = Duration::from_secs(2);
/// How long a look may take.
const WITHIN: Duration = Duration::from_secs(60);
/// What is younger than this part of the interval is not looked at again, and who failed is not asked again before this part of
/// it.
const PART: u32 = 6;

/// A role that it is time to look at.
enum Task {
    /// One that is on the schedule.
    Due(Due),
    /// One that sessions here log in as.
    Needed(Arc<Known>),
}

impl Task {
    fn server(&self) -> ServerId {
        match self {
            Self::Due(due) => due.server,
            Self::Needed(known) => known.subject.server,
        }
    }
}

/// What became of a look.
enum Look {
    /// Somebody was quicker, or there is nothing to look at any more.
    NotNeeded,
    Done,
    Failed(PoolerError),
    /// Another on the instance failed, for a reason that holds for this one too.
    Left,
}

/// Servers whose role could not be looked at.
#[derive(Debug, Default)]
struct Failures(HashMap<ServerId, Failure>);

#[derive(Debug)]
struct Failure {
    count: u32,
    /// Before that it is not tried again.
    until: OffsetDateTime,
}

impl Failures {
    /// Those that are left alone now.
    fn resting(&self, now: OffsetDateTime) -> Vec<ServerId> {
        let resting = self.0.iter().filter(|(_, failure)| failure.until > now);
        resting.map(|(server, _)| *server).collect()
    }

    /// Notes one more. True for the first in a row.
    fn failed(&mut self, server: ServerId, now: OffsetDateTime, interval: Duration) -> bool {
        let failure = self.0.entry(server).or_insert(Failure { count: 0, until: now });
        failure.count = failure.count.saturating_add(1);
        let pause = (interval / PART).saturating_mul(1 << (failure.count - 1).min(8));
        failure.until = now + pause.min(interval);
        failure.count == 1
    }

    fn succeeded(&mut self, server: ServerId) {
        self.0.remove(&server);
    }

    /// Forgets those that were not tried any more: they are gone, or another pooler's.
    fn forget(&mut self, before: OffsetDateTime) {
        self.0.retain(|_, failure| failure.until > before);
    }
}

impl Pooler {
    /// Looks at roles from time to time.
    pub(super) async fn inspect_on(&self) {
        let round = self.0.options.inspection_round;
        // Poolers that are started together do not come together.
        let random = u64::from_le_bytes(bytes(&*self.0.random));
        let first = Instant::now() + round.mul_f64((random % 1000) as f64 / 1000.0);
        let mut rounds = interval_at(first, round);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = Failures::default();
        loop {
            rounds.tick().await;
            if let Err(error) = self.inspect_round(&mut failures).await {
                tracing::debug!(%error, "it cannot be seen which roles it is time to look at");
            }
        }
    }

    async fn inspect_round(&self, failures: &mut Failures) -> Result<(), PoolerError> {
        let (now, interval) = (self.0.clock.now(), self.0.options.inspection_interval);
        failures.forget(now - 2 * interval);
        let resting = failures.resting(now);
        let mut by_instance: HashMap<InstanceId, Vec<Task>> = HashMap::new();
        for due in self.due(now, &resting).await? {
            let tasks = by_instance.entry(due.instance).or_default();
            tasks.push(Task::Due(due));
        }
        for known in self.0.inspections.needed(now - interval) {
            if !resting.contains(&known.subject.server) {
                let tasks = by_instance.entry(known.subject.instance).or_default();
                tasks.push(Task::Needed(known));
            }
        }
        let mut looks = stream::iter(by_instance.into_values())
            .map(|tasks| self.inspect_instance(tasks))
            .buffer_unordered(TURNS);
        while let Some(looked) = looks.next().await {
            for (server, look) in looked {
                self.note_look(failures, server, look);
            }
        }
        Ok(())
    }

    /// What this pooler is to look at.
    async fn due(&self, now: OffsetDateTime, resting: &[ServerId]) -> Result<Vec<Due>, PoolerError> {
        let schedule = Schedule {
            incarnation: self.0.me.incarnation,
            now,
            interval: self.0.options.inspection_interval,
            except: resting,
            most: MOST,
        };
        let mut due = self
            .0
            .store
            .inspections()
            .due(&schedule)
            .await
            .map_err(store_error)?;
        if due.iter().all(|due| due.is_owned) {
            return Ok(due);
        }
        let poolers = self.0.store.poolers().list_live().await.map_err(store_error)?;
        let serving = poolers
            .iter()
            .filter(|pooler| pooler.state == PoolerState::Serving);
        let serving: Vec<_> = serving.map(|pooler| pooler.id).collect();
        let mine = |instance| proposed(instance, serving.iter().copied()) == Some(self.0.me.pooler);
        due.retain(|due| due.is_owned || mine(due.instance));
        Ok(due)
    }

    /// Looks at roles of one instance, one after the other. Where it cannot be reached the rest is left.
    async fn inspect_instance(&self, tasks: Vec<Task>) -> Vec<(ServerId, Look)> {
        let mut looked = Vec::new();
        let mut tasks = tasks.into_iter();
        for task in tasks.by_ref() {
            let server = task.server();
            let look = match timeout(WITHIN, Box::pin(self.inspect_again(task))).await {
                Ok(look) => look.unwrap_or_else(Look::Failed),
                Err(_) => Look::Failed(too_slow().into()),
            };
            let is_over = matches!(&look, Look::Failed(error) if is_of_the_instance(error));
            looked.push((server, look));
            if is_over {
                break;
            }
        }
        looked.extend(tasks.map(|task| (task.server(), Look::Left)));
        looked
    }

    async fn inspect_again(&self, task: Task) -> Result<Look, PoolerError> {
        let servers = self.0.store.servers();
        let Some(server) = servers.get(task.server()).await.map_err(store_error)? else {
            return Ok(Look::NotNeeded);
        };
        let (kind, database) = match &task {
            Task::Due(due) => (due.kind, &due.database),
            Task::Needed(known) => (known.subject.kind, &known.subject.database),
        };
        let credential = match self.login_of(&server, kind).await {
            Ok(credential) => credential,
            Err(PoolerError::CredentialMissing | PoolerError::PersonalCredentialMissing) => {
                return Ok(Look::NotNeeded);
            }
            Err(error) => return Err(error),
        };
        let subject = Subject::new(&server, &credential, Some(database));
        let known = match &task {
            Task::Due(_) => self.0.inspections.of(subject),
            // Sessions of before it was registered otherwise know what was found then.
            Task::Needed(known) if known.subject != subject => return Ok(Look::NotNeeded),
            Task::Needed(known) => Arc::clone(known),
        };
        let interval = self.0.options.inspection_interval;
        if self
            .held(&server, &known, interval - interval / PART)
            .await?
            .is_some()
        {
            return Ok(Look::NotNeeded);
        }
        let instance = self.0.instances.own(server.instance_id).await?;
        if instance.pause_time().is_some() || instance.slots.waiting() > 0 {
            let user = kind.user().unwrap_or(server.owner_id);
            return Err(instance.slots.exhausted(user, Duration::ZERO).into());
        }
        let user = kind.user().unwrap_or(server.owner_id);
        Box::pin(self.look_at_role(user, &server, &known, QUEUE)).await?;
        Ok(Look::Done)
    }

    fn note_look(&self, failures: &mut Failures, server: ServerId, look: Look) {
        let error = match look {
            Look::NotNeeded => return,
            Look::Done => return failures.succeeded(server),
            Look::Left => {
                failures.failed(server, self.0.clock.now(), self.0.options.inspection_interval);
                return;
            }
            // Another pooler owns the instance, or nobody can tell: it is looked at by who does.
            Look::Failed(
                PoolerError::Moved { .. } | PoolerError::ConfigDatabase | PoolerError::ShuttingDown,
            ) => return,
            Look::Failed(error) => error,
        };
        self.0.inspections.counts.failed();
        let interval = self.0.options.inspection_interval;
        if failures.failed(server, self.0.clock.now(), interval) {
            tracing::warn!(server.id = %server, %error, "it could not be looked what a role may do; it is tried again later");
        } else {
            tracing::debug!(server.id = %server, %error, "it could not be looked what a role may do");
        }
    }
}

/// True where nothing else on the instance is worth a try.
fn is_of_the_instance(error: &PoolerError) -> bool {
    match error {
        PoolerError::Target(error) => error.is_of_the_server(),
        PoolerError::Moved { .. }
        | PoolerError::ConfigDatabase
        | PoolerError::ShuttingDown
        | PoolerError::Slot(_) => true,
        _ => false,
    }
}

fn too_slow() -> TargetError {
    TargetError::Unreachable {
        reason: "the server did not say in time what the role may do".to_owned(),
    }
}
