//! What the audit trail costs: the same calls in a deployment that writes every record, and in one that writes next to none.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use e2e::world::Caller;
use e2e::{Client, World, WorldOptions};
use futures::future::try_join_all;
use rpc::auth::v1::{CreateApiTokenRequest, RevokeApiTokenRequest};
use rpc::query::v1::SessionMode;

use crate::Effort;
use crate::execute::{ACCOUNTS, Job, execute_jobs};
use crate::report::{median, ratio, table, whole};

const CLIENTS: [usize; 3] = [1, 8, 32];
/// The least that can be configured: of the records that come within a minute one is written, the others are counted.
const LEAST: &str = "buffer_records = 1\nflush_interval = \"1min\"\nwhen_full = \"count\"";

/// What one measurement found.
struct Calls {
    /// How many a second.
    rate: f64,
    /// How long each took, in milliseconds.
    times: Vec<f64>,
}

/// One of the two deployments.
struct Side<'a> {
    world: &'a World,
    caller: &'a Caller,
    server: &'a str,
    /// A token that is revoked, to be revoked again.
    api_token: String,
}

pub(crate) async fn measure(
    world: &World,
    caller: &Caller,
    server: &str,
    options: WorldOptions,
    effort: Effort,
) -> anyhow::Result<()> {
    eprintln!("Starting all of it again, with the least of an audit trail ...");
    let least = World::start(WorldOptions {
        audit: Some(LEAST.to_owned()),
        ..options
    })
    .await;
    let least_caller = least.superuser().await;
    let least_server = least.register_target(least_caller.a()).await;
    crate::give_room(&least_caller, &least_server).await?;
    let on = Side::new(world, caller, server).await?;
    let off = Side::new(&least, &least_caller, &least_server).await?;

    println!("## What the audit trail costs\n");
    println!(
        "Calls a second and the time of a call, medians of {} rounds. *Recorded* is the default; *counted* writes one record a",
        effort.execute_rounds
    );
    println!("minute and only counts the others, which is the least that can be configured.\n");
    println!(
        "Execute of a SELECT by primary key leaves two records, RevokeApiToken of a token that is revoked already one.\n"
    );
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let (mut recorded, opened) = on.execute(clients).await?;
        let (mut counted, others) = off.execute(clients).await?;
        rows.push(compare("Execute", &mut recorded, &mut counted, effort).await?);
        for (side, sessions) in [(&on, opened), (&off, others)] {
            for session in sessions {
                side.caller.a().close_session(&session).await?;
            }
        }
        let (mut recorded, mut counted) = (on.revoke(clients)?, off.revoke(clients)?);
        rows.push(compare("RevokeApiToken", &mut recorded, &mut counted, effort).await?);
    }
    let header = [
        "call",
        "clients",
        "counted / s",
        "recorded / s",
        "recorded / counted",
        "counted, median",
        "recorded, median",
        "counted, p99",
        "recorded, p99",
    ];
    table(&header, &rows);
    Ok(())
}

/// Measures one kind of call on both sides, in turns.
async fn compare(
    call: &str,
    recorded: &mut [Job],
    counted: &mut [Job],
    effort: Effort,
) -> anyhow::Result<Vec<String>> {
    let clients = recorded.len();
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 0..effort.execute_rounds {
        eprintln!("Audit, {call}, {clients} clients, round {}", round + 1);
        on.push(timed(recorded, effort.execute_time).await?);
        off.push(timed(counted, effort.execute_time).await?);
    }
    let of = |rounds: &[Calls], value: &dyn Fn(&Calls) -> f64| median(rounds.iter().map(value).collect());
    let milliseconds =
        |rounds: &[Calls], part| format!("{:.2} ms", of(rounds, &|calls| quantile(&calls.times, part)));
    let (on_rate, off_rate) = (of(&on, &|calls| calls.rate), of(&off, &|calls| calls.rate));
    Ok(vec![
        call.to_owned(),
        clients.to_string(),
        whole(off_rate),
        whole(on_rate),
        ratio(on_rate / off_rate),
        milliseconds(&off, 50),
        milliseconds(&on, 50),
        milliseconds(&off, 99),
        milliseconds(&on, 99),
    ])
}

/// Runs every job again and again for a while, after a tenth of the time to warm up.
async fn timed(jobs: &mut [Job], time: Duration) -> anyhow::Result<Calls> {
    run_for(jobs, time / 10).await?;
    let begun = Instant::now();
    let times = run_for(jobs, time).await?;
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 calls")]
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Calls { rate, times })
}

async fn run_for(jobs: &mut [Job], time: Duration) -> anyhow::Result<Vec<f64>> {
    let end = Instant::now() + time;
    let running = jobs.iter_mut().enumerate().map(async |(number, job)| {
        let mut times = Vec::new();
        while Instant::now() < end {
            let began = Instant::now();
            job(1 + (number * 7919 + times.len() * 31) % ACCOUNTS).await?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        anyhow::Ok(times)
    });
    Ok(try_join_all(running).await?.concat())
}

/// The value that so many percent are below.
fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len() * percent / 100)
        .copied()
        .unwrap_or(f64::NAN)
}

impl<'a> Side<'a> {
    async fn new(world: &'a World, caller: &'a Caller, server: &'a str) -> anyhow::Result<Self> {
        let request = CreateApiTokenRequest {
            display_name: "audit bench".to_owned(),
            ..CreateApiTokenRequest::default()
        };
        let made = caller.a().auth().create_api_token(request).await?.into_inner();
        let api_token = made.api_token.context("a token has a name")?.name;
        Ok(Self {
            world,
            caller,
            server,
            api_token,
        })
    }

    async fn execute(&self, clients: usize) -> anyhow::Result<(Vec<Job>, Vec<rpc::query::v1::Session>)> {
        execute_jobs(self.world, self.caller, self.server, SessionMode::Pinned, clients).await
    }

    fn revoke(&self, clients: usize) -> anyhow::Result<Vec<Job>> {
        let token = self.caller.a().token().context("a caller has a token")?;
        let job = || -> Job {
            let client = Client::anonymous(&self.world.apis()[0].url()).with_token(token);
            let name = self.api_token.clone();
            Box::new(move |_| {
                let (client, name) = (client.clone(), name.clone());
                Box::pin(async move {
                    let request = RevokeApiTokenRequest { name };
                    Ok(client.auth().revoke_api_token(request).await.map(drop)?)
                })
            })
        };
        Ok(std::iter::repeat_with(job).take(clients).collect())
    }
}
