//! AUTO sessions: next to PINNED ones, what a change of hands costs, how fast they open, and PgBouncer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::backends::client_backends;
use e2e::world::{Caller, set_budget, set_limits};
use e2e::{Client, World};
use futures::future::{try_join, try_join_all};
use harness::{Endpoint, PgBouncer};
use rpc::query::v1::{Session, SessionMode};
use rpc::server::v1::InstanceLimits;

use crate::execute::{Job, connection_jobs, direct_jobs, execute_jobs, rate, sql};
use crate::report::{median, ratio, table, whole};
use crate::{BUDGET, Effort};

const SESSIONS: [usize; 3] = [1, 8, 32];
/// Backends that clients share when there are too few.
const FEW: usize = 8;
const CLIENTS: usize = 32;
/// Calls that are made for a median.
const CALLS: usize = 300;
/// Sessions opened at a time.
const OPENING: usize = 8;

pub(crate) async fn measure(
    world: &World,
    caller: &Caller,
    server: &str,
    effort: Effort,
) -> anyhow::Result<()> {
    next_to_pinned(world, caller, server, effort).await?;
    change_of_hands(world, caller, server).await?;
    saturated(world, caller, server, effort).await?;
    opening(caller, server, effort).await
}

async fn close(caller: &Caller, sessions: &[Session]) -> anyhow::Result<()> {
    for session in sessions {
        caller.a().close_session(session).await?;
    }
    Ok(())
}

async fn next_to_pinned(world: &World, caller: &Caller, server: &str, effort: Effort) -> anyhow::Result<()> {
    println!("## AUTO next to PINNED\n");
    println!(
        "Execute of the same SELECT, calls a second, median of {} rounds. There are backends for all: no change of hands.\n",
        effort.execute_rounds
    );
    let mut rows = Vec::new();
    for sessions in SESSIONS {
        let (mut pinned, mut shared) = (Vec::new(), Vec::new());
        let (mut pinned_jobs, opened) =
            execute_jobs(world, caller, server, SessionMode::Pinned, sessions).await?;
        let (mut shared_jobs, others) =
            execute_jobs(world, caller, server, SessionMode::Auto, sessions).await?;
        for round in 0..effort.execute_rounds {
            eprintln!("AUTO and PINNED, {sessions} sessions, round {}", round + 1);
            pinned.push(rate(&mut pinned_jobs, effort.execute_time).await?);
            shared.push(rate(&mut shared_jobs, effort.execute_time).await?);
        }
        close(caller, &opened).await?;
        close(caller, &others).await?;
        let (pinned, shared) = (median(pinned), median(shared));
        rows.push(vec![
            sessions.to_string(),
            whole(pinned),
            whole(shared),
            ratio(shared / pinned),
        ]);
    }
    table(&["sessions", "PINNED", "AUTO", "AUTO / PINNED"], &rows);
    Ok(())
}

