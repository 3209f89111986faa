//! Transactions across calls.

use rpc::errors::v1::ErrorReason;
use rpc::query::v1::{BeginTransactionRequest, ExecutionOutcome, IsolationLevel, TransactionStatus};
use sessions::Sessions as _;

use crate::support::{World, reason};

fn serializable() -> BeginTransactionRequest {
    BeginTransactionRequest {
        isolation_level: IsolationLevel::Serializable.into(),
        read_only: true,
        deferrable: true,
        ..Default::default()
    }
}

#[tokio::test]
async fn transaction_lives_from_call_to_call() {
    let world = World::new().await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE t (a int)").await;
    let begun = world
        .pooler
        .begin_transaction(&world.token, session, BeginTransactionRequest::default())
        .await
        .unwrap();
    assert_eq!(begun.transaction_status(), TransactionStatus::InTransaction);
    world.run(session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(world.value(session, "SELECT count(*) FROM t").await, "1");
    let outside = world.target.connect().await;
    let count: i64 = outside
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 0);
    let committed = world
        .pooler
        .commit_transaction(&world.token, session)
        .await
        .unwrap();
    assert!(committed.error.is_none());
    let count: i64 = outside
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(count, 1);
}

#[tokio::test]
async fn options_of_a_transaction_reach_the_server() {
    let world = World::new().await;
    let session = world.open().await;
    world
        .pooler
        .begin_transaction(&world.token, session, serializable())
        .await
        .unwrap();
    assert_eq!(
        world.value(session, "SHOW transaction_isolation").await,
        "serializable"
    );
    assert_eq!(world.value(session, "SHOW transaction_read_only").await, "on");
    assert_eq!(world.value(session, "SHOW transaction_deferrable").await, "on");
    let ended = world
        .pooler
        .rollback_transaction(&world.token, session)
        .await
        .unwrap();
    assert_eq!(ended.transaction_status(), TransactionStatus::Idle);
}

#[tokio::test]
async fn state_that_does_not_fit_is_refused() {
    let world = World::new().await;
    let session = world.open().await;
    let token = &world.token;
    let commit = world.pooler.commit_transaction(token, session).await.unwrap_err();
    let rollback = world
        .pooler
        .rollback_transaction(token, session)
        .await
        .unwrap_err();
    world
        .pooler
        .begin_transaction(token, session, BeginTransactionRequest::default())
        .await
        .unwrap();
    let begin = world
        .pooler
        .begin_transaction(token, session, BeginTransactionRequest::default())
        .await
        .unwrap_err();
    let run = world.run(session, "SELECT 1/0").await;
    assert_eq!(run.outcome(), ExecutionOutcome::Failed);
    assert_eq!(run.finished().transaction_status(), TransactionStatus::Failed);
    let failed = world.pooler.commit_transaction(token, session).await.unwrap_err();
    for refused in [commit, rollback, begin, failed] {
        assert_eq!(reason(&refused), ErrorReason::TransactionState);
    }
    world.pooler.rollback_transaction(token, session).await.unwrap();
    assert_eq!(world.value(session, "SELECT 1").await, "1");
}

#[tokio::test]
async fn commit_that_the_server_refuses_says_why() {
    let world = World::new().await;
    let session = world.open().await;
    let sql = "CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO t VALUES (1); \
               BEGIN; INSERT INTO t VALUES (1)";
    let run = world.run(session, sql).await;
    assert_eq!(
        run.finished().transaction_status(),
        TransactionStatus::InTransaction
    );
    let committed = world
        .pooler
        .commit_transaction(&world.token, session)
        .await
        .unwrap();
    assert_eq!(committed.error.unwrap().message.unwrap().sqlstate, "23505");
    assert_eq!(
        committed.session.unwrap().transaction_status(),
        TransactionStatus::Idle
    );
}
