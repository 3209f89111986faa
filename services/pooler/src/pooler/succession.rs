//! Taking over: what a pooler does with what others left on an instance that is its own now.
//!
//! Each of them is asked; see [`crate::forerunner`]. Until nothing is left it is counted, so that all poolers together
//! keep to the budget. Sessions that were let go of go on here at once. Those of a pooler that is gone are recovered, or
//! lost where they were held on a backend; its connections are ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::sessions::peers::Answer;
use domain::id::{IncarnationId, InstanceId, ServerId, UserId};
use domain::name::Identifier;
use domain::pin::{Pin, Pins};
use domain::session::{PoolerId, SessionName};
use futures::future::join_all;
use store::StoreError;
use store::sessions::{Mode, Session as Row, Taken, Taking};
use store::succession::{Connection, Forerunner as Left};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use super::Pooler;
use super::opening::Dialed;
use crate::error::{Loss, LossCause, PoolerError};
use crate::facts::{one_row, text};
use crate::forerunner::{Forerunner, Heard};
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::pools::Pool;
use crate::session::Session;
use crate::status::{internal, store_error};

/// Looks for a session that is on its way, before the caller is to look again.
const MOST_LOOKS: usize = 3;
/// Sessions taken over at a time.
const BATCH: u32 = 1000;
/// How long connections may take to end that are told to.
const ENDING: Duration = Duration::from_secs(10);
/// Before the config database is asked again for what a session needs that was taken over.
const AGAIN: Duration = Duration::from_millis(250);
/// Between two looks at whether they have.
const LOOK: Duration = Duration::from_millis(100);

type Found = HashMap<(ServerId, Identifier, Vec<(String, String)>), Option<Arc<Pool>>>;

