//! The pooler as a whole: registered in the config database, renewed by heartbeats, drained before it ends.

mod administration;
mod admission;
mod adoption;
mod auditing;
mod burial;
mod commit_outcome;
mod executing;
mod fetching;
mod findings;
mod inspecting;
mod inspection_rounds;
mod killing;
mod lease;
mod listing;
mod moving;
mod opening;
mod pausing;
mod script;
mod session_opening;
mod sessions;
mod sharing;
mod show;
mod succession;
mod test_server;
mod upholding;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::sessions::UserToken;
use ::sessions::peers::Peers;
use audit::AuditLog;
use auth::{AuthError, TokenVerifier};
use domain::access::{Caller, Permission, allows};
use domain::clock::Clock;
use domain::egress::EgressPolicy;
use domain::id::{IncarnationId, InstanceId};
use domain::random::Random;
use domain::session::PoolerId;
use sealing::Opener;
use secrecy::ExposeSecret;
use store::Store;
use store::poolers::{NewPooler, PoolerState, ProtocolRange, RegisterPoolerError};
use telemetry::rpc::Id;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::burial::Useless;
pub(crate) use self::sharing::NoBackend;
pub(crate) use self::show::{BudgetFigures, Figures, Place, PoolFigures, StatFigures};
use crate::connect::Connector;
use crate::error::{LossCause, PoolerError};
use crate::inspection::Inspections;
use crate::instances::{Instances, SelfId};
use crate::ownership::Standing;
use crate::pools::Pools;
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::results::Results;
use crate::roster::Roster;
use crate::session::Session;
use crate::spool::SpoolSpace;
use crate::status::store_error;
use crate::tally::Tallies;
use crate::visitors::Visitors;

/// The internal protocol we speak.
const PROTOCOL: ProtocolRange = ProtocolRange { min: 1, max: 1 };
/// How often sessions and backends that nobody uses are looked after.
const SWEEP: Duration = Duration::from_secs(1);
/// How long backends have to say goodbye at the very end.
const LAST_GOODBYE: Duration = Duration::from_secs(10);

/// How a pooler is set up.
#[derive(Debug, Clone)]
pub struct PoolerOptions {
    /// Where its internal gRPC is reached, as `host:port`.
    pub address: String,
    /// Where it may connect to.
    pub egress: EgressPolicy,
    /// How long it counts as alive, and as owner of its instances, without a heartbeat. Renewed three times as often.
    pub lease: Duration,
    /// How it reaches other poolers.
    pub peers: Peers,
    /// How long another pooler may be silent before its connections are ended, once its instance is ours.
    pub takeover_grace: Duration,
    /// How long sessions of an instance that another pooler owns now may hold their backends here.
    pub drain_timeout: Duration,
    /// Where results are kept that nobody reads. `None`: the system's directory for temporary files.
    pub spool_directory: Option<PathBuf>,
    /// Most bytes of them.
    pub spool_bytes: u64,
    /// How old what was found of a role may become before it is looked anew.
    pub inspection_interval: Duration,
    /// How often it is seen to that nothing is older.
    pub inspection_round: Duration,
    /// Where executions are recorded. Its writer must run beside the pooler.
    pub audit: Option<AuditLog>,
}

impl PoolerOptions {
    /// A pooler with the usual lease of 15 s, and no way to reach others.
    #[must_use]
    pub fn new(address: String, egress: EgressPolicy) -> Self {
        Self {
            address,
            egress,
            lease: Duration::from_secs(15),
            peers: Peers::Unreachable,
            takeover_grace: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            spool_directory: None,
            spool_bytes: 1 << 30,
            inspection_interval: Duration::from_hours(1),
            inspection_round: Duration::from_mins(1),
            audit: None,
        }
    }
}

/// Why a pooler did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// It could not be registered.
    #[error("the pooler could not be registered")]
    Register(#[from] RegisterPoolerError),
}

/// The pooler. Clones are the same one.
#[derive(Clone)]
pub struct Pooler(Arc<Inner>);

struct Inner {
    store: Store,
    verifier: Arc<TokenVerifier>,
    connector: Connector,
    instances: Instances,
    pools: Pools,
    inspections: Inspections,
    registry: Registry,
    results: Results,
    recorder: Arc<Recorder>,
    /// Rung when an instance is not ours any more.
    handing_over: Notify,
    roster: Roster,
    visitors: Visitors,
    tallies: Tallies,
    start_time: OffsetDateTime,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    me: SelfId,
    options: PoolerOptions,
    tasks: TaskTracker,
    /// Scripts without a session.
    scripts: TaskTracker,
    /// Nothing new is taken.
    draining: CancellationToken,
    /// What runs is ended.
    closing: CancellationToken,
    /// The heartbeat ends.
    ended: CancellationToken,
}

