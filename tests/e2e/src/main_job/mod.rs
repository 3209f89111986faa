//! The main job: several API instances behind a load balancer serve one user's settings, query sessions,
//! backups and restores as if they were one, PostgreSQL never sees more connections than its budget, and each does what they may.
//!
//! Each step leaves what the next one needs in [`MainJob`] and says in a sentence what a user would see.

mod access;
mod backup;
mod budget;
mod failover;
mod session;
mod settings;
mod stream;

use anyhow::Context as _;
use futures::future::LocalBoxFuture;

use crate::target::Target;
use crate::world::{Caller, SUPERUSER, Scale};
use crate::{Client, World, WorldOptions};

/// What happens in a step: the sentence that says what came of it.
type Outcome<'a> = LocalBoxFuture<'a, anyhow::Result<String>>;

/// One step of the main job.
pub struct Step {
    /// What is done.
    pub title: &'static str,
    run: for<'a> fn(&'a mut MainJob) -> Outcome<'a>,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step")
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}

/// The steps, in order.
pub const STEPS: &[Step] = &[
    Step {
        title: "log in through nginx",
        run: |job| Box::pin(settings::log_in(job)),
    },
    Step {
        title: "import a pgAdmin servers.json",
        run: |job| Box::pin(settings::import_servers(job)),
    },
    Step {
        title: "write a setting through A, read it through B",
        run: |job| Box::pin(settings::write_here_read_there(job)),
    },
    Step {
        title: "one transaction through both instances",
        run: |job| Box::pin(session::one_transaction(job)),
    },
    Step {
        title: "stream 1,000,000 rows to a slow reader",
        run: |job| Box::pin(stream::million_rows(job)),
    },
    Step {
        title: "kill -9 A in the middle of a transaction",
        run: |job| Box::pin(failover::kill_in_transaction(job)),
    },
    Step {
        title: "cancel a statement from the other instance",
        run: |job| Box::pin(session::cancel_from_elsewhere(job)),
    },
    Step {
        title: "open more sessions than the budget allows",
        run: |job| Box::pin(budget::exceed(job)),
    },
    Step {
        title: "back up a schema, drop it, restore it",
        run: |job| Box::pin(backup::round_trip(job)),
    },
    Step {
        title: "read the operation's log from the other instance",
        run: |job| Box::pin(backup::read_log(job)),
    },
    Step {
        title: "share the server with a colleague who may read",
        run: |job| Box::pin(access::share_to_read(job)),
    },
    Step {
        title: "let the colleague write for a while",
        run: |job| Box::pin(access::write_for_a_while(job)),
    },
];

/// A world in which the main job happens, and what its steps have found so far.
#[derive(Debug)]
pub struct MainJob {
    world: World,
    caller: Option<Caller>,
    server: Option<String>,
    restore: Option<String>,
    colleague: Option<access::Colleague>,
}

impl MainJob {
    /// Starts a world of its own: the job kills an instance. The target has pgbench's tables in two schemas,
    /// 100,000 accounts in one and 1,000,000 in the other.
    pub async fn start() -> Self {
        let world = World::start(WorldOptions {
            scale: Some(Scale {
                sales: 1,
                archive: 10,
            }),
            ..WorldOptions::default()
        })
        .await;
        Self {
            world,
            caller: None,
            server: None,
            restore: None,
            colleague: None,
        }
    }

    /// Runs a step and returns what came of it.
    ///
    /// # Errors
    /// Why what should have happened did not.
    pub async fn run(&mut self, step: &Step) -> anyhow::Result<String> {
        (step.run)(self).await
    }

    /// Where it happens.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The user's name and password.
    #[must_use]
    pub fn login(&self) -> (&str, &str) {
        (SUPERUSER, self.world.superuser_password())
    }

    /// The server that was imported.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    fn target(&self) -> &Target {
        self.world.target()
    }

    fn caller(&self) -> anyhow::Result<&Caller> {
        self.caller.as_ref().context("nobody has logged in")
    }

    fn a(&self) -> anyhow::Result<Client> {
        Ok(self.caller()?.a().clone())
    }

    fn b(&self) -> anyhow::Result<Client> {
        Ok(self.caller()?.b().clone())
    }

    fn balanced(&self) -> anyhow::Result<Client> {
        Ok(self.caller()?.balanced.clone())
    }

    fn registered(&self) -> anyhow::Result<String> {
        self.server.clone().context("no server is registered")
    }
}