impl Pooler {
    /// Takes over what others leave, for ever.
    pub(super) async fn succeed_on(&self) {
        let mut ticks = interval(self.0.options.lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // While something is left it is looked at more often.
        let often = (self.0.options.lease / 15).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let mut left = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.instances.inherited.notified() => {}
                () = sleep(often), if left => {}
            }
            left = match timeout(self.0.options.lease * 4, self.succeed()).await {
                Ok(Ok(left)) => left,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "what other poolers left could not be looked at");
                    left
                }
                Err(_) => left,
            };
        }
    }

    /// Takes over once. True where something is left.
    async fn succeed(&self) -> Result<bool, PoolerError> {
        let (me, succession) = (self.0.me.incarnation, self.0.store.succession());
        if self.takes_new().is_ok() {
            for instance in succession.claimable(me).await.map_err(store_error)? {
                // Another pooler may be quicker.
                if let Err(error) = self.0.instances.own(instance).await {
                    tracing::debug!(instance.id = %instance, %error, "not taken over");
                }
            }
        }
        let inherited = succession.inherited(me).await.map_err(store_error)?;
        join_all(inherited.iter().map(|instance| self.succeed_at(*instance))).await;
        // Where nothing is left any more, nothing is to be counted either.
        for instance in self.0.instances.all() {
            if !inherited.contains(&instance.id) && instance.slots.elsewhere() > 0 && instance.is_ours() {
                let _one_at_a_time = instance.succeeding.lock().await;
                instance.count_left(&self.0.instances.left_on(instance.id).await?);
            }
        }
        Ok(!inherited.is_empty())
    }

    /// Counts what others have on an instance that more names turned out to lead to.
    pub(super) async fn count_again(&self, instance: &Arc<Instance>) {
        if let Err(error) = self.ask_all(instance).await {
            tracing::warn!(instance.id = %instance.id, %error, "what other poolers have cannot be counted yet");
        }
        self.0.instances.inherited.notify_one();
    }

    /// Takes over on one instance as far as is possible now.
    async fn succeed_at(&self, id: InstanceId) {
        let Some(instance) = self.0.instances.known(id).filter(|instance| instance.is_ours()) else {
            return;
        };
        if let Err(error) = self.try_to_succeed_at(&instance).await {
            tracing::warn!(instance.id = %id, %error, "what other poolers left is still there");
        }
    }

    async fn try_to_succeed_at(&self, instance: &Arc<Instance>) -> Result<(), PoolerError> {
        let _one_at_a_time = instance.succeeding.lock().await;
        self.succeed_alone_at(instance).await
    }

    /// Asks everybody who left something, and counts what they say.
    async fn ask_all(&self, instance: &Arc<Instance>) -> Result<Vec<(Left, Forerunner)>, PoolerError> {
        let left = self.0.instances.left_on(instance.id).await?;
        instance.count_left(&left);
        let heard = join_all(left.iter().map(|left| self.ask(instance, left))).await;
        let now = self.0.clock.uptime();
        let mut all = Vec::new();
        for (left, heard) in left.iter().zip(heard) {
            let mut forerunners = instance.forerunners.lock();
            let known = forerunners.get(&left.incarnation).copied();
            let known = known.unwrap_or_else(|| Forerunner::unasked(left.may_open));
            let known = known.heard(heard, now);
            forerunners.insert(left.incarnation, known);
            all.push((left.clone(), known));
        }
        instance.count_left(&left);
        Ok(all)
    }

    async fn succeed_alone_at(&self, instance: &Arc<Instance>) -> Result<(), PoolerError> {
        still_ours(instance)?;
        let all = self.ask_all(instance).await?;
        let (now, grace) = (self.0.clock.uptime(), self.0.options.takeover_grace);
        for (left, known) in &all {
            let is_over = known.is_over(now, grace);
            // Much may have happened since the last one.
            still_ours(instance)?;
            // Where it is not known to be gone it may serve its sessions, as long as they have their connections.
            if left.sessions == 0 {
                // Nothing to go on with.
            } else if known.is_gone() {
                self.adopt(instance, left.incarnation, Taking::All).await?;
            } else {
                self.adopt(instance, left.incarnation, Taking::Parked).await?;
            }
            if known.has_nothing() && left.connections.is_empty() && left.sessions == 0 {
                let settled = self
                    .0
                    .store
                    .succession()
                    .settle(instance.id, left.incarnation)
                    .await;
                settled.map_err(store_error)?;
            }
            if !is_over {
                continue;
            }
            let buried = self.bury(instance, left).await?;
            if buried && !known.is_gone() && left.sessions > 0 {
                self.adopt(instance, left.incarnation, Taking::All).await?;
            }
            if buried && known.is_gone() {
                let succession = self.0.store.succession();
                let settled = succession.settle(instance.id, left.incarnation).await;
                settled.map_err(store_error)?;
                let leases = succession.bury_leases(instance.id, left.incarnation).await;
                leases.map_err(store_error)?;
            }
        }
        let left = self.0.instances.left_on(instance.id).await?;
        instance.count_left(&left);
        Ok(())
    }

    /// Asks another pooler to hand over.
    async fn ask(&self, instance: &Instance, left: &Left) -> Heard {
        let known = instance.forerunners.lock().get(&left.incarnation).copied();
        if known.is_some_and(Forerunner::is_gone) {
            return Heard::Gone;
        }
        let Some(address) = &left.address else {
            // It has signed off.
            return Heard::Gone;
        };
        let Some(term) = instance.term() else {
            // The instance is not ours any more: there is nothing to ask for.
            return Heard::Silence;
        };
        let peers = &self.0.options.peers;
        let heard = match peers.ask(address, left.incarnation, instance.id, term).await {
            Answer::HandingOver { connections } => Heard::HandingOver { connections },
            Answer::Gone => Heard::Gone,
            Answer::Silence => Heard::Silence,
        };
        if known.is_none_or(|known| known.heard(heard, self.0.clock.uptime()) != known) {
            tracing::info!(instance.id = %instance.id, pooler.incarnation = %left.incarnation, ?heard,
                "asked a pooler for an instance that is ours now");
        }
        heard
    }

    /// Goes on with sessions of another pooler.
    async fn adopt(
        &self,
        instance: &Arc<Instance>,
        from: IncarnationId,
        taking: Taking,
    ) -> Result<(), PoolerError> {
        // In a task of its own: what is ours in the config database must get here, whoever waits for it goes away or not.
        let (pooler, instance) = (self.clone(), Arc::clone(instance));
        let adopting = self.0.tasks.spawn(async move {
            let _until_they_are_here = Arc::clone(&instance.adopting).lock_owned().await;
            let mut pools = Found::new();
            while pooler.adopt_some(&instance, from, taking, &mut pools).await? > 0 {}
            Ok(())
        });
        adopting.await.map_err(|error| internal(&error))?
    }

    async fn adopt_some(
        &self,
        instance: &Arc<Instance>,
        from: IncarnationId,
        taking: Taking,
        pools: &mut Found,
    ) -> Result<usize, PoolerError> {
        let sessions = self.0.store.sessions();
        let taken = sessions
            .take(instance.id, from, self.0.me.incarnation, taking, BATCH)
            .await;
        let taken = taken.map_err(store_error)?;
        let count = taken.len();
        if count > 0 {
            tracing::info!(instance.id = %instance.id, sessions = count, ?taking, "sessions taken over");
        }
        for taken in taken {
            while let Err(error) = self.go_on(instance, &taken, pools).await {
                if !matches!(error, PoolerError::ConfigDatabase) {
                    self.lose(&taken.session, LossCause::ServerChanged, taken.session.pins);
                    break;
                }
                tracing::debug!(%error, "a session that was taken over has to wait");
                let again = self.0.ended.run_until_cancelled(sleep(AGAIN)).await;
                again.ok_or(PoolerError::ShuttingDown)?;
            }
        }
        Ok(count)
    }

    /// Goes on with one session, or remembers that it was lost.
    async fn go_on(
        &self,
        instance: &Arc<Instance>,
        Taken {
            session,
            parked,
            loss,
        }: &Taken,
        pools: &mut Found,
    ) -> Result<(), PoolerError> {
        let pins = match session.mode {
            Mode::Pinned => session.pins.with(Pin::Mode),
            Mode::Auto => session.pins,
        };
        if loss.is_some() {
            self.lose(session, LossCause::Drained, pins);
            return Ok(());
        }
        // One that was let go of had no pins: it was taken back, and that could not be written down.
        if !pins.is_empty() && (!*parked || session.mode == Mode::Auto) {
            self.lose(session, LossCause::PoolerLost, pins);
            return Ok(());
        }
        match self.pool_of(session, pools).await? {
            Some(pool) => {
                let clock = Arc::clone(&self.0.clock);
                let session = Arc::new(Session::from_store(session, pool, Arc::clone(instance), clock));
                self.0.registry.add(&session, 0, |_| false);
            }
            None => self.lose(session, LossCause::ServerChanged, Pins::NONE),
        }
        Ok(())
    }

    fn lose(&self, session: &Row, cause: LossCause, pins: Pins) {
        let name = SessionName {
            server: session.server_id,
            session: session.id,
        };
        tracing::info!(session.id = %session.id, %cause, %pins, "session ended");
        self.0
            .registry
            .lost_elsewhere(name, session.owner_id, Loss { cause, pins });
        self.0.recorder.ended(session.id);
    }

    /// The pool a session lived in, if its server is still registered as it was.
    async fn pool_of(&self, session: &Row, pools: &mut Found) -> Result<Option<Arc<Pool>>, PoolerError> {
        let key = (
            session.server_id,
            session.database.clone(),
            session.parameters.clone(),
        );
        if let Some(found) = pools.get(&key) {
            return Ok(found.clone());
        }
        let registration = self.registration(session.server_id).await?;
        let instances = &self.0.instances;
        let registration = registration.filter(|registration| {
            let server = &registration.server;
            server.username == session.username
                && instances.current(server.instance_id) == instances.current(session.instance_id)
        });
        let pool = registration.map(|registration| {
            let (database, parameters) = (session.database.clone(), session.parameters.clone());
            self.0.pools.get(registration, database, parameters)
        });
        pools.insert(key, pool.clone());
        Ok(pool)
    }

    /// Ends the connections of a pooler that is gone, or does not answer. True where none is left.
    async fn bury(&self, instance: &Arc<Instance>, left: &Left) -> Result<bool, PoolerError> {
        let mut by_server: HashMap<ServerId, Vec<Connection>> = HashMap::new();
        for connection in &left.connections {
            by_server
                .entry(connection.server_id)
                .or_default()
                .push(*connection);
        }
        let mut all = true;
        for (server, connections) in by_server {
            match self.end_connections(instance, server, &connections).await {
                Ok(gone) => {
                    all &= gone.len() == connections.len();
                    let buried = self.0.store.succession().bury(left.incarnation, &gone).await;
                    buried.map_err(store_error)?;
                }
                Err(error) => {
                    all = false;
                    tracing::warn!(instance.id = %instance.id, %error, connections = connections.len(),
                        "connections of another pooler cannot be looked at, and are counted");
                }
            }
        }
        Ok(all)
    }

    /// Ends connections under the role of a server. Returns those that are gone.
    async fn end_connections(
        &self,
        instance: &Arc<Instance>,
        server: ServerId,
        connections: &[Connection],
    ) -> Result<Vec<Connection>, PoolerError> {
        let Some(registration) = self.registration(server).await? else {
            return Err(PoolerError::NotFound {
                resource: format!("servers/{server}"),
            });
        };
        let (server, credential) = (registration.server, registration.credential);
        let instances = &self.0.instances;
        if instances.current(server.instance_id) != instances.current(instance.id) {
            // It leads elsewhere by now, where they are not.
            return Err(PoolerError::NotFound {
                resource: format!("servers/{}", server.id),
            });
        }
        // First in the search path, whatever the role or the database has it set to.
        let parameters = vec![("search_path".to_owned(), "pg_catalog".to_owned())];
        let connector = &self.0.connector;
        let config = connector
            .prepare(&server, credential.as_ref(), None, parameters)
            .await?;
        let claim = Claim {
            user: UserId::from_uuid(Uuid::nil()),
            class: Class::Monitoring,
            count: 1,
            holder: "a look at what another pooler left".to_owned(),
            pool: None,
        };
        let Some(slot) = instance.slots.look(claim, true) else {
            return Ok(Vec::new());
        };
        let dialed = self.dial(config, slot, Arc::clone(instance), server.id).await?;
        let mut untaken = match dialed {
            Dialed::Here(untaken, _) => untaken,
            Dialed::Elsewhere(_) => return Ok(Vec::new()),
        };
        // Untaken, so that it is closed as it should be wherever this ends.
        let gone = match untaken.connection() {
            Some(connection) => end(connection, connections).await,
            None => Ok(Vec::new()),
        };
        untaken.take().close().await;
        gone
    }

    /// Fetches a session that this pooler does not hold: from one that let go of it or is gone, if the instance is ours or
    /// can be.
    pub(super) async fn fetch(&self, name: SessionName, caller: UserId) -> Result<Arc<Session>, PoolerError> {
        for _ in 0..MOST_LOOKS {
            if let Some(session) = self.look_for(name, caller).await? {
                return Ok(session);
            }
            // It was on its way at that moment.
        }
        Err(PoolerError::Moved { owner: None })
    }

    /// Nothing where the session was moving while it was looked for.
    async fn look_for(&self, name: SessionName, caller: UserId) -> Result<Option<Arc<Session>>, PoolerError> {
        let missing = || PoolerError::NotFound {
            resource: name.to_string(),
        };
        let sessions = self.0.store.sessions();
        let whereabouts =
            |found: Result<Option<_>, StoreError>| found.map_err(store_error)?.ok_or_else(missing);
        let found: store::sessions::Whereabouts = whereabouts(sessions.whereabouts(name.session).await)?;
        if found.owner_id != caller {
            return Err(missing());
        }
        if found.holder == self.0.me.incarnation && found.parked {
            // We let go of it, and nobody took it.
            let instance = self.0.instances.own(found.instance_id).await?;
            self.adopt(&instance, found.holder, Taking::Parked).await?;
            return self.0.registry.find(name, caller);
        }
        if found.holder == self.0.me.incarnation {
            // What is ours is in the registry, is just being taken over, or has just ended.
            if let Some(instance) = self.0.instances.known(found.instance_id) {
                let _they_are_here = instance.adopting.lock().await;
            }
            return self.0.registry.find(name, caller);
        }
        let instance = self.0.instances.own(found.instance_id).await?;
        {
            let _one_at_a_time = instance.succeeding.lock().await;
            // Whoever was before us may have brought it.
            if let Some(session) = self.0.registry.find(name, caller)? {
                return Ok(Some(session));
            }
            self.succeed_alone_at(&instance).await?;
        }
        if let Some(session) = self.0.registry.find(name, caller)? {
            return Ok(Some(session));
        }
        let holder = instance.forerunners.lock().get(&found.holder).copied();
        match holder {
            Some(holder) if holder.answers() => Err(PoolerError::Moved {
                owner: self.pooler_of(&instance, found.holder).await?,
            }),
            Some(_) => Err(PoolerError::HolderSilent),
            None => Ok(None),
        }
    }

    async fn pooler_of(
        &self,
        instance: &Instance,
        holder: IncarnationId,
    ) -> Result<Option<PoolerId>, PoolerError> {
        let left = self.0.instances.left_on(instance.id).await?;
        let holder = left.into_iter().find(|left| left.incarnation == holder);
        Ok(holder.and_then(|holder| holder.pooler_id))
    }
}

