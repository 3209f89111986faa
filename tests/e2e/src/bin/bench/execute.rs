//! Execute of a primary-key SELECT, next to the server itself and to two bare gRPC hops.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use e2e::world::Caller;
use e2e::{Client, World};
use futures::future::{BoxFuture, try_join_all};
use harness::Connection;
use rpc::query::v1::{ExecuteRequest, Script, SessionMode};

use crate::Effort;
use crate::echo::{self, Echo};
use crate::report::{median, ratio, table, whole};

const SESSIONS: [usize; 3] = [1, 8, 32];
/// Accounts to choose from.
pub(crate) const ACCOUNTS: usize = 100_000;

/// Does one thing again and again on a connection of its own.
pub(crate) type Job = Box<dyn FnMut(usize) -> BoxFuture<'static, anyhow::Result<()>> + Send>;

pub(crate) async fn measure(
    world: &World,
    caller: &Caller,
    server: &str,
    effort: Effort,
) -> anyhow::Result<()> {
    let session = caller.a().open_session(server).await?;
    let (request_bytes, response_bytes) = sizes(caller.a(), &session.name).await?;
    caller.a().close_session(&session).await?;
    let echo = Echo::start(response_bytes).await?;

    println!("## Execute: a SELECT by primary key\n");
    println!(
        "Calls a second, median of {} rounds. *Direct* is tokio-postgres straight to the server.",
        effort.execute_rounds
    );
    println!(
        "*Echo* is two bare gRPC hops in processes of their own with messages of the same size ({response_bytes}"
    );
    println!("bytes back): no TLS, no token, no trace, no log.\n");
    let mut rows = Vec::new();
    for sessions in SESSIONS {
        let (mut direct, mut echoed, mut executed) = (Vec::new(), Vec::new(), Vec::new());
        let mut direct_jobs = direct_jobs(world, sessions).await?;
        let mut echo_jobs = echo_jobs(&echo, sessions, request_bytes).await?;
        let (mut execute_jobs, close) =
            execute_jobs(world, caller, server, SessionMode::Pinned, sessions).await?;
        for round in 0..effort.execute_rounds {
            eprintln!("Execute, {sessions} sessions, round {}", round + 1);
            direct.push(rate(&mut direct_jobs, effort.execute_time).await?);
            echoed.push(rate(&mut echo_jobs, effort.execute_time).await?);
            executed.push(rate(&mut execute_jobs, effort.execute_time).await?);
        }
        for session in close {
            caller.a().close_session(&session).await?;
        }
        let (direct, echoed, executed) = (median(direct), median(echoed), median(executed));
        rows.push(vec![
            sessions.to_string(),
            whole(direct),
            whole(echoed),
            whole(executed),
            ratio(executed / echoed),
            ratio(executed / direct),
            ratio(echoed / direct),
        ]);
    }
    let header = [
        "sessions",
        "direct",
        "echo",
        "pgmoor",
        "pgmoor / echo",
        "pgmoor / direct",
        "echo / direct",
    ];
    table(&header, &rows);
    Ok(())
}

/// Runs every job again and again for a while; calls a second.
pub(crate) async fn rate(jobs: &mut [Job], time: Duration) -> anyhow::Result<f64> {
    // A tenth of the time to warm up.
    run_for(jobs, time / 10).await?;
    let begun = Instant::now();
    let calls = run_for(jobs, time).await?;
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 calls")]
    let calls = calls as f64;
    Ok(calls / begun.elapsed().as_secs_f64())
}

async fn run_for(jobs: &mut [Job], time: Duration) -> anyhow::Result<usize> {
    let end = Instant::now() + time;
    let running = jobs.iter_mut().enumerate().map(async |(number, job)| {
        let mut calls = 0;
        while Instant::now() < end {
            job(1 + (number * 7919 + calls * 31) % ACCOUNTS).await?;
            calls += 1;
        }
        anyhow::Ok(calls)
    });
    Ok(try_join_all(running).await?.into_iter().sum())
}

pub(crate) fn sql(account: usize) -> String {
    format!("SELECT abalance FROM sales.pgbench_accounts WHERE aid = {account}")
}

pub(crate) async fn direct_jobs(world: &World, sessions: usize) -> anyhow::Result<Vec<Job>> {
    let mut connections = Vec::new();
    for _ in 0..sessions {
        connections.push(world.target().database().connect_as(world.target().login()).await);
    }
    Ok(connection_jobs(connections))
}

/// Jobs on connections of their own, in the protocol of PostgreSQL.
pub(crate) fn connection_jobs(connections: Vec<Connection>) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for connection in connections {
        let connection = std::sync::Arc::new(connection);
        jobs.push(Box::new(move |account| {
            let connection = connection.clone();
            Box::pin(async move {
                let rows = connection.simple_query(&sql(account)).await?;
                ensure!(!rows.is_empty(), "no row came");
                Ok(())
            })
        }));
    }
    jobs
}

async fn echo_jobs(echo: &Echo, sessions: usize, request_bytes: usize) -> anyhow::Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    for _ in 0..sessions {
        let channel = echo.connect().await?;
        let message = Bytes::from(vec![b'x'; request_bytes]);
        jobs.push(Box::new(move |_| {
            let (channel, message) = (channel.clone(), message.clone());
            Box::pin(async move {
                let bytes = echo::call(&channel, message).await?;
                ensure!(bytes > 0, "nothing came back");
                Ok(())
            })
        }));
    }
    Ok(jobs)
}

pub(crate) async fn execute_jobs(
    world: &World,
    caller: &Caller,
    server: &str,
    mode: SessionMode,
    sessions: usize,
) -> anyhow::Result<(Vec<Job>, Vec<rpc::query::v1::Session>)> {
    let token = caller.a().token().context("a caller has a token")?.to_owned();
    let (mut jobs, mut opened): (Vec<Job>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..sessions {
        // A connection of its own, as a client on a machine of its own has.
        let client = Client::anonymous(&world.apis()[0].url()).with_token(&token);
        let session = match mode {
            SessionMode::Auto => client.open_auto(server).await?,
            _ => client.open_session(server).await?,
        };
        let name = session.name.clone();
        opened.push(session);
        jobs.push(Box::new(move |account| {
            let (client, name) = (client.clone(), name.clone());
            Box::pin(async move {
                let bytes = execute(&client, request(&name, account)).await?;
                ensure!(bytes > 0, "no event came");
                Ok(())
            })
        }));
    }
    Ok((jobs, opened))
}

fn request(session: &str, account: usize) -> ExecuteRequest {
    ExecuteRequest {
        session: session.to_owned(),
        script: Some(Script {
            sql: sql(account),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    }
}

/// Runs a statement and reads to the end of the stream; bytes of the messages.
async fn execute(client: &Client, request: ExecuteRequest) -> anyhow::Result<usize> {
    let mut stream = client.query().execute(request).await?.into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await? {
        bytes += message.as_bytes().len();
    }
    Ok(bytes)
}

/// How large request and response are, so that the echo carries as much.
async fn sizes(client: &Client, session: &str) -> anyhow::Result<(usize, usize)> {
    use prost::Message as _;

    let collected = client.execute(session, &sql(ACCOUNTS)).await?;
    ensure!(
        collected.errors.is_empty() && !collected.rows.is_empty(),
        "the SELECT gave {collected:?}"
    );
    let request = request(session, ACCOUNTS);
    let request_bytes = request.encoded_len();
    Ok((request_bytes, execute(client, request).await?))
}
