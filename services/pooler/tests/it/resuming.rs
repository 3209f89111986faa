//! Reading on after a reader or its API instance went away, and repeating a call without running it twice.

use std::time::Duration;

use domain::session::ExecutionName;
use futures::StreamExt as _;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    ExecuteRequest, ExecutionEvent, ExecutionOutcome, FetchMoreRequest, OnDisconnect, OnLimit, SessionState,
};
use sessions::{EventStream, Sessions as _};
use tonic::Code;

use crate::cancelling::{request, start};
use crate::support::{DEADLINE, Run, World, reason};

const ONE: &str = "00000000-0000-4000-8000-000000000001";
const ANOTHER: &str = "00000000-0000-4000-8000-000000000002";

fn with_grace(sql: &str, grace: Duration) -> ExecuteRequest {
    ExecuteRequest {
        disconnect_grace: prost_types::Duration::try_from(grace).ok(),
        ..request(sql)
    }
}

fn continued(sql: &str) -> ExecuteRequest {
    ExecuteRequest {
        on_disconnect: OnDisconnect::Continue.into(),
        ..request(sql)
    }
}

fn once(sql: &str, id: &str) -> ExecuteRequest {
    ExecuteRequest {
        request_id: id.to_owned(),
        ..request(sql)
    }
}

/// Reads until there are so many events.
async fn read_some(stream: &mut EventStream, count: usize) -> Vec<ExecutionEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(stream.next().await.unwrap().unwrap().events().unwrap());
    }
    events
}

fn last(events: &[ExecutionEvent]) -> i64 {
    events.iter().map(|event| event.sequence).max().unwrap()
}

/// The rows of one integer column.
fn numbers(events: &[ExecutionEvent]) -> Vec<i64> {
    let run = Run {
        events: events.to_vec(),
        messages: 0,
    };
    let number = |row: Vec<Option<String>>| row[0].as_ref().unwrap().parse().unwrap();
    run.rows().into_iter().map(number).collect()
}

async fn resume(world: &World, name: ExecutionName, after: i64) -> EventStream {
    let resumed = world.pooler.resume_execution(&world.token, name, after).await;
    resumed.unwrap()
}

async fn rest(mut stream: EventStream) -> Vec<ExecutionEvent> {
    let mut events = Vec::new();
    while let Some(message) = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap() {
        events.extend(message.unwrap().events().unwrap());
    }
    events
}

async fn idle(world: &World, session: domain::session::SessionName) {
    eventually(DEADLINE, "the session is idle", async || {
        let described = world.describe(session).await;
        described.state() == SessionState::Idle
    })
    .await;
}

#[tokio::test]
async fn stream_that_broke_off_goes_on_after_the_last_event_that_was_read() {
    let world = World::new().await;
    for session in [world.open().await, world.open_auto().await] {
        // 60 MB: more than is kept and than the kernel's buffers on the way grow to.
        let sql = "SELECT i, repeat('x', 600) FROM generate_series(1, 100000) AS i";
        let minute = Duration::from_secs(60);
        let (name, mut stream) = start(&world, session, with_grace(sql, minute)).await;
        let mut events = read_some(&mut stream, 20).await;
        drop(stream);
        // The server waits meanwhile, and so does the session.
        let pid = world.describe(session).await.backend_pid;
        let connection = world.cluster.connect().await;
        let query = "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $1";
        eventually(DEADLINE, "the server waits for a reader", async || {
            let row = connection.query_one(query, &[&pid]).await.unwrap();
            row.get::<_, Option<bool>>(0) == Some(true)
        })
        .await;
        // Of what was read the last few messages came to nothing with their reader.
        events.truncate(12);
        let known = last(&events);
        let mut stream = resume(&world, name, known).await;
        events.extend(read_some(&mut stream, 5).await);
        drop(stream);
        let known = last(&events);
        events.extend(rest(resume(&world, name, known).await).await);
        assert_eq!(numbers(&events), (1..=100_000).collect::<Vec<_>>());
        let Some(Kind::Finished(finished)) = &events.last().unwrap().kind else {
            panic!("{:?}", events.last())
        };
        assert_eq!(finished.outcome(), ExecutionOutcome::Succeeded);
        // Whoever has everything is told so.
        assert!(rest(resume(&world, name, last(&events)).await).await.is_empty());
    }
}

