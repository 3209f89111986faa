//! Execute reads no config database.

use std::time::Instant;

use e2e::World;

use crate::worlds::alone;

const EXECUTIONS: usize = 200;

#[tokio::test]
async fn executions_ask_the_config_database_nothing() {
    let world = alone().await;
    let caller = world.superuser().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_session(&server).await.unwrap();
    for client in [caller.a(), caller.b()] {
        client.execute(&session.name, "SELECT 1").await.unwrap();
    }

    // Nothing is asked while a statement sleeps but what the pollers of the processes ask.
    let (asked, took) = asked_during(&world, async || {
        caller
            .a()
            .execute(&session.name, "SELECT pg_sleep(3)")
            .await
            .unwrap();
    })
    .await;
    let each_second = asked / took;

    let (asked, took) = asked_during(&world, async || {
        for turn in 0..EXECUTIONS {
            let client = &caller.apis[turn % 2];
            assert_eq!(
                client.execute(&session.name, "SELECT 1").await.unwrap().value(),
                "1"
            );
        }
    })
    .await;
    caller.a().close_session(&session).await.unwrap();

    // A single statement for each execution would be 200 more.
    let pollers = each_second * took;
    assert!(
        asked < pollers + EXECUTIONS as f64 / 4.0,
        "{asked} statements in {took:.1} s, {pollers:.0} of them the pollers'"
    );
}

/// How many statements the config database was asked meanwhile, and how many seconds that took.
async fn asked_during(world: &World, work: impl AsyncFnOnce()) -> (f64, f64) {
    let log = || statements(&world.config_database().cluster().log_text());
    let (before, begun) = (log(), Instant::now());
    work().await;
    let took = begun.elapsed().as_secs_f64();
    ((log() - before) as f64, took)
}

/// Statements in the log of a server with `log_statement = all`, by either protocol.
fn statements(log: &str) -> usize {
    let is_statement = |line: &&str| line.contains("LOG:  execute ") || line.contains("LOG:  statement: ");
    log.lines().filter(is_statement).count()
}
