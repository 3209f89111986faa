//! What open sessions cost in memory.

use e2e::World;
use e2e::memory::resident_bytes;
use e2e::world::Caller;

use crate::report::table;

const SESSIONS: u64 = 100;

pub(crate) async fn measure(world: &World, caller: &Caller, server: &str) -> anyhow::Result<()> {
    // The first session of a process costs what the others do not.
    let first = caller.a().open_session(server).await?;
    caller.a().execute(&first.name, "SELECT 1").await?;
    let before: Vec<u64> = world.pids().iter().map(|(_, pid)| resident_bytes(*pid)).collect();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let session = caller.a().open_session(server).await?;
        caller.a().execute(&session.name, "SELECT 1").await?;
        sessions.push(session);
    }
    println!("## {SESSIONS} open PINNED sessions\n");
    println!("Each has run a statement and is idle. PostgreSQL's own backends are not in these numbers.\n");
    let rows: Vec<Vec<String>> = world
        .pids()
        .into_iter()
        .zip(before)
        .map(|((name, pid), before)| {
            let after = resident_bytes(pid);
            let each = after.saturating_sub(before) / SESSIONS / 1024;
            vec![
                name,
                format!("{} MiB", before / (1024 * 1024)),
                format!("{} MiB", after / (1024 * 1024)),
                format!("{each} KiB"),
            ]
        })
        .collect();
    table(&["process", "before", "with them", "each session"], &rows);
    for session in sessions.iter().chain([&first]) {
        caller.a().close_session(session).await?;
    }
    Ok(())
}
