//! Executions whose API instance is killed, and calls that are repeated.

use std::time::Duration;

use e2e::world::set_budget;
use e2e::{Client, World, WorldOptions, reason};
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::value;
use rpc::query::v1::{
    ExecuteRequest, ExecutionEvent, ExecutionOutcome, GetSessionRequest, OnDisconnect,
    ResumeExecutionRequest, Script, SessionState,
};
use tonic::{Code, Streaming};

use crate::takeover::owner;

const SOON: Duration = Duration::from_secs(60);

fn request(session: &str, sql: &str) -> ExecuteRequest {
    ExecuteRequest {
        session: session.to_owned(),
        script: Some(Script {
            sql: sql.to_owned(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    }
}

/// Reads until the stream ends or breaks off, or there are so many events.
async fn read(stream: &mut Streaming<EncodedEvents>, events: &mut Vec<ExecutionEvent>, most: usize) {
    while events.len() < most
        && let Ok(Some(message)) = stream.message().await
    {
        events.extend(message.events().unwrap());
    }
}

async fn resume(client: &Client, name: &str, events: &[ExecutionEvent]) -> Streaming<EncodedEvents> {
    let last = events.iter().map(|event| event.sequence).max().unwrap();
    let request = ResumeExecutionRequest {
        name: name.to_owned(),
        after_sequence: last,
    };
    client
        .query()
        .resume_execution(request)
        .await
        .unwrap()
        .into_inner()
}

fn name(events: &[ExecutionEvent]) -> String {
    match &events[0].kind {
        Some(Kind::Started(started)) => started.execution.clone(),
        other => panic!("{other:?}"),
    }
}

/// The values of the first column.
fn numbers(events: &[ExecutionEvent]) -> Vec<i64> {
    let batches = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::Rows(batch)) => Some(&batch.rows),
        _ => None,
    });
    let rows = batches.flatten().map(|row| match &row.values[0].kind {
        Some(value::Kind::Text(text)) => text.parse().unwrap(),
        other => panic!("{other:?}"),
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execution_whose_api_instance_was_killed_is_read_on_through_another() {
    const ROWS: i64 = 200_000;
    let mut world = World::start(WorldOptions {
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let caller = world.create_administrator().await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    let server = world.register_target(&a).await;
    let waiting = a.open_auto(&server).await.unwrap();
    let going_on = a.open_session(&server).await.unwrap();
    let sql = format!("SELECT i, repeat('x', 100) FROM generate_series(1, {ROWS}) AS i");
    let grace = prost_types::Duration {
        seconds: 60,
        nanos: 0,
    };
    let requests = [
        ExecuteRequest {
            disconnect_grace: Some(grace),
            ..request(&waiting.name, &sql)
        },
        ExecuteRequest {
            on_disconnect: OnDisconnect::Continue.into(),
            ..request(&going_on.name, &sql)
        },
    ];
    let mut read_of = Vec::new();
    for request in requests {
        let mut stream = a.query().execute(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        read(&mut stream, &mut events, 20).await;
        read_of.push((stream, events));
    }
    world.apis_mut()[0].kill9().await;
    for (mut stream, mut events) in read_of {
        // Whatever was on its way still comes.
        read(&mut stream, &mut events, usize::MAX).await;
        assert!(!matches!(events.last().unwrap().kind, Some(Kind::Finished(_))));
        let mut stream = resume(&b, &name(&events), &events).await;
        read(&mut stream, &mut events, usize::MAX).await;
        assert_eq!(numbers(&events), (1..=ROWS).collect::<Vec<_>>());
        let Some(Kind::Finished(finished)) = &events.last().unwrap().kind else {
            panic!("{:?}", events.last())
        };
        assert_eq!(finished.outcome(), ExecutionOutcome::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_is_repeated_elsewhere_and_after_a_move_is_run_once() {
    let mut world = World::start(WorldOptions {
        poolers: 2,
        workers: 0,
        ..WorldOptions::default()
    })
    .await;
    let caller = world.create_administrator().await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    let server = world.register_target(&a).await;
    let session = a.open_auto(&server).await.unwrap();
    a.execute(&session.name, "CREATE TABLE once (n int)")
        .await
        .unwrap();
    let wish = ExecuteRequest {
        request_id: "6f1c1d4e-8f0d-4b63-9d0a-0a51f6c0a5c1".to_owned(),
        ..request(&session.name, "INSERT INTO once VALUES (1) RETURNING n")
    };
    let mut answers = Vec::new();
    for client in [&a, &b] {
        let mut stream = client.query().execute(wish.clone()).await.unwrap().into_inner();
        let mut events = Vec::new();
        read(&mut stream, &mut events, usize::MAX).await;
        answers.push(events);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(numbers(&answers[0]), [1]);

    let pooler = owner(&world).await.unwrap();
    world.poolers_mut()[pooler].terminate();
    world.poolers_mut()[pooler].wait_until_ended().await;
    let told = eventually(SOON, "the session is served elsewhere", async || {
        match b.query().execute(wish.clone()).await {
            Err(status) if status.code() == Code::Unavailable => Err(reason::text(&status)),
            other => Ok(other.map(drop)),
        }
    })
    .await;
    reason::expect(told, Code::FailedPrecondition, ErrorReason::ResultExpired);
    let request = GetSessionRequest { name: session.name };
    let answer = b.query().get_session(request).await.unwrap().into_inner();
    let session = answer.session.unwrap();
    assert_eq!((session.state(), session.incarnation), (SessionState::Idle, 1));
    let counted = b
        .execute(&session.name, "SELECT count(*) FROM once")
        .await
        .unwrap();
    assert_eq!(counted.value(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_request_whose_pooler_was_killed_is_in_doubt() {
    let mut world = World::start(WorldOptions {
        poolers: 2,
        workers: 0,
        takeover: Some(("3s".to_owned(), "4s".to_owned())),
        ..WorldOptions::default()
    })
    .await;
    let caller = world.create_administrator().await;
    let (a, b) = (caller.a().clone(), caller.b().clone());
    let server = world.register_target(&a).await;
    set_budget(&a, &server, 1, 0).await.unwrap();
    let waiter = a.open_auto(&server).await.unwrap();
    let _holder = a.open_session(&server).await.unwrap();
    let wish = ExecuteRequest {
        request_id: "6f1c1d4e-8f0d-4b63-9d0a-0a51f6c0a5c2".to_owned(),
        ..request(&waiter.name, "SELECT 1")
    };
    let mut client = a.query();
    let waiting = client.execute(wish);
    let killing = async {
        eventually(SOON, "it waits for a connection", async || {
            let request = GetSessionRequest {
                name: waiter.name.clone(),
            };
            let answer = b.query().get_session(request).await.unwrap().into_inner();
            match answer.session.unwrap().state() {
                SessionState::Waiting => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let owner = owner(&world).await.unwrap();
        world.poolers_mut()[owner].kill9().await;
    };
    // Nobody can say any more that it was not run, also where the session goes on.
    let (told, ()) = tokio::join!(waiting, killing);
    reason::expect(told.map(drop), Code::Unknown, ErrorReason::OutcomeUnknown);
}