fn still_ours(instance: &Instance) -> Result<(), PoolerError> {
    if instance.is_ours() {
        Ok(())
    } else {
        Err(PoolerError::Moved { owner: None })
    }
}

/// Tells connections of one's own role to end, and waits a while. Returns those that are gone.
async fn end(
    connection: &mut pgconn::Connection,
    connections: &[Connection],
) -> Result<Vec<Connection>, PoolerError> {
    let wanted: Vec<String> = connections
        .iter()
        .map(|one| {
            let micros = one.backend_start.unix_timestamp_nanos() / 1000;
            format!("({},{micros})", one.backend_pid)
        })
        .collect();
    let pids: Vec<String> = connections
        .iter()
        .map(|one| one.backend_pid.to_string())
        .collect();
    // Who a pid belongs to now is told by when its backend started. Of another role's that is not shown: it may be the one.
    let sql = format!(
        "SELECT coalesce(string_agg(there.pid::text, ','), '') FROM (SELECT a.pid, \
         CASE WHEN a.backend_start IS NOT NULL THEN pg_terminate_backend(a.pid) END \
         FROM pg_stat_get_activity(NULL) AS a WHERE a.pid IN ({}) AND (a.backend_start IS NULL OR \
         (a.pid, round(date_part('epoch', a.backend_start)::numeric(20,6) * 1000000)::bigint) IN ({}))) AS there",
        pids.join(","),
        wanted.join(",")
    );
    let give_up = Instant::now() + ENDING;
    loop {
        let row = one_row(connection, &sql, drop).await?;
        let there: Vec<i32> = text(&row, 0)
            .split(',')
            .filter_map(|pid| pid.parse().ok())
            .collect();
        if there.is_empty() || Instant::now() >= give_up {
            let gone = connections.iter().filter(|one| !there.contains(&one.backend_pid));
            return Ok(gone.copied().collect());
        }
        sleep(LOOK).await;
    }
}
