//! The main job, shown: starts a deployment on this machine, runs each step and says what came of it.
//! `script/demo` builds and runs this program.
//!
//! Everything it starts ends with it: at the end, at the first step that fails, on Ctrl-C, and when it is
//! killed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose output is what it is for"
)]

use std::process::ExitCode;
use std::time::Instant;

use e2e::main_job::{MainJob, STEPS};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
Usage: script/demo [--keep]

Starts PostgreSQL (a config database and a target), a pooler, a worker, two API instances and nginx on free
ports of 127.0.0.1, and runs the main job on them. Ends with status 0 when every step succeeded.

  --keep   leave everything running afterwards, until Ctrl-C, and say how to reach it
  --help   this text";

#[tokio::main]
async fn main() -> ExitCode {
    let mut keep = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--keep" => keep = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("script/demo: {other} is not an option\n\n{USAGE}");
                return ExitCode::from(64);
            }
        }
    }
    // Dropping the job, which both ends of the race do, stops everything it started.
    tokio::select! {
        code = run(keep) => code,
        name = interrupted() => {
            eprintln!("\n{name}: stopping everything");
            ExitCode::from(130)
        }
    }
}

async fn run(keep: bool) -> ExitCode {
    println!("Starting PostgreSQL twice, a pooler, a worker, API instances A and B, and nginx ...");
    let begun = Instant::now();
    let mut job = MainJob::start().await;
    println!(
        "Everything serves after {:.1} s.\n",
        begun.elapsed().as_secs_f64()
    );
    for (number, step) in (1..).zip(STEPS) {
        let begun = Instant::now();
        let outcome = job.run(step).await;
        let took = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(sentence) => println!("{number:>2}. {}  ({took:.1} s)\n    ok: {sentence}", step.title),
            Err(error) => {
                println!(
                    "{number:>2}. {}  ({took:.1} s)\n    FAILED: {error:#}",
                    step.title
                );
                show_logs(&job);
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "\nAll {} steps succeeded in {:.1} s.",
        STEPS.len(),
        begun.elapsed().as_secs_f64()
    );
    if keep {
        print_how_to_reach(&job);
        std::future::pending::<()>().await;
    }
    println!("Stopping everything.");
    ExitCode::SUCCESS
}

fn print_how_to_reach(job: &MainJob) {
    let world = job.world();
    let url = world.url();
    let (username, password) = job.login();
    let server = job.server().unwrap_or_default();
    let pgmoor = harness::pgmoor_binary();
    let pgmoor = pgmoor.display();
    println!(
        "
Left running until Ctrl-C:
  balancer   {url}
  API A, B   {}
  user       {username}
  password   {password}
  server     {server}  (database {})
  target     {}

With the client of pgmoor:
  echo {password} | {pgmoor} login --server-url {url} --user {username} --password-stdin
  {pgmoor} sql --server 'Demo target' --command 'SELECT version()'
  {pgmoor} ops list

With buf as a grpcurl (npx @bufbuild/buf curl, or grpcurl -plaintext with the same data):
  buf curl --http2-prior-knowledge --protocol grpc -d '{{\"username\":\"{username}\",\"password\":\"{password}\"}}' \\
    {url}/pgmoor.auth.v1.AuthService/LoginWithPassword
  TOKEN=...   # accessToken of the answer
  buf curl --http2-prior-knowledge --protocol grpc -H \"authorization: Bearer $TOKEN\" \\
    -d '{{\"server\":\"{server}\",\"script\":{{\"sql\":\"SELECT version()\"}}}}' \\
    {url}/pgmoor.query.v1.QueryService/RunQuery",
        world.apis().iter().map(|api| api.url()).collect::<Vec<_>>().join(", "),
        world.target().database().name(),
        world.target().database().url_as(world.target().login()),
    );
}

/// The end of every log, for the reader of a failure.
fn show_logs(job: &MainJob) {
    const LINES: usize = 5;
    for (place, text) in job.world().logs() {
        let lines: Vec<&str> = text.lines().collect();
        let end = &lines[lines.len().saturating_sub(LINES)..];
        if !end.is_empty() {
            eprintln!("\n--- the end of {place}\n{}", end.join("\n"));
        }
    }
}

async fn interrupted() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    }
}
