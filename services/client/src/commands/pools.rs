//! `pools`: what PgBouncer's console shows and does.

mod records;

use clap::{Args, Subcommand};
use rpc::pool::v1::{
    DrainPoolerRequest, KillBackendRequest, KillSessionRequest, ListBackendsRequest, ListBudgetsRequest,
    ListClientsRequest, ListPoolersRequest, ListPoolsRequest, ListStatsRequest, ListWaitersRequest,
    PauseInstanceRequest, ReconnectInstanceRequest, ResumeInstanceRequest,
};

use super::instances::named;
use crate::context::Context;
use crate::error::ClientError;

/// Pools. Without a command, as PgBouncer's SHOW POOLS.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  pgmoor pools
  pgmoor pools backends --instance instances/…
  pgmoor pools pause instances/…
  pgmoor pools kill-session servers/…/sessions/…

A member sees their own. What changes something, stats, poolers and waiters are for administrators.")]
pub struct Pools {
    /// Show this instance alone, instances/{instance} or its id
    #[arg(long, global = true, value_name = "INSTANCE")]
    instance: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to show or to do.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Sessions, scripts and who waits for a connection, as SHOW CLIENTS
    Clients,
    /// Connections to PostgreSQL, as SHOW SERVERS
    Backends,
    /// What was done in each database, as SHOW STATS
    Stats,
    /// Connection budgets and what is given out of them
    Budgets,
    /// The poolers
    Poolers,
    /// Who waits for a connection
    Waiters,
    /// Give no backend of an instance to anybody, until it is resumed
    Pause {
        /// instances/{instance}, or its id
        name: String,
    },
    /// End a pause
    Resume {
        /// instances/{instance}, or its id
        name: String,
    },
    /// Replace the backends of an instance as they come free
    Reconnect {
        /// instances/{instance}, or its id
        name: String,
    },
    /// Have a pooler hand over to others and take nothing new, until its process is ended
    Drain {
        /// poolers/{pooler}, or its number
        name: String,
    },
    /// End a session, whosever it is
    KillSession {
        /// servers/{server}/sessions/{session}
        name: String,
    },
    /// Close a connection to PostgreSQL, whoever has it
    KillBackend {
        /// instances/{instance}/backends/{pid}
        name: String,
    },
}

impl Pools {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let instance = self
            .instance
            .map(|name| named("instances", name))
            .unwrap_or_default();
        match self.command {
            None => list_pools(context, &instance).await,
            Some(Command::Clients) => list_clients(context, &instance).await,
            Some(Command::Backends) => list_backends(context, &instance).await,
            Some(Command::Stats) => list_stats(context, &instance).await,
            Some(Command::Budgets) => list_budgets(context, &instance).await,
            Some(Command::Poolers) => list_poolers(context).await,
            Some(Command::Waiters) => list_waiters(context, &instance).await,
            Some(command) => command.carry_out(context).await,
        }
    }
}

impl Command {
    async fn carry_out(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.pools();
        match self {
            Self::Pause { name } => {
                let name = named("instances", name);
                let request = PauseInstanceRequest { name };
                let call = async || client.clone().pause_instance(request.clone()).await;
                let answer = context.read(call).await?;
                note_silent(context, &answer.unreachable_poolers, "they know within a lease");
                context.notes.line("paused");
            }
            Self::Resume { name } => {
                let name = named("instances", name);
                let request = ResumeInstanceRequest { name };
                let call = async || client.clone().resume_instance(request.clone()).await;
                let answer = context.read(call).await?;
                note_silent(context, &answer.unreachable_poolers, "they know within a lease");
                context.notes.line("resumed");
            }
            Self::Reconnect { name } => {
                let name = named("instances", name);
                let request = ReconnectInstanceRequest { name };
                let call = async || client.clone().reconnect_instance(request.clone()).await;
                let answer = context.read(call).await?;
                note_silent(context, &answer.unreachable_poolers, "their backends stay");
                let backends = answer.backends;
                context
                    .notes
                    .line(&format!("{backends} backends are closed as they come free"));
            }
            Self::Drain { name } => {
                let name = named("poolers", name);
                let request = DrainPoolerRequest { name };
                let call = async || client.clone().drain_pooler(request.clone()).await;
                context.read(call).await?;
                context
                    .notes
                    .line("drains; end its process when it has no sessions any more");
            }
            Self::KillSession { name } => {
                let request = KillSessionRequest { name };
                let call = async || client.clone().kill_session(request.clone()).await;
                context.read(call).await?;
                context.notes.line("killed");
            }
            Self::KillBackend { name } => {
                let request = KillBackendRequest { name };
                let call = async || client.clone().kill_backend(request.clone()).await;
                context.read(call).await?;
                context.notes.line("killed");
            }
            // Carried out above.
            Self::Clients | Self::Backends | Self::Stats | Self::Budgets | Self::Poolers | Self::Waiters => {}
        }
        Ok(())
    }
}

/// Says which poolers did not answer, and what follows.
fn note_silent(context: &mut Context, poolers: &[String], meaning: &str) {
    if !poolers.is_empty() {
        let poolers = poolers.join(", ");
        context
            .notes
            .line(&format!("no answer from {poolers}: {meaning}"));
    }
}

async fn list_pools(context: &mut Context, instance: &str) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListPoolsRequest {
            page_size,
            page_token,
            instance: instance.to_owned(),
        };
        let page = context
            .read(async || client.clone().list_pools(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.pools, page.next_page_token))
    };
    let pools = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&pools).await
}

async fn list_clients(context: &mut Context, instance: &str) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListClientsRequest {
            page_size,
            page_token,
            instance: instance.to_owned(),
        };
        let page = context
            .read(async || client.clone().list_clients(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.clients, page.next_page_token))
    };
    let clients = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&clients).await
}

async fn list_backends(context: &mut Context, instance: &str) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListBackendsRequest {
            page_size,
            page_token,
            instance: instance.to_owned(),
        };
        let page = context
            .read(async || client.clone().list_backends(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.backends, page.next_page_token))
    };
    let backends = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&backends).await
}

async fn list_stats(context: &mut Context, instance: &str) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListStatsRequest {
            page_size,
            page_token,
            instance: instance.to_owned(),
        };
        let page = context
            .read(async || client.clone().list_stats(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.stats, page.next_page_token))
    };
    let stats = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&stats).await
}

async fn list_budgets(context: &mut Context, instance: &str) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListBudgetsRequest {
            page_size,
            page_token,
            instance: instance.to_owned(),
        };
        let page = context
            .read(async || client.clone().list_budgets(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.budgets, page.next_page_token))
    };
    let budgets = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&budgets).await
}

async fn list_poolers(context: &mut Context) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListPoolersRequest {
            page_size,
            page_token,
        };
        let page = context
            .read(async || client.clone().list_poolers(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.poolers, page.next_page_token))
    };
    let poolers = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&poolers).await
}

async fn list_waiters(context: &mut Context, instance: &str) -> Result<(), ClientError> {
    let client = context.connection()?.pools();
    let mut silent = Vec::new();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListWaitersRequest {
            page_size,
            page_token,
            instance: instance.to_owned(),
        };
        let page = context
            .read(async || client.clone().list_waiters(request.clone()).await)
            .await?;
        silent = page.unreachable_poolers;
        Ok((page.waiters, page.next_page_token))
    };
    let waiters = context.pages(None, page).await?;
    note_silent(context, &silent, "what they have is not shown");
    context.show_list(&waiters).await
}
