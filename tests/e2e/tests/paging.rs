//! Results that are fetched in parts, through whichever API instance.

use e2e::{Client, Running, reason};
use rpc::errors::v1::ErrorReason;
use rpc::events::EncodedEvents;
use rpc::query::v1::execution_event::Kind;
use rpc::query::v1::{
    ExecuteRequest, ExecutionFinished, ExecutionOutcome, FetchMoreRequest, GetExecutionRequest,
    GetSessionRequest, OnLimit, PinReason, Script, value,
};
use tonic::{Code, Status, Streaming};

use crate::worlds::shared;

const ROWS: i64 = 10_000;
const PART: i64 = 1_700;

/// What came of a result so far.
#[derive(Debug, Default)]
struct Read {
    numbers: Vec<i64>,
    /// Numbers of the events.
    sequences: Vec<i64>,
    finished: ExecutionFinished,
}

impl Read {
    async fn read_all(&mut self, mut stream: Streaming<EncodedEvents>) {
        while let Some(message) = stream.message().await.unwrap() {
            for event in message.events().unwrap() {
                self.sequences
                    .extend(Some(event.sequence).filter(|number| *number > 0));
                match event.kind.unwrap() {
                    Kind::Rows(batch) => {
                        let first = batch
                            .rows
                            .into_iter()
                            .map(|row| row.values[0].kind.clone().unwrap());
                        self.numbers.extend(first.map(|value| match value {
                            value::Kind::Text(text) => text.parse::<i64>().unwrap(),
                            other => panic!("{other:?}"),
                        }));
                    }
                    Kind::Finished(finished) => self.finished = finished,
                    _ => {}
                }
            }
        }
    }
}

async fn fetch_more(client: &Client, execution: &str) -> Result<Streaming<EncodedEvents>, Status> {
    let request = FetchMoreRequest {
        execution: execution.to_owned(),
        ..FetchMoreRequest::default()
    };
    Ok(client.query().fetch_more(request).await?.into_inner())
}

/// A result of which a part is sent and the rest waits.
pub(crate) fn suspending(session: &str) -> ExecuteRequest {
    ExecuteRequest {
        session: session.to_owned(),
        script: Some(Script {
            sql: format!("SELECT n FROM generate_series(1, {ROWS}) n"),
            max_rows: Some(PART),
            on_limit: OnLimit::Suspend.into(),
            ..Script::default()
        }),
        ..ExecuteRequest::default()
    }
}

#[tokio::test]
async fn result_is_fetched_in_parts_through_either_instance() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_auto(&server).await.unwrap();

    let request = suspending(&session.name);
    let running = Running::start(caller.a(), request).await.unwrap();
    let execution = running.name().to_owned();
    let first = running.finish().await.unwrap();
    assert_eq!(first.outcome(), ExecutionOutcome::Suspended);
    assert_eq!(first.finished.pins().collect::<Vec<_>>(), [PinReason::Portal]);
    let number = |row: &Vec<Option<String>>| row[0].as_ref().unwrap().parse().unwrap();
    let mut read = Read {
        numbers: first.rows.iter().map(number).collect(),
        finished: first.finished,
        ..Read::default()
    };
    let mut clients = [caller.b(), caller.a()].into_iter().cycle();
    while read.finished.outcome() == ExecutionOutcome::Suspended {
        let stream = fetch_more(clients.next().unwrap(), &execution).await.unwrap();
        read.read_all(stream).await;
        assert_eq!(
            read.finished.row_count,
            i64::try_from(read.numbers.len()).unwrap()
        );
    }
    assert_eq!(read.finished.outcome(), ExecutionOutcome::Succeeded);
    assert!(
        read.numbers.iter().copied().eq(1..=ROWS),
        "{} rows",
        read.numbers.len()
    );
    let from = read.sequences[0];
    assert!(
        from > 1
            && read
                .sequences
                .iter()
                .copied()
                .eq((from..).take(read.sequences.len()))
    );
    assert!(read.finished.pins.is_empty());

    let refused = fetch_more(caller.b(), &execution).await;
    reason::expect(refused, Code::FailedPrecondition, ErrorReason::PortalClosed);
    let nothing_else = caller.b().execute(&session.name, "SELECT 1").await.unwrap();
    assert_eq!(nothing_else.value(), "1");
    caller.a().close_session(&session).await.unwrap();
}

#[tokio::test]
async fn suspended_execution_is_seen_and_closed_through_the_other_instance() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_auto(&server).await.unwrap();
    let running = Running::start(caller.a(), suspending(&session.name))
        .await
        .unwrap();
    let name = running.name().to_owned();
    running.finish().await.unwrap();
    let mut there = caller.b().query();
    let read = there
        .get_execution(GetExecutionRequest { name: name.clone() })
        .await;
    let execution = read.unwrap().into_inner().execution.unwrap();
    assert_eq!((execution.suspended, execution.row_count), (true, PART));
    there
        .cancel_execution(rpc::query::v1::CancelExecutionRequest { name: name.clone() })
        .await
        .unwrap();
    let refused = fetch_more(caller.a(), &name).await;
    reason::expect(refused, Code::FailedPrecondition, ErrorReason::PortalClosed);
    let request = GetSessionRequest {
        name: session.name.clone(),
    };
    let described = there.get_session(request).await.unwrap().into_inner();
    assert!(described.session.unwrap().pins.is_empty());
    caller.a().close_session(&session).await.unwrap();
}
