//! From a registered server to a backend: whose it is, where it may go, within which budget, and what answered.

use std::sync::Arc;
use std::time::Duration;

use domain::access::Access;
use domain::credential::CredentialKind;
use domain::id::{InstanceId, ServerId, UserId};
use domain::limits::Limit;
use domain::name::Identifier;
use domain::random::bytes;
use pgconn::ConnectConfig;
use store::instances::{Facts, RecogniseError, Recognised};
use store::servers::{Credential, Server};
use store::succession::Connection;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::Pooler;
use super::listing::lend_to_other;
use crate::backend::{Backend, Untaken};
use crate::connect::connect;
use crate::error::{PoolerError, TargetError};
use crate::facts::{self, InstanceFacts};
use crate::instances::Instance;
use crate::ledger::{Claim, Class};
use crate::pools::Registration;
use crate::slots::Slot;
use crate::status::{internal, store_error};

/// How long an instance has to answer our own questions.
const QUESTIONS: Duration = Duration::from_secs(10);
/// How often an instance may turn out to be another one while we connect.
const MOST_MERGES: usize = 3;

/// What a backend is wanted for.
pub(super) struct Wish<'a> {
    /// Who it is for.
    pub(super) user: UserId,
    pub(super) server: &'a Server,
    /// What it logs in with.
    pub(super) credential: Credential,
    pub(super) database: Option<&'a Identifier>,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) class: Class,
    /// What to call it among the caller's connections.
    pub(super) holder: String,
    pub(super) queue_timeout: Duration,
    /// Try even if the server is known to be down: to find out is what it is for.
    pub(super) insist: bool,
}

/// A backend and what it said.
pub(super) struct Opened {
    pub(super) backend: Backend,
    pub(super) facts: InstanceFacts,
    pub(super) instance: Arc<Instance>,
}

/// What a connection led to.
pub(super) enum Dialed {
    /// To the instance that was meant.
    Here(Untaken, InstanceFacts),
    /// To another one, whose budget it belongs to; it is closed.
    Elsewhere(InstanceId),
}

impl Pooler {
    /// What a user logs in with who may go so far.
    pub(super) async fn login(
        &self,
        server: &Server,
        user: UserId,
        access: Access,
    ) -> Result<Credential, PoolerError> {
        let there = self.0.store.servers().credentials(server.id, user).await;
        let there = there.map_err(store_error)?;
        Ok(there.choose(server.policy.credential_mode, access)?)
    }

    /// The credential of a server that is of this kind.
    pub(super) async fn login_of(
        &self,
        server: &Server,
        kind: CredentialKind,
    ) -> Result<Credential, PoolerError> {
        let found = self.0.store.servers().credential(server.id, kind).await;
        found.map_err(store_error)?.ok_or(match kind {
            CredentialKind::Personal(_) => PoolerError::PersonalCredentialMissing,
            CredentialKind::Shared | CredentialKind::ReadOnly => PoolerError::CredentialMissing,
        })
    }

    /// A server as it is registered, and what a user logs in with there who may go so far; nothing where it is not registered
    /// any more.
    pub(super) async fn registration(
        &self,
        server: ServerId,
        user: UserId,
        access: Access,
    ) -> Result<Option<Registration>, PoolerError> {
        let servers = self.0.store.servers();
        let Some(server) = servers.get(server).await.map_err(store_error)? else {
            return Ok(None);
        };
        let there = servers.credentials(server.id, user).await.map_err(store_error)?;
        let credential = there.choose(server.policy.credential_mode, access);
        Ok(Some(Registration { server, credential }))
    }