impl std::fmt::Debug for Pooler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pooler")
            .field("id", &self.id())
            .field("sessions", &self.0.registry.len())
            .finish()
    }
}

impl Pooler {
    /// Registers a pooler and begins its heartbeat.
    ///
    /// # Errors
    /// Where the config database does not let it.
    pub async fn start(
        store: Store,
        verifier: Arc<TokenVerifier>,
        opener: Opener,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        options: PoolerOptions,
    ) -> Result<Self, StartError> {
        let incarnation = IncarnationId::generate(&*random);
        let registered = store
            .poolers()
            .register(&registration(incarnation, &options))
            .await?;
        if matches!(options.peers, Peers::Alone) {
            let owners = store.instance_owners();
            owners
                .expire_others(incarnation)
                .await
                .map_err(RegisterPoolerError::from)?;
        }
        let me = SelfId {
            pooler: registered.id,
            incarnation,
            lease: options.lease,
        };
        tracing::info!(pooler.id = %me.pooler, %incarnation, "pooler registered");
        // Eight digits tell incarnations apart well enough for those who read pg_stat_activity.
        let short: String = incarnation.to_string().chars().take(8).collect();
        let application_name = format!("pgmoor/{}/{short}", me.pooler);
        let pooler = Self(Arc::new(Inner {
            connector: Connector::new(options.egress.clone(), opener, application_name),
            instances: Instances::new(store.clone(), me.clone(), Arc::clone(&clock)),
            pools: Pools::default(),
            inspections: Inspections::default(),
            registry: Registry::default(),
            results: Results::new(SpoolSpace::new(
                options.spool_directory.clone().unwrap_or_else(std::env::temp_dir),
                options.spool_bytes,
                Arc::clone(&random),
            )),
            recorder: Arc::new(Recorder::new(store.clone(), incarnation)),
            handing_over: Notify::new(),
            roster: Roster::default(),
            visitors: Visitors::default(),
            tallies: Tallies::new(),
            start_time: clock.now(),
            tasks: TaskTracker::new(),
            scripts: TaskTracker::new(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            store,
            verifier,
            clock,
            random,
            me,
            options,
        }));
        if matches!(pooler.0.options.peers, Peers::Alone) {
            pooler.0.instances.is_alone();
        }
        let beating = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let ended = beating.0.ended.clone();
            ended.run_until_cancelled(beating.beat()).await;
        });
        let sharing = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let ended = sharing.0.ended.clone();
            let both = async { tokio::join!(sharing.relieve_all(), sharing.sweep_on()) };
            ended.run_until_cancelled(both).await;
        });
        let handing = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let ended = handing.0.ended.clone();
            ended.run_until_cancelled(handing.hand_over_all()).await;
        });
        let taking = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let draining = taking.0.draining.clone();
            draining.run_until_cancelled(taking.succeed_on()).await;
        });
        let inspecting = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let draining = inspecting.0.draining.clone();
            draining.run_until_cancelled(inspecting.inspect_on()).await;
        });
        let upholding = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let ended = upholding.0.ended.clone();
            ended.run_until_cancelled(upholding.uphold_rights()).await;
        });
        let recording = pooler.clone();
        pooler.0.tasks.spawn(async move {
            let ended = recording.0.ended.clone();
            ended.run_until_cancelled(recording.0.recorder.run()).await;
        });
        Ok(pooler)
    }

    /// Its number in session ids and in the config database.
    #[must_use]
    pub fn id(&self) -> PoolerId {
        self.0.me.pooler
    }

    /// The process.
    #[must_use]
    pub fn incarnation(&self) -> IncarnationId {
        self.0.me.incarnation
    }

    /// How many sessions it holds.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.0.registry.len()
    }

    async fn beat(&self) {
        let mut ticks = interval(self.0.options.lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let beat = timeout(self.0.options.lease, self.beat_once()).await;
            self.0.instances.beat(matches!(beat, Ok(Ok(()))));
            if self
                .0
                .instances
                .all()
                .iter()
                .any(|one| one.standing() == Standing::Superseded)
            {
                // Whatever became of the heartbeat after that was found.
                self.0.handing_over.notify_one();
            }
            if let Ok(Err(error)) = beat {
                tracing::warn!(%error, "a heartbeat failed; what is open stays open");
            }
        }
    }

    async fn sweep_on(&self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sweep();
            self.0.results.sweep(Instant::now());
            self.0.tallies.turn(Instant::now());
        }
    }

    async fn beat_once(&self) -> Result<(), RegisterPoolerError> {
        let Inner {
            store, me, options, ..
        } = &*self.0;
        let state = if self.0.draining.is_cancelled() {
            PoolerState::Draining
        } else {
            PoolerState::Serving
        };
        if store
            .poolers()
            .heartbeat(me.incarnation, state, options.lease)
            .await?
            .is_none()
        {
            let again = store
                .poolers()
                .register(&registration(me.incarnation, options))
                .await?;
            if again.id != me.pooler {
                tracing::error!(pooler.id = %me.pooler, new = %again.id, "the pooler's number went to another");
            }
        }
        store.instance_owners().note_timeline(options.lease).await?;
        for lost in self.0.instances.renew().await? {
            tracing::warn!(instance.id = %lost.id, "an instance is another pooler's now");
            self.0.handing_over.notify_one();
        }
        Ok(())
    }

    /// Another pooler owns an instance, in that term. Returns how many connections to it are still ours.
    pub(crate) async fn relinquish(&self, id: InstanceId, term: u64) -> Result<u32, PoolerError> {
        if self.0.instances.known(id).is_none() {
            // It may be one that is known here by another name.
            self.0.instances.learn_merges().await.map_err(store_error)?;
        }
        let Some(instance) = self.0.instances.known(id) else {
            return Ok(0);
        };
        if instance.superseded(term) {
            tracing::warn!(instance.id = %id, "an instance is another pooler's now");
        }
        self.0.handing_over.notify_one();
        Ok(instance.slots.usage().total())
    }

    /// Takes nothing new and gives its instances back, so that others serve what is free at once. Waits for the rest until
    /// `deadline`, ends what is left then (rolling back what it had open) and signs off.
    pub async fn drain(&self, deadline: Instant) {
        let Inner {
            registry,
            tasks,
            scripts,
            draining,
            closing,
            ended,
            store,
            me,
            instances,
            ..
        } = &*self.0;
        draining.cancel();
        tracing::info!(sessions = registry.len(), "draining");
        instances.give_back().await;
        self.0.handing_over.notify_one();
        let empty = async {
            while registry.len() > 0 {
                let sessions = registry.all();
                if let Some(session) = sessions.first() {
                    session.ended().await;
                }
            }
            scripts.close();
            scripts.wait().await;
        };
        if timeout_at(deadline, empty).await.is_err() {
            for session in registry.all() {
                self.begin_close(&session, LossCause::Drained);
            }
        }
        closing.cancel();
        self.close_idle();
        ended.cancel();
        tasks.close();
        scripts.close();
        let all = async { tokio::join!(tasks.wait(), scripts.wait()) };
        if timeout(LAST_GOODBYE, all).await.is_err() {
            tracing::warn!("backends did not end in time");
        }
        if timeout(LAST_GOODBYE, self.0.recorder.finish()).await.is_err() {
            tracing::warn!("connections and sessions stay on the record");
        }
        if let Err(error) = store.poolers().deregister(me.incarnation).await {
            tracing::warn!(%error, "the pooler could not sign off");
        }
    }

    /// Who calls, if they may.
    async fn caller(&self, token: &UserToken, permission: Permission) -> Result<Arc<Caller>, PoolerError> {
        let caller = self.0.verifier.verify(token.0.expose_secret()).await?;
        telemetry::rpc::record(Id::User, &caller.user);
        if allows(&caller, permission) {
            Ok(caller)
        } else {
            Err(AuthError::PermissionMissing { permission }.into())
        }
    }

    /// Ends when the credential behind the token does: it is revoked, or expires.
    pub(crate) async fn credential_ended(
        &self,
        token: &UserToken,
    ) -> Result<impl Future<Output = AuthError> + Send + use<>, PoolerError> {
        let caller = self.0.verifier.verify(token.0.expose_secret()).await?;
        Ok(self.0.verifier.watch(&caller))
    }

    /// Ends a session for `cause`, unless it ends already.
    fn begin_close(&self, session: &Arc<Session>, cause: LossCause) {
        let needs = session.begin_close(cause);
        self.serve(session, needs);
    }

    /// True once what rests is closed, and nothing is to rest any more.
    fn is_closing(&self) -> bool {
        self.0.closing.is_cancelled()
    }

    /// Refuses what is new while draining.
    fn takes_new(&self) -> Result<(), PoolerError> {
        if self.0.draining.is_cancelled() {
            Err(PoolerError::ShuttingDown)
        } else {
            Ok(())
        }
    }
}

fn registration(incarnation: IncarnationId, options: &PoolerOptions) -> NewPooler {
    NewPooler {
        incarnation,
        address: options.address.clone(),
        wire_address: None,
        protocol: PROTOCOL,
        lease: options.lease,
    }
}
