//! The first look at what a role may do, as soon as there is a password to look with. Nobody waits for it. What comes in its way
//! leaves it unknown, until a session that only reads is opened, somebody asks, or the schedule of the poolers comes to it.

use std::sync::Arc;
use std::time::Duration;

use rpc::server::v1::{CredentialKind, InspectServerRequest};
use sessions::UserToken;
use store::servers::Server;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::context::Context;

/// Looks at a time.
const TURNS: usize = 4;
/// Looks that go on or wait for their turn. One more is left out.
const MOST: usize = 200;
/// How long a look may take.
const WITHIN: Duration = Duration::from_secs(30);

/// The looks of this instance.
#[derive(Debug)]
pub(crate) struct FirstLooks {
    tasks: TaskTracker,
    turns: Arc<Semaphore>,
}

impl FirstLooks {
    pub(crate) fn new() -> Self {
        Self {
            tasks: TaskTracker::new(),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// Has the pooler that serves the server look at the role of a credential, as whoever gave the password. Not stated: at the
    /// one that read-only sessions of theirs log in as.
    pub(super) fn begin(
        &self,
        api: &Arc<Context>,
        token: &UserToken,
        server: &Server,
        credential: CredentialKind,
    ) {
        if self.tasks.len() >= MOST {
            return;
        }
        let (api, token, turns) = (Arc::clone(api), token.clone(), Arc::clone(&self.turns));
        let (id, instance) = (server.id, server.instance_id);
        self.tasks.spawn(async move {
            let look = async {
                let _turn = turns.acquire().await;
                let request = InspectServerRequest {
                    name: format!("servers/{id}"),
                    credential: credential.into(),
                    ..InspectServerRequest::default()
                };
                timeout(WITHIN, api.sessions.inspect_server(&token, instance, request)).await
            };
            match api.drain.run_until_cancelled(look).await {
                Some(Ok(Err(status))) => {
                    let reason = rpc::error::reason(&status).map_or("", rpc::error::reason_name);
                    tracing::info!(server.id = %id, reason, "what a new role may do is not known yet");
                }
                Some(Err(_)) => tracing::info!(server.id = %id, "what a new role may do is not known yet"),
                Some(Ok(Ok(_))) | None => {}
            }
        });
    }
}
