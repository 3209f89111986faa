//! Looking at roles from time to time, whether or not anybody uses them: at the role that read-only sessions of each server log in
//! as, and at whatever else a session that only reads logs in as here.
//!
//! The owner of an instance looks, so that each role is looked at once, whatever the number of poolers. An instance that nobody
//! owns is claimed for it by the pooler that its sessions would come to as well.
//!
//! A look gives way: where anybody waits for a connection, or the server does not answer, it is left for later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ::sessions::client::proposed;
use domain::credential::CredentialKind;
use domain::id::{InstanceId, ServerId};
use domain::name::Identifier;
use domain::random::bytes;
use futures::StreamExt as _;
use futures::stream;
use store::inspections::{Due, Schedule};
use store::poolers::PoolerState;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Pooler;
use super::inspecting::Unlooked;
use crate::error::{PoolerError, TargetError};
use crate::inspection::{Known, Subject};
use crate::slots::SlotRefused;
use crate::status::store_error;

/// Instances that are looked at at a time.
const TURNS: usize = 4;
/// Most roles in a round.
const MOST: u32 = 1000;
/// How long a look may wait for a connection that nobody else waits for.
const QUEUE: Duration = Duration::from_secs(2);
/// How long a look may take.
const WITHIN: Duration = Duration::from_secs(60);
/// How long an instance is looked at in a round. Where each look takes long the others must not wait for all of them.
const TURN: Duration = Duration::from_mins(2);
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

/// A role by its credential, in a database.
type Role = (ServerId, CredentialKind, Identifier);

impl Task {
    fn role(&self) -> Role {
        match self {
            Self::Due(due) => (due.server, due.kind, due.database.clone()),
            Self::Needed(known) => known.subject.role(),
        }
    }
}

/// What became of a look.
enum Look {
    /// Somebody was quicker, or there is nothing to look at any more.
    NotNeeded,
    Done,
    Failed(Unlooked),
    /// Another on the instance failed, for a reason that holds for this one too.
    Left,
}

/// Roles that could not be looked at.
#[derive(Debug, Default)]
struct Failures(HashMap<Role, Failure>);

#[derive(Debug)]
struct Failure {
    /// Nought where it was only left because of another.
    count: u32,
    last: Option<OffsetDateTime>,
    /// Before that it is not tried again.
    until: OffsetDateTime,
}

impl Failures {
    /// Those that are left alone now.
    fn resting(&self, now: OffsetDateTime) -> Vec<Role> {
        let resting = self.0.iter().filter(|(_, failure)| failure.until > now);
        resting.map(|(role, _)| role.clone()).collect()
    }

    /// When it failed last.
    fn last(&self, role: &Role) -> Option<OffsetDateTime> {
        self.0.get(role)?.last
    }

    /// Notes one more. True for the first in a row.
    fn failed(&mut self, role: Role, now: OffsetDateTime, interval: Duration) -> bool {
        let failure = self.0.entry(role).or_insert(Failure::none(now));
        failure.count = failure.count.saturating_add(1);
        failure.last = Some(now);
        let pause = (interval / PART).saturating_mul(1 << (failure.count - 1).min(8));
        failure.until = now + pause.min(interval);
        failure.count == 1
    }

    /// Notes that it was not tried, because of another. However often, it rests no longer for it.
    fn left(&mut self, role: Role, now: OffsetDateTime, interval: Duration) {
        let failure = self.0.entry(role).or_insert(Failure::none(now));
        failure.until = now + interval / PART;
    }

    fn succeeded(&mut self, role: &Role) {
        self.0.remove(role);
    }

    /// Forgets those that were not tried any more: they are gone, or another pooler's.
    fn forget(&mut self, before: OffsetDateTime) {
        self.0.retain(|_, failure| failure.until > before);
    }
}

impl Failure {
    fn none(now: OffsetDateTime) -> Self {
        Self {
            count: 0,
            last: None,
            until: now,
        }
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
        let mut except: HashSet<Role> = HashSet::new();
        for due in self.due(&resting).await? {
            let tasks = by_instance.entry(due.instance).or_default();
            let task = Task::Due(due);
            except.insert(task.role());
            tasks.push(task);
        }
        except.extend(resting);
        for known in self.0.inspections.needed(now - interval) {
            if !except.contains(&known.subject.role()) {
                let tasks = by_instance.entry(known.subject.instance).or_default();
                tasks.push(Task::Needed(known));
            }
        }
        // Whatever keeps failing holds up no other.
        for tasks in by_instance.values_mut() {
            tasks.sort_by_cached_key(|task| failures.last(&task.role()));
        }
        let mut looks = stream::iter(by_instance.into_values())
            .map(|tasks| self.inspect_instance(tasks))
            .buffer_unordered(TURNS);
        while let Some(looked) = looks.next().await {
            for (role, look) in looked {
                self.note_look(failures, role, look);
            }
        }
        Ok(())
    }