    /// Opens a backend for the wish, within the budget of whichever instance it turns out to be.
    pub(super) async fn open(&self, wish: Wish<'_>) -> Result<Opened, PoolerError> {
        let began = Instant::now();
        let deadline = began + wish.queue_timeout;
        let _visit = self.visit(&wish);
        let credential = wish.credential.kind;
        let config = self
            .0
            .connector
            .prepare(wish.server, &wish.credential, wish.database, wish.parameters)
            .await?;
        let mut id = wish.server.instance_id;
        for _ in 0..MOST_MERGES {
            let instance = self.0.instances.own(id).await?;
            let limits = instance.limits();
            let deadline = deadline.min(Instant::now() + limits.time(Limit::QueryWaitTimeout));
            if !wish.insist {
                instance.reach.lock().hope(Instant::now())?;
            }
            let claim = Claim {
                user: wish.user,
                class: wish.class,
                count: 1,
                holder: wish.holder.clone(),
                pool: None,
            };
            let acquired = instance.slots.acquire(claim, deadline).await;
            let older = self.0.instances.current(instance.id);
            if acquired.is_err() && older != instance.id && Instant::now() < deadline {
                // It turned out to be another one while we waited.
                id = older;
                continue;
            }
            let slot = acquired?;
            // Much may have happened in the queue.
            self.takes_new()?;
            if !instance.is_ours() {
                self.0.instances.own(id).await?;
            }
            if !wish.insist {
                instance.attempt()?;
            }
            let server = (wish.server.id, credential);
            match self
                .dial(config.clone(), slot, Arc::clone(&instance), server)
                .await?
            {
                Dialed::Here(backend, facts) => {
                    let backend = backend.take();
                    lend_to_other(&backend, &wish.holder, began.elapsed());
                    return Ok(Opened {
                        backend,
                        facts,
                        instance,
                    });
                }
                Dialed::Elsewhere(other) => id = other,
            }
        }
        Err(TargetError::Unreachable {
            reason: "the instance keeps changing its identity".into(),
        }
        .into())
    }

    /// Connects in a task of its own: a caller who goes away must not leave a backend behind that no slot counts.
    pub(super) async fn dial(
        &self,
        mut config: ConnectConfig,
        slot: Slot,
        instance: Arc<Instance>,
        server: (ServerId, CredentialKind),
    ) -> Result<Dialed, PoolerError> {
        let (reply, answer) = oneshot::channel();
        let pooler = self.clone();
        config.connect_timeout = instance.limits().time(Limit::ServerConnectTimeout);
        self.0.tasks.spawn(async move {
            let dialed = Box::pin(pooler.dial_at(config, slot, &instance, server)).await;
            // What nobody waits for any more closes itself.
            let _ = reply.send(dialed);
        });
        answer.await.map_err(|error| internal(&error))?
    }

    async fn dial_at(
        &self,
        config: ConnectConfig,
        mut slot: Slot,
        instance: &Arc<Instance>,
        (server, credential): (ServerId, CredentialKind),
    ) -> Result<Dialed, PoolerError> {
        let patience = instance.limits().time(Limit::ServerConnectTimeout);
        let first = timeout(patience, instance.introduction()).await;
        let first = first.map_err(|_| too_slow())?;
        // Until the connection is recorded: others must be able to say how many of ours they cannot know of.
        let permit = timeout(patience, instance.opening()).await;
        slot.takes_off(permit.map_err(|_| {
            if self.0.recorder.is_behind() {
                PoolerError::ConfigDatabase
            } else {
                too_slow().into()
            }
        })??);
        if slot.is_too_many() {
            // It waits its turn again.
            return Ok(Dialed::Elsewhere(self.0.instances.current(instance.id)));
        }
        let looks = slot.is_look();
        let listed = self.enlist(instance, &slot, server, &config);
        let dialed = Box::pin(dial(config, slot, &self.0.tasks)).await;
        self.note_reach(instance, &dialed);
        let (mut backend, facts) = dialed?;
        backend.list(listed);
        // A look is at what others left, wherever that is, and says nothing of what the instance is.
        if !looks && let Some(other) = self.recognise(instance, server, &facts).await {
            backend.close().await;
            return Ok(Dialed::Elsewhere(other));
        }
        instance.introduced();
        drop(first);
        if !instance.is_ours() {
            // Stopped, or slow for so long that it is somebody else's by now.
            backend.close().await;
            self.0.instances.own(instance.id).await?;
            return Err(PoolerError::ConfigDatabase);
        }
        if let Some(pid) = backend.connection.process_id().filter(|_| !facts.is_pooler) {
            let connection = Connection {
                instance_id: instance.id,
                backend_pid: pid,
                backend_start: facts.backend_start,
                server_id: server,
                credential,
            };
            backend.record(&self.0.recorder, connection);
        }
        Ok(Dialed::Here(Untaken::new(backend), facts))
    }