#[tokio::test]
async fn execution_that_nobody_resumes_in_time_is_cancelled() {
    let world = World::new().await;
    let session = world.open().await;
    let short = Duration::from_millis(200);
    let (name, stream) = start(&world, session, with_grace("SELECT pg_sleep(60)", short)).await;
    drop(stream);
    idle(&world, session).await;
    let execution = world.pooler.get_execution(&world.token, name).await.unwrap();
    assert_eq!(execution.outcome(), ExecutionOutcome::Cancelled);
    let told = rest(resume(&world, name, 1).await).await;
    let Some(Kind::Finished(finished)) = &told.last().unwrap().kind else {
        panic!("{told:?}")
    };
    assert_eq!(finished.outcome(), ExecutionOutcome::Cancelled);
}

#[tokio::test]
async fn result_that_nobody_reads_is_there_for_whoever_comes() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let sql = "SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) AS i";
    let (name, mut stream) = start(&world, session, continued(sql)).await;
    let mut events = read_some(&mut stream, 5).await;
    drop(stream);
    // 50 MB: far more than is kept in memory.
    idle(&world, session).await;
    // The one who comes first goes away again.
    let known = last(&events);
    let mut stream = resume(&world, name, known).await;
    events.extend(read_some(&mut stream, 100).await);
    drop(stream);
    let known = last(&events);
    events.extend(rest(resume(&world, name, known).await).await);
    assert_eq!(numbers(&events), (1..=50_000).collect::<Vec<_>>());
    let told = world.pooler.resume_execution(&world.token, name, 1_000_000).await;
    assert_eq!(reason(&told.err().unwrap()), ErrorReason::ResultExpired);
}

