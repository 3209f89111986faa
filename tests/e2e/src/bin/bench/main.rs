//! How fast pgmoor is next to what it is made of, on this machine: prints the tables of
//! `docs/src/development/performance.md`. `script/bench` builds and runs this program.
//!
//! Everything that is compared runs in one process's lifetime, in interleaved rounds, so that a noisy
//! neighbour hits all alike; the tables have medians over the rounds and ratios of medians.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is what it is for"
)]

mod audit;
mod authentication;
mod echo;
mod execute;
mod report;
mod sessions;
mod sharing;
mod stream;

use std::process::ExitCode;

use e2e::world::{Caller, Scale, set_budget};
use e2e::{World, WorldOptions};
use harness::ClusterOptions;

/// Connections pgmoor may keep to the target: the sessions of the largest run, and some.
const BUDGET: i32 = 120;

const USAGE: &str = "\
Usage: script/bench [--quick] [sessions | authentication | execute | audit | sharing | stream]

Measures sessions, authentication, Execute, the audit trail, shared backends and streaming on this machine and prints Markdown; or
one of them. Takes some minutes.

  --quick  one short round of everything, to see that it works; its numbers mean nothing";

/// How long and how often things are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds of Execute.
    pub(crate) execute_rounds: usize,
    /// Length of each of its measurements.
    pub(crate) execute_time: std::time::Duration,
    /// Rounds of the stream.
    pub(crate) stream_rounds: usize,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Sessions,
    Authentication,
    Execute,
    Audit,
    Sharing,
    Stream,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    let mut effort = Effort {
        execute_rounds: 5,
        execute_time: std::time::Duration::from_secs(3),
        stream_rounds: 5,
    };
    // Not for people: what `echo::Echo` starts.
    if words.next_if_eq("echo").is_some() {
        return echo::serve(words.collect()).await;
    }
    let mut only = None;
    for word in words {
        match word.as_str() {
            "--quick" => {
                effort = Effort {
                    execute_rounds: 1,
                    execute_time: std::time::Duration::from_millis(300),
                    stream_rounds: 1,
                }
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            "sessions" => only = Some(Part::Sessions),
            "authentication" => only = Some(Part::Authentication),
            "execute" => only = Some(Part::Execute),
            "audit" => only = Some(Part::Audit),
            "sharing" => only = Some(Part::Sharing),
            "stream" => only = Some(Part::Stream),
            other => {
                eprintln!("script/bench: {other} is not an option\n\n{USAGE}");
                return ExitCode::from(64);
            }
        }
    }
    match run(effort, only).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("script/bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(effort: Effort, only: Option<Part>) -> anyhow::Result<()> {
    eprintln!("Starting PostgreSQL twice, a pooler, an API instance and nginx ...");
    let options = WorldOptions {
        apis: 1,
        workers: 0,
        target_cluster: ClusterOptions::default()
            .setting("max_connections", "200")
            .setting("shared_buffers", "256MB"),
        scale: Some(Scale {
            sales: 1,
            archive: 10,
        }),
        // As an operator would run it; one line per call is part of what a call costs.
        log_level: "info".to_owned(),
        ..WorldOptions::default()
    };
    let world = World::start(options.clone()).await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    give_room(&caller, &server).await?;

    report::machine(&world).await?;
    let wanted = |part| only.is_none_or(|only| only == part);
    if wanted(Part::Sessions) {
        sessions::measure(&world, &caller, &server).await?;
    }
    if wanted(Part::Authentication) {
        authentication::measure(&world, &caller, effort).await?;
    }
    if wanted(Part::Execute) {
        execute::measure(&world, &caller, &server, effort).await?;
    }
    if wanted(Part::Audit) {
        audit::measure(&world, &caller, &server, options, effort).await?;
    }
    if wanted(Part::Sharing) {
        sharing::measure(&world, &caller, &server, effort).await?;
    }
    if wanted(Part::Stream) {
        stream::measure(&world, &caller, &server, effort).await?;
    }
    Ok(())
}

/// So that the budget is not what is measured.
async fn give_room(caller: &Caller, server: &str) -> anyhow::Result<()> {
    Ok(set_budget(caller.a(), server, BUDGET, 5).await?)
}