    /// Notes whether the server could be reached.
    fn note_reach<T>(&self, instance: &Instance, dialed: &Result<T, TargetError>) {
        let mut reach = instance.reach.lock();
        match dialed {
            Ok(_) => reach.succeeded(),
            // Not more for us, but what we have: it is shared until there is more.
            Err(TargetError::TooManyClients { retry_after }) if instance.slots.usage().total() > 1 => {
                instance.slots.lower_ceiling(Instant::now() + *retry_after);
                reach.succeeded();
            }
            Err(error) => {
                if error.is_of_the_server() {
                    tracing::warn!(instance.id = %instance.id, %error, "a server cannot be reached");
                }
                let random = u64::from_le_bytes(bytes(&*self.0.random));
                reach.failed(Instant::now(), error.clone(), random);
            }
        }
    }

    /// Notes what an instance said of itself. Returns the instance it turned out to be, if that is another.
    async fn recognise(
        &self,
        instance: &Arc<Instance>,
        server: ServerId,
        said: &InstanceFacts,
    ) -> Option<InstanceId> {
        let facts = Facts {
            system_identifier: said.system_identifier.clone().filter(|_| !said.is_pooler)?,
            postmaster_start_time: said.postmaster_start_time,
            server_version: said.server_version.clone(),
        };
        if !instance.is_news(&facts) {
            return None;
        }
        match self.0.store.instances().recognise(instance.id, &facts).await {
            Ok(Recognised::Same { absorbed }) => {
                if !absorbed.is_empty() {
                    tracing::info!(instance.id = %instance.id, ?absorbed, "instances are one");
                }
                let merged = !absorbed.is_empty();
                for younger in absorbed {
                    self.0.instances.merge(instance.id, younger);
                }
                instance.note(facts);
                if merged {
                    self.count_again(instance).await;
                }
                None
            }
            Ok(Recognised::MergedInto(other)) => {
                tracing::info!(instance.id = %instance.id, %other, "the instance is another one");
                self.0.instances.merge(other, instance.id);
                Some(other)
            }
            Err(RecogniseError::NotFound) => {
                tracing::info!(instance.id = %instance.id, "the instance was merged meanwhile");
                let server = self.0.store.servers().get(server).await.ok().flatten()?;
                self.0.instances.merge(server.instance_id, instance.id);
                Some(server.instance_id).filter(|other| *other != instance.id)
            }
            Err(RecogniseError::Store(error)) => {
                // It will be tried again with the next connection.
                tracing::warn!(instance.id = %instance.id, %error, "an instance could not be recognised");
                None
            }
        }
    }
}

/// Others were before, and took too long.
fn too_slow() -> TargetError {
    TargetError::Unreachable {
        reason: "connections to it take too long to be made".to_owned(),
    }
}

async fn dial(
    mut config: ConnectConfig,
    slot: Slot,
    tasks: &TaskTracker,
) -> Result<(Backend, InstanceFacts), TargetError> {
    let mut backend = connect(&config, slot, tasks).await?;
    if backend
        .connection
        .parameters()
        .get("server_encoding")
        .is_some_and(|encoding| *encoding == "SQL_ASCII")
    {
        // Such a database holds any bytes, and refuses to give them to a client that insists on UTF-8 (PostgreSQL manual,
        // 24.3.4). Set at start-up, so that no RESET of the user's undoes it.
        let slot = backend.hang_up().await;
        config
            .startup_parameters
            .retain(|(name, _)| name != "client_encoding");
        config
            .startup_parameters
            .push(("client_encoding".to_owned(), "SQL_ASCII".to_owned()));
        backend = connect(&config, slot, tasks).await?;
    }
    match timeout(QUESTIONS, facts::instance(&mut backend.connection)).await {
        Ok(Ok(facts)) => {
            backend.baseline = facts.baseline.clone();
            backend.xact_facts = facts.xact_facts.clone();
            backend.xact_facts.database = config.database.parse().ok().map(Arc::new);
            Ok((backend, facts))
        }
        Ok(Err(error)) => {
            backend.close().await;
            Err(error)
        }
        Err(_) => {
            backend.close().await;
            Err(TargetError::Unreachable {
                reason: "the server did not answer in time".to_owned(),
            })
        }
    }
}
