//! Session names that are wrong, foreign, or somebody else's.

use e2e::{Client, reason};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{
    BeginTransactionRequest, CancelExecutionRequest, CloseSessionRequest, CommitTransactionRequest,
    ExecutionOutcome, FetchMoreRequest, GetSessionRequest, KeepSessionAliveRequest,
    RollbackTransactionRequest, TransactionStatus,
};
use tonic::{Code, Status};

use crate::worlds::shared;

/// Every call that names a session, with the name of the call.
async fn every_call(client: &Client, session: &str) -> Vec<(&'static str, Status)> {
    let name = || session.to_owned();
    let mut query = client.query();
    let failed = |answer: &'static str, result: Result<(), Status>| {
        (
            answer,
            result.expect_err("a session that is not there cannot be used"),
        )
    };
    let begin = BeginTransactionRequest {
        session: name(),
        ..BeginTransactionRequest::default()
    };
    let execution = format!("{session}/executions/00000000-0000-4000-8000-000000000000");
    let more = FetchMoreRequest {
        execution: execution.clone(),
        ..FetchMoreRequest::default()
    };
    let cancel = CancelExecutionRequest { name: execution };
    vec![
        failed(
            "get",
            query
                .get_session(GetSessionRequest { name: name() })
                .await
                .map(drop),
        ),
        failed(
            "keep alive",
            query
                .keep_session_alive(KeepSessionAliveRequest { name: name() })
                .await
                .map(drop),
        ),
        failed("begin", query.begin_transaction(begin).await.map(drop)),
        failed(
            "commit",
            query
                .commit_transaction(CommitTransactionRequest { session: name() })
                .await
                .map(drop),
        ),
        failed(
            "rollback",
            query
                .rollback_transaction(RollbackTransactionRequest { session: name() })
                .await
                .map(drop),
        ),
        failed("cancel", query.cancel_execution(cancel).await.map(drop)),
        failed("fetch more", query.fetch_more(more).await.map(drop)),
        failed("execute", client.execute(session, "SELECT 1").await.map(drop)),
        failed(
            "close",
            query
                .close_session(CloseSessionRequest { name: name() })
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test]
async fn malformed_session_names_are_invalid_fields() {
    let caller = shared().await.world.create_user().await;
    let long = format!("servers/{}/sessions/x", "x".repeat(10 * 1024));
    let longer = format!(
        "servers/00000000-0000-4000-8000-000000000000/sessions/{}",
        "a".repeat(10 * 1024)
    );
    let names = [
        "",
        "nonsense",
        "servers/1/sessions/2",
        "servers//sessions/",
        "servers/00000000-0000-4000-8000-000000000000/sessions/' OR 1=1 --",
        "servers/00000000-0000-4000-8000-000000000000/sessions/../../x",
        &long,
        &longer,
    ];
    for name in names {
        for (call, status) in every_call(caller.a(), name).await {
            let expected = (Code::InvalidArgument, ErrorReason::InvalidField);
            assert_eq!(reason::of(&status), expected, "{call} of {name:.80}");
            // Nobody wants their 10 kB back.
            assert!(reason::text(&status).len() < 4096, "{call} echoes the name");
        }
    }
}

/// What an answer says, without the name that was asked for, which differs.
fn telling(status: &Status, name: &str) -> (Code, ErrorReason, String) {
    let (code, reason) = reason::of(status);
    (code, reason, status.message().replace(name, "NAME"))
}

#[tokio::test]
async fn another_users_session_answers_as_one_that_never_was() {
    let world = &shared().await.world;
    let (owner, other) = tokio::join!(world.create_user(), world.create_user());
    let server = world.register_target(owner.a()).await;
    let session = owner.a().open_session(&server).await.unwrap();
    // The same form: the last character of the random part differs.
    let (head, last) = session.name.split_at(session.name.len() - 2);
    let missing = format!("{head}{}", if last == "aa" { "ca" } else { "aa" });

    let foreign = every_call(other.b(), &session.name).await;
    let absent = every_call(other.b(), &missing).await;
    for ((call, foreign), (_, absent)) in foreign.iter().zip(&absent) {
        assert_eq!(
            telling(foreign, &session.name),
            telling(absent, &missing),
            "{call}"
        );
        let expected = (Code::NotFound, ErrorReason::ResourceNotFound);
        assert_eq!(reason::of(foreign), expected, "{call}");
    }
    // The owner's session is untouched.
    assert_eq!(
        owner
            .b()
            .execute(&session.name, "SELECT 42")
            .await
            .unwrap()
            .value(),
        "42"
    );
    // And its owner is told the same of one that is not there.
    for (call, status) in every_call(owner.a(), &missing).await {
        assert_eq!(reason::of(&status).0, Code::NotFound, "{call}");
    }
    owner.a().close_session(&session).await.unwrap();
}

#[tokio::test]
async fn another_users_server_answers_as_one_that_never_was() {
    let world = &shared().await.world;
    let (owner, other) = tokio::join!(world.create_user(), world.create_user());
    let server = world.register_target(owner.a()).await;
    let refused = other.b().open_session(&server).await;
    reason::expect(refused, Code::NotFound, ErrorReason::ResourceNotFound);
    let nowhere = "servers/00000000-0000-4000-8000-000000000000";
    let refused = other.b().open_session(nowhere).await;
    reason::expect(refused, Code::NotFound, ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn second_execution_on_a_busy_session_is_refused_and_the_first_goes_on() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_session(&server).await.unwrap();
    let first = caller
        .a()
        .start(&session.name, "SELECT pg_sleep(600)")
        .await
        .unwrap();
    let second = caller.b().execute(&session.name, "SELECT 1").await;
    reason::expect(second, Code::FailedPrecondition, ErrorReason::SessionBusy);
    let name = first.name().to_owned();
    caller
        .b()
        .query()
        .cancel_execution(CancelExecutionRequest { name: name.clone() })
        .await
        .unwrap();
    let ended = first.finish().await.unwrap();
    assert_eq!(ended.outcome(), ExecutionOutcome::Cancelled);
    // A cancel is bound to its execution: a late one hits nothing.
    let late = caller
        .b()
        .query()
        .cancel_execution(CancelExecutionRequest { name })
        .await;
    reason::expect(late, Code::FailedPrecondition, ErrorReason::ExecutionFinished);
    assert_eq!(
        caller
            .a()
            .execute(&session.name, "SELECT 1")
            .await
            .unwrap()
            .value(),
        "1"
    );
    caller.a().close_session(&session).await.unwrap();
}

#[tokio::test]
async fn session_lost_with_its_backend_tells_its_owner_why_and_nothing_is_replayed() {
    let world = &shared().await.world;
    let caller = world.create_user().await;
    let server = world.register_target(caller.a()).await;
    let session = caller.a().open_session(&server).await.unwrap();
    let begun = caller.a().execute(&session.name, "BEGIN").await.unwrap();
    assert_eq!(begun.transaction_status(), TransactionStatus::InTransaction);
    world.target().cluster().kill_backend(session.backend_pid).await;

    // Whether the loss is seen by then or by this call: the statement ran nowhere.
    let next = caller.b().execute(&session.name, "SELECT 1").await;
    let lost = match next {
        Ok(ended) => {
            assert_eq!(ended.outcome(), ExecutionOutcome::Lost, "{ended:?}");
            assert!(ended.rows.is_empty());
            caller.b().execute(&session.name, "SELECT 1").await.map(drop)
        }
        Err(status) => Err(status),
    };
    let status = reason::expect(lost, Code::NotFound, ErrorReason::SessionStateLost);
    assert_eq!(
        reason::metadata(&status, "cause").as_deref(),
        Some("backend_terminated")
    );
}
