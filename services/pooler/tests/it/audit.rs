//! What executions leave in the audit trail.

use std::sync::Arc;
use std::time::Duration;

use audit::buffer::WhenFull;
use audit::statement::StatementText;
use audit::{AuditLog, Entry, Filter, Kind, LogOptions, WriterRole};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use harness::eventually;
use pooler::{Pooler, PoolerOptions};
use rpc::errors::v1::ErrorReason;
use rpc::pooler::v1::RunScriptRequest;
use rpc::query::v1::{
    BeginTransactionRequest, ExecuteRequest, ExecutionOutcome, Parameter, Script, parameter,
};
use sealing::Opener;
use sessions::Sessions as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use crate::support::{DEADLINE, Run, World, egress, name, reason, split, verifier};

/// A world whose pooler records, and the trail.
async fn audited(options: LogOptions) -> (World, AuditLog, CancellationToken) {
    let (log, writer) = AuditLog::new(
        WriterRole::Pooler,
        options,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    );
    let mut world = World::new().await;
    let port = world.cluster.port();
    world.pooler = Pooler::start(
        world.store.clone(),
        verifier(&world.store).await,
        Opener::new([world.opening_key.clone()]),
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
        PoolerOptions {
            audit: Some(log.clone()),
            ..PoolerOptions::new("127.0.0.1:1".to_owned(), egress(&[port]))
        },
    )
    .await
    .unwrap();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(writer.run(world.store.clone(), stop.clone()));
    (world, log, stop)
}

fn often(statement_text: StatementText) -> LogOptions {
    LogOptions {
        flush_interval: Duration::from_millis(50),
        statement_text,
        ..LogOptions::default()
    }
}

/// The records of that kind, oldest first, as soon as there are that many.
async fn records(world: &World, kind: Kind, count: usize) -> Vec<Entry> {
    let filter = Filter {
        kinds: vec![kind],
        ..Filter::default()
    };
    eventually(DEADLINE, "the records are written", async || {
        let kept = world.store.audit().after(0, &filter, 1000).await.unwrap();
        let entries: Vec<Entry> = kept.into_iter().map(|kept| kept.record.entry).collect();
        if entries.len() >= count {
            Ok(entries)
        } else {
            Err(format!("{entries:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn execution_leaves_who_ran_what_form_of_statement_where_and_how_it_ended() {
    let (world, _log, _stop) = audited(often(StatementText::Normalized)).await;
    for session in [world.open().await, world.open_auto().await] {
        let run = world
            .run(session, "SELECT * FROM generate_series(1, 3) -- c4n4ry")
            .await;
        assert_eq!(run.outcome(), ExecutionOutcome::Succeeded);
        world.run(session, "SELECT 'c4n4ry' FROM nowhere").await;
        let script = Script {
            parameters: vec![Parameter {
                kind: Some(parameter::Kind::Text("c4n4ry".to_owned())),
                type_oid: 25,
            }],
            ..split("SELECT $1")
        };
        world.execute(session, script).await;
        let begin = BeginTransactionRequest {
            session: session.to_string(),
            ..BeginTransactionRequest::default()
        };
        world
            .pooler
            .begin_transaction(&world.token, session, begin)
            .await
            .unwrap();
        world.run(session, "CREATE TABLE IF NOT EXISTS t (n int)").await;
        world
            .pooler
            .commit_transaction(&world.token, session)
            .await
            .unwrap();
    }
    let entries = records(&world, Kind::Execution, 12).await;
    for entries in entries.chunks(6) {
        let [series, failed, parameter, begin, create, commit] = entries else {
            panic!("{entries:?}")
        };
        assert_eq!((series.outcome.as_str(), series.row_count), ("SUCCEEDED", 3));
        assert_eq!(series.statement, "select * from generate_series ( ? )");
        assert_eq!(
            (series.user_id, series.username.as_str()),
            (Some(world.user), "alice")
        );
        assert_eq!(series.database, world.target.name());
        assert!(!series.role.is_empty() && series.credential.starts_with("apiTokens/"));
        assert_eq!(series.resources[0], format!("servers/{}", world.server.id));
        assert!(series.resources[1].starts_with(&format!("{}/executions/", series.session)));
        assert_eq!(
            (failed.outcome.as_str(), failed.sqlstate.as_str()),
            ("FAILED", "42P01")
        );
        assert_eq!(parameter.statement, "select $1");
        assert_eq!(begin.method, "pgmoor.pooler.v1.PoolerService/BeginTransaction");
        assert_eq!(create.outcome, "SUCCEEDED");
        assert_eq!(
            (commit.statement.as_str(), commit.commit_outcome.as_str()),
            ("commit", "COMMITTED")
        );
    }
    assert_ne!(entries[0].session, entries[6].session);
    assert!(!format!("{entries:?}").contains("c4n4ry"));
    let request = RunScriptRequest {
        server: format!("servers/{}", world.server.id),
        script: Some(split("SELECT 1")),
        ..RunScriptRequest::default()
    };
    let instance = world.server.instance_id;
    let stream = world
        .pooler
        .run_script(&world.token, instance, request)
        .await
        .unwrap();
    Run::read(stream).await;
    let script = records(&world, Kind::Execution, 13).await.remove(12);
    assert_eq!(
        (script.session.as_str(), script.outcome.as_str()),
        ("", "SUCCEEDED")
    );
    assert!(script.method.ends_with("/RunScript"));
}

#[tokio::test]
async fn session_that_is_opened_or_refused_leaves_a_record() {
    let (world, _log, _stop) = audited(often(StatementText::Fingerprint)).await;
    let session = world.try_open(world.open_request()).await.unwrap();
    let (_, mallory) = world.other_person().await;
    let refused = world
        .pooler
        .open_session(&mallory, world.server.instance_id, world.open_request())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    let nobody = sessions::UserToken("nonsense".to_owned().into());
    let refused = world
        .pooler
        .open_session(&nobody, world.server.instance_id, world.open_request())
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    let entries = records(&world, Kind::Session, 3).await;
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.username.as_str(),
                entry.outcome.as_str(),
                entry.reason.as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("alice", "OK", ""),
            ("mallory", "NOT_FOUND", "RESOURCE_NOT_FOUND"),
            ("", "UNAUTHENTICATED", "TOKEN_INVALID"),
        ]
    );
    assert_eq!(
        (&entries[0].session, &entries[0].role),
        (&session.name, &session.username)
    );
}

#[tokio::test]
async fn execution_that_finds_no_room_in_the_trail_is_not_run() {
    let options = LogOptions {
        capacity: 2,
        when_full: WhenFull::Refuse,
        loss_window: Duration::from_secs(3600),
        // Not in this test's time.
        flush_interval: Duration::from_secs(3600),
        ..LogOptions::default()
    };
    let (world, log, _stop) = audited(options).await;
    eventually(DEADLINE, "the writer has begun", async || {
        log.figures().written > 0
    })
    .await;
    let session = world.open().await;
    world.run(session, "CREATE TABLE one ()").await;
    let request = ExecuteRequest {
        script: Some(split("CREATE TABLE two ()")),
        ..ExecuteRequest::default()
    };
    let refused = world.try_execute(session, request).await.map(drop).unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, ErrorReason::AuditUnavailable)
    );
    let target = world.target.connect().await;
    let tables = target
        .query(
            "SELECT relname::text FROM pg_class WHERE relname IN ('one', 'two')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(tables.len(), 1);
    // Nor is a session opened.
    let refused = world.try_open(world.open_request()).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::AuditUnavailable);
    assert_eq!(name(&world.describe(session).await), session);
}