#[tokio::test]
async fn call_that_is_repeated_with_its_id_runs_once() {
    let world = World::new().await;
    for session in [world.open().await, world.open_auto().await] {
        world
            .run(session, "CREATE TABLE IF NOT EXISTS t (a int); TRUNCATE t")
            .await;
        let sql = "INSERT INTO t VALUES (1) RETURNING a; SELECT pg_sleep(0.2)";
        drop(world.try_execute(session, once(sql, ONE)).await.unwrap());
        // It was cancelled with its reader, or not: whoever asks again learns it, and nothing is run.
        let again = Run::read(world.try_execute(session, once(sql, ONE)).await.unwrap()).await;
        assert_eq!(again.tags().first(), Some(&"INSERT 0 1"));
        let and_again = Run::read(world.try_execute(session, once(sql, ONE)).await.unwrap()).await;
        assert_eq!(and_again.events, again.events);
        assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "1");
        // Another has run since: the first is forgotten, as is what GetExecution says of it.
        let other = Run::read(world.try_execute(session, once(sql, ANOTHER)).await.unwrap()).await;
        assert_eq!(other.outcome(), ExecutionOutcome::Succeeded);
        assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "2");
    }
    // The same id for something else is something else.
    let session = world.open().await;
    for value in ["1", "2"] {
        let wish = once(&format!("SELECT {value}"), ONE);
        let run = Run::read(world.try_execute(session, wish).await.unwrap()).await;
        assert_eq!(run.rows(), [[Some(value.to_owned())]]);
    }
    let wrong = world.try_execute(session, once("SELECT 1", "mine")).await;
    assert_eq!(wrong.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reader_learns_that_another_took_its_place() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "SELECT 1; SELECT pg_sleep(60)";
    let (name, mut first) = start(&world, session, once(sql, ONE)).await;
    // A running execution is read by who repeats the call.
    let mut second = world.try_execute(session, once(sql, ONE)).await.unwrap();
    let told = loop {
        match first.next().await.unwrap() {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(
        (told.code(), reason(&told)),
        (Code::Aborted, ErrorReason::ReaderReplaced)
    );
    let events = read_some(&mut second, 1).await;
    assert!(matches!(events[0].kind, Some(Kind::Started(_))));
    world.pooler.cancel_execution(&world.token, name).await.unwrap();
    let events = rest(second).await;
    assert!(matches!(&events.last().unwrap().kind, Some(Kind::Finished(_))));
}

#[tokio::test]
async fn nothing_is_kept_where_nobody_asked_and_nothing_is_told_to_others() {
    let world = World::new().await;
    let session = world.open().await;
    let (plain, stream) = start(&world, session, request("SELECT 1")).await;
    Run::read(stream).await;
    let told = world.pooler.resume_execution(&world.token, plain, 0).await;
    assert_eq!(reason(&told.err().unwrap()), ErrorReason::ResultExpired);
    let (kept, stream) = start(&world, session, once("SELECT 1", ONE)).await;
    Run::read(stream).await;
    let told = world
        .pooler
        .resume_execution(&world.other_user().await, kept, 0)
        .await;
    assert_eq!(reason(&told.err().unwrap()), ErrorReason::ResourceNotFound);
    // Only the last.
    let told = world.pooler.resume_execution(&world.token, plain, 0).await;
    assert_eq!(reason(&told.err().unwrap()), ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn call_that_found_no_backend_can_be_repeated_and_runs() {
    let world = World::new().await;
    world.set_budget(1, 0).await;
    let holder = world.open().await;
    let mut wish = world.auto_request();
    wish.queue_timeout = prost_types::Duration::try_from(Duration::from_millis(200)).ok();
    let waiter = crate::support::name(&world.try_open(wish).await.unwrap());
    let refused = world.try_execute(waiter, once("SELECT 7", ONE)).await;
    assert_eq!(reason(&refused.err().unwrap()), ErrorReason::BudgetExhausted);
    world.pooler.close_session(&world.token, holder).await.unwrap();
    let run = Run::read(world.try_execute(waiter, once("SELECT 7", ONE)).await.unwrap()).await;
    assert_eq!(run.rows(), [[Some("7".to_owned())]]);
}

#[tokio::test]
async fn part_of_a_result_that_broke_off_is_read_on() {
    let world = World::new().await;
    let session = world.open_auto().await;
    let mut suspending = request("SELECT i, repeat('x', 100) FROM generate_series(1, 60000) AS i");
    let script = suspending.script.as_mut().unwrap();
    script.max_rows = Some(10);
    script.set_on_limit(OnLimit::Suspend);
    let (name, stream) = start(&world, session, suspending).await;
    let mut events = rest(stream).await;
    let more = FetchMoreRequest {
        max_rows: Some(0),
        disconnect_grace: prost_types::Duration::try_from(Duration::from_secs(60)).ok(),
        ..FetchMoreRequest::default()
    };
    let mut stream = world.pooler.fetch_more(&world.token, name, more).await.unwrap();
    events.extend(read_some(&mut stream, 10).await);
    drop(stream);
    // Of the part before nothing is kept.
    let told = world.pooler.resume_execution(&world.token, name, 1).await;
    assert_eq!(reason(&told.err().unwrap()), ErrorReason::ResultExpired);
    let known = last(&events);
    events.extend(rest(resume(&world, name, known).await).await);
    assert_eq!(numbers(&events), (1..=60_000).collect::<Vec<_>>());
    let sequence: Vec<_> = events
        .iter()
        .map(|event| event.sequence)
        .filter(|n| *n != 0)
        .collect();
    assert_eq!(sequence, (1..=last(&events)).collect::<Vec<_>>());
}

#[tokio::test]
async fn execution_that_waits_and_that_nobody_resumes_in_time_is_given_up() {
    let world = World::new().await;
    world.set_budget(1, 0).await;
    let holder = world.open().await;
    let mut wish = world.auto_request();
    wish.queue_timeout = prost_types::Duration::try_from(DEADLINE).ok();
    let waiter = crate::support::name(&world.try_open(wish).await.unwrap());
    let asked = with_grace("SELECT 1", Duration::from_millis(300));
    {
        let waiting = world.try_execute(waiter, asked);
        tokio::pin!(waiting);
        let waits = eventually(DEADLINE, "it waits for a connection", async || {
            world.describe(waiter).await.state() == SessionState::Waiting
        });
        tokio::select! {
            _ = &mut waiting => panic!("there is no connection for it"),
            () = waits => {}
        }
    }
    // The connection it waits for is still taken.
    idle(&world, waiter).await;
    assert_eq!(world.value(holder, "SELECT 1").await, "1");
}