/// The median time of a call, in milliseconds, of clients that take turns.
async fn in_turn(clients: &[(Client, Session)]) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for call in 0..CALLS {
        for (client, session) in clients {
            let began = Instant::now();
            let run = client.execute(&session.name, &sql(call + 1)).await?;
            ensure!(!run.rows.is_empty(), "no row came: {run:?}");
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok(median(times))
}

async fn change_of_hands(world: &World, caller: &Caller, server: &str) -> anyhow::Result<()> {
    eprintln!("Changes of hands");
    println!("## What a change of hands costs\n");
    println!("The median time of an Execute, {CALLS} for each session, one at a time.\n");
    let client = caller.a().clone();
    let alone = client.open_auto(server).await?;
    let kept = in_turn(&[(client.clone(), alone.clone())]).await?;
    close(caller, &[alone]).await?;

    let one = InstanceLimits {
        pool_size: Some(1),
        ..InstanceLimits::default()
    };
    set_limits(caller.a(), server, one).await?;
    let (first, second) = try_join(client.open_auto(server), client.open_auto(server)).await?;
    settle(world, 2).await?;
    let same = in_turn(&[(client.clone(), first.clone()), (client.clone(), second.clone())]).await?;
    set_limits(caller.a(), server, InstanceLimits::default()).await?;

    let other = world.create_user().await;
    let theirs = world.register_target(other.a()).await;
    // Their server becomes part of this instance with its first connection.
    let session = other.a().open_session(&theirs).await?;
    other.a().close_session(&session).await?;
    set_budget(caller.a(), server, 1, 0).await?;
    let third = other.a().open_auto(&theirs).await?;
    settle(world, 1).await?;
    let people = in_turn(&[(client, first.clone()), (other.a().clone(), third.clone())]).await?;
    set_budget(caller.a(), server, BUDGET, 5).await?;
    close(caller, &[first, second]).await?;
    close(&other, &[third]).await?;
    let row = |what: &str, time: f64| vec![what.to_owned(), format!("{time:.2} ms"), ratio(time / kept)];
    table(
        &["each Execute", "median", "of the first"],
        &[
            row("on the session's own backend", kept),
            row("after a change of hands, same user: look and `DISCARD ALL`", same),
            row(
                "after a change of hands, other user: look, close and connect",
                people,
            ),
        ],
    );
    Ok(())
}

/// Waits until backends that a new limit has no place for are gone.
async fn settle(world: &World, most: i64) -> anyhow::Result<()> {
    let connection = world.target().cluster().connect().await;
    for _ in 0..100 {
        if client_backends(&connection).await <= most {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the limits take no effect")
}

/// Calls a second, and the times they took in milliseconds.
async fn times(jobs: &mut [Job], time: Duration) -> anyhow::Result<(f64, Vec<f64>)> {
    let begun = Instant::now();
    let end = begun + time;
    let running = jobs.iter_mut().enumerate().map(async |(number, job)| {
        let mut times = Vec::new();
        while Instant::now() < end {
            let began = Instant::now();
            job(1 + number * 7919 + times.len()).await?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        anyhow::Ok(times)
    });
    let times: Vec<f64> = try_join_all(running).await?.into_iter().flatten().collect();
    let calls = u32::try_from(times.len()).context("so many calls")?;
    Ok((f64::from(calls) / begun.elapsed().as_secs_f64(), times))
}

fn at(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let place = (times.len() as f64 * part) as usize;
    times
        .get(place.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

async fn saturated(world: &World, caller: &Caller, server: &str, effort: Effort) -> anyhow::Result<()> {
    println!("## {CLIENTS} clients on {FEW} backends, next to PgBouncer\n");
    println!(
        "The same SELECT, median of {} rounds. *Direct* has a backend for each client. PgBouncer pools transactions and is",
        effort.execute_rounds
    );
    println!(
        "spoken to in PostgreSQL's own protocol without TLS; pgmoor in gRPC, with TLS between API and pooler, a token, a trace"
    );
    println!(
        "and a log line for each call, and with a look and a reset between any two sessions. The protocols differ, so compare"
    );
    println!("each with its own use.\n");
    let bouncer = PgBouncer::start(world.target().cluster().port(), world.target().login(), FEW).await;
    let few = InstanceLimits {
        pool_size: Some(i32::try_from(FEW)?),
        ..InstanceLimits::default()
    };
    set_limits(caller.a(), server, few).await?;
    let (shared, opened) = execute_jobs(world, caller, server, SessionMode::Auto, CLIENTS).await?;
    let mut contenders: Vec<(&str, Vec<Job>)> = vec![("direct", direct_jobs(world, CLIENTS).await?)];
    if let Some(bouncer) = &bouncer {
        let endpoint = Endpoint {
            port: bouncer.port(),
            ..world.target().cluster().endpoint().clone()
        };
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            let (login, database) = (world.target().login(), world.target().database().name());
            connections.push(endpoint.connect(login, database).await);
        }
        contenders.push(("PgBouncer", connection_jobs(connections)));
    } else {
        println!("PgBouncer is not installed here.\n");
    }
    contenders.push(("pgmoor, AUTO sessions", shared));
    let mut measured: Vec<(Vec<f64>, Vec<f64>)> = contenders.iter().map(|_| Default::default()).collect();
    for round in 0..effort.execute_rounds {
        eprintln!("{CLIENTS} clients on {FEW} backends, round {}", round + 1);
        for ((_, jobs), (rates, all)) in contenders.iter_mut().zip(&mut measured) {
            let (rate, times) = times(jobs, effort.execute_time).await?;
            rates.push(rate);
            all.extend(times);
        }
    }
    close(caller, &opened).await?;
    set_limits(caller.a(), server, InstanceLimits::default()).await?;
    let direct = measured
        .first()
        .map_or(f64::NAN, |(rates, _)| median(rates.clone()));
    let rows: Vec<Vec<String>> = contenders
        .iter()
        .zip(measured)
        .map(|((name, _), (rates, mut all))| {
            let rate = median(rates);
            vec![
                (*name).to_owned(),
                whole(rate),
                ratio(rate / direct),
                format!("{:.1} ms", at(&mut all, 0.5)),
                format!("{:.1} ms", at(&mut all, 0.99)),
            ]
        })
        .collect();
    table(&["", "calls / s", "of direct", "median", "p99"], &rows);
    Ok(())
}

async fn opening(caller: &Caller, server: &str, effort: Effort) -> anyhow::Result<()> {
    println!("## Opening sessions\n");
    println!("Sessions opened and closed again a second, {OPENING} at a time.\n");
    let mut rows = Vec::new();
    for (name, auto) in [("PINNED", false), ("AUTO", true)] {
        eprintln!("Opening {name} sessions");
        let begun = Instant::now();
        let end = begun + effort.execute_time;
        let opening = (0..OPENING).map(async |_| {
            let mut opened = 0_u32;
            while Instant::now() < end {
                let session = if auto {
                    caller.a().open_auto(server).await?
                } else {
                    caller.a().open_session(server).await?
                };
                caller.a().close_session(&session).await?;
                opened += 1;
            }
            anyhow::Ok(opened)
        });
        let opened: u32 = try_join_all(opening).await?.into_iter().sum();
        rows.push(vec![
            name.to_owned(),
            whole(f64::from(opened) / begun.elapsed().as_secs_f64()),
        ]);
    }
    table(&["mode", "opened and closed / s"], &rows);
    Ok(())
}