    /// What this pooler is to look at.
    async fn due(&self, resting: &[Role]) -> Result<Vec<Due>, PoolerError> {
        let schedule = Schedule {
            incarnation: self.0.me.incarnation,
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
    async fn inspect_instance(&self, tasks: Vec<Task>) -> Vec<(Role, Look)> {
        let began = Instant::now();
        let mut looked = Vec::new();
        let mut tasks = tasks.into_iter();
        while began.elapsed() < TURN
            && let Some(task) = tasks.next()
        {
            let role = task.role();
            let look = match timeout(WITHIN, Box::pin(self.inspect_again(task))).await {
                Ok(look) => look.unwrap_or_else(Look::Failed),
                Err(_) => Look::Failed(Unlooked::Answer(too_slow().into())),
            };
            let (is_over, is_left) = match &look {
                Look::Failed(error) => (is_of_the_instance(error), !is_elsewhere(error)),
                _ => (false, false),
            };
            looked.push((role, look));
            if is_over {
                if is_left {
                    looked.extend(tasks.map(|task| (task.role(), Look::Left)));
                }
                break;
            }
        }
        looked
    }

    async fn inspect_again(&self, task: Task) -> Result<Look, Unlooked> {
        let servers = self.0.store.servers();
        let Some(server) = servers.get(task.role().0).await.map_err(store_error)? else {
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
            Err(error) => return Err(error.into()),
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
        let user = kind.user().unwrap_or(server.owner_id);
        let waited = Duration::ZERO;
        if instance.pause_time().is_some() {
            return Err(PoolerError::Slot(SlotRefused::Paused { waited }).into());
        }
        if instance.slots.waiting() > 0 {
            return Err(PoolerError::Slot(instance.slots.exhausted(user, waited)).into());
        }
        // It may be one role's limit that another has come to: that one is not to blame for it.
        let hope = instance.reach.lock().hope(Instant::now());
        if let Err(TargetError::TooManyClients { .. }) = hope {
            return Ok(Look::Left);
        }
        match Box::pin(self.look_at_role(user, &server, &known, credential, QUEUE)).await {
            Ok(_) => Ok(Look::Done),
            Err(Unlooked::OtherRole) => Ok(Look::NotNeeded),
            Err(error) => Err(error),
        }
    }

    fn note_look(&self, failures: &mut Failures, role: Role, look: Look) {
        let (now, interval) = (self.0.clock.now(), self.0.options.inspection_interval);
        let error = match look {
            Look::NotNeeded => return,
            Look::Done => return failures.succeeded(&role),
            Look::Left => return failures.left(role, now, interval),
            // It is looked at by who can.
            Look::Failed(error) if is_elsewhere(&error) => return,
            Look::Failed(error) => PoolerError::from(error),
        };
        self.0.inspections.counts.failed();
        let (server, database) = (role.0, role.2.clone());
        if failures.failed(role, now, interval) {
            tracing::warn!(
                server.id = %server, %database, %error,
                "it could not be looked what a role may do; it is tried again later"
            );
        } else {
            tracing::debug!(server.id = %server, %database, %error, "it could not be looked what a role may do");
        }
    }
}

/// True where nothing else on the instance is worth a try: it cannot be reached or is paused, or is not for this pooler to look at.
/// What a server answers, or does not in time, is of one role or database.
fn is_of_the_instance(why: &Unlooked) -> bool {
    matches!(
        why,
        Unlooked::Connection(
            PoolerError::Target(TargetError::Unreachable { .. })
                | PoolerError::Slot(SlotRefused::Paused { .. })
        )
    ) || is_elsewhere(why)
}

/// True where another pooler owns the instance, or nobody can tell.
fn is_elsewhere(why: &Unlooked) -> bool {
    matches!(
        why,
        Unlooked::Connection(error) | Unlooked::Answer(error)
            if matches!(error, PoolerError::Moved { .. } | PoolerError::ConfigDatabase | PoolerError::ShuttingDown)
    )
}

fn too_slow() -> TargetError {
    TargetError::Unreachable {
        reason: "the server did not say in time what the role may do".to_owned(),
    }
}
