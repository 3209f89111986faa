//! A large result, next to `psql -qAt`.

use std::process::Stdio;
use std::time::Instant;

use anyhow::ensure;
use e2e::memory::GrowthSampler;
use e2e::world::Caller;
use e2e::{Client, World};
use harness::programs::{on_path, postgres_program};
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{ExecuteRequest, Script};

use crate::Effort;
use crate::report::{median, ratio, table, whole};

const ROWS: u32 = 1_000_000;
const SQL: &str = "SELECT * FROM archive.pgbench_accounts";

pub(crate) async fn measure(
    world: &World,
    caller: &Caller,
    server: &str,
    effort: Effort,
) -> anyhow::Result<()> {
    let session = caller.a().open_session(server).await?;
    let (mut psql, mut forwarded, mut decoded, mut balanced) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let sampler = GrowthSampler::start(world.pids());
    for round in 0..effort.stream_rounds {
        eprintln!("Stream, round {}", round + 1);
        psql.push(run_psql(world).await?);
        forwarded.push(stream(caller.a(), &session.name, false).await?);
        decoded.push(stream(caller.a(), &session.name, true).await?);
        balanced.push(stream(&caller.balanced, &session.name, true).await?);
    }
    let growth = sampler.finish().await;
    caller.a().close_session(&session).await?;

    println!("## Stream of {} rows\n", whole(f64::from(ROWS)));
    println!(
        "`SELECT * FROM pgbench_accounts`, rows a second, median of {} rounds.\n",
        effort.stream_rounds
    );
    let base = median(psql);
    let row = |name: &str, rates: Vec<f64>| {
        let rate = median(rates);
        vec![name.to_owned(), whole(rate), ratio(rate / base)]
    };
    let rows = [
        vec!["`psql -qAt`".to_owned(), whole(base), ratio(1.0)],
        row("pgmoor, a client that decodes nothing", forwarded),
        row("pgmoor, a client that decodes every row", decoded),
        row("the same through nginx", balanced),
    ];
    table(&["", "rows / s", "of psql"], &rows);
    let grown: Vec<Vec<String>> = growth
        .into_iter()
        .map(|(name, bytes)| vec![name, format!("{} MiB", bytes / (1024 * 1024))])
        .collect();
    println!("Resident memory, at most, over what it was before the first stream:\n");
    table(&["process", "growth"], &grown);
    Ok(())
}

/// Rows a second.
fn rate(begun: Instant) -> f64 {
    f64::from(ROWS) / begun.elapsed().as_secs_f64()
}

async fn run_psql(world: &World) -> anyhow::Result<f64> {
    let login = world.target().login();
    let psql = on_path("psql").unwrap_or_else(|| postgres_program("psql"));
    let begun = Instant::now();
    let status = tokio::process::Command::new(psql)
        .args([
            "-qAtX",
            "-h",
            "127.0.0.1",
            "-p",
            &world.target().cluster().port().to_string(),
        ])
        .args([
            "-U",
            &login.user,
            "-d",
            world.target().database().name(),
            "-c",
            SQL,
        ])
        .env("PGPASSWORD", &login.password)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    ensure!(status.success(), "psql ended with {status}");
    Ok(rate(begun))
}

async fn stream(client: &Client, session: &str, decode: bool) -> anyhow::Result<f64> {
    let request = ExecuteRequest {
        session: session.to_owned(),
        script: Some(Script {
            sql: SQL.to_owned(),
            max_rows: Some(0),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    };
    let begun = Instant::now();
    let mut stream = client.query().execute(request).await?.into_inner();
    let (mut bytes, mut rows) = (0, 0);
    while let Some(message) = stream.message().await? {
        bytes += message.as_bytes().len();
        if decode {
            for event in message.events()? {
                if let Some(Kind::Rows(batch)) = event.kind {
                    rows += batch.rows.len();
                }
            }
        }
    }
    let rate = rate(begun);
    ensure!(bytes > 50_000_000, "only {bytes} bytes came");
    ensure!(!decode || rows == ROWS as usize, "{rows} rows came");
    Ok(rate)
}
