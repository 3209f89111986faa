//! Operations as their owner sees them, through either instance.

use std::time::Duration;

use domain::operation::{OperationFailure, OperationOutcome, OperationPhase, OperationProgress};
use futures::future::join_all;
use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::operation::v1::{
    CancelOperationRequest, DeleteOperationRequest, ListOperationsRequest, Operation, OperationKind,
    OperationState, ReadOperationLogRequest, ReadOperationLogResponse, WaitOperationRequest,
};
use rpc::user::v1::{UpdateUserRequest, User};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::work::{Worker, get, server, start_backup, wish};
use crate::world::{ADMIN, Caller, DEADLINE, World, assert_fails};

async fn wait(caller: &Caller, name: &str, timeout: Duration) -> Result<Operation, Status> {
    let request = WaitOperationRequest {
        name: name.to_owned(),
        timeout: timeout.try_into().ok(),
    };
    Ok(caller
        .operations()
        .wait_operation(request)
        .await?
        .into_inner()
        .operation
        .unwrap())
}

async fn cancel(caller: &Caller, name: &str) -> Result<Operation, Status> {
    let request = CancelOperationRequest {
        name: name.to_owned(),
    };
    Ok(caller
        .operations()
        .cancel_operation(request)
        .await?
        .into_inner()
        .operation
        .unwrap())
}

async fn delete(caller: &Caller, name: &str) -> Result<(), Status> {
    let request = DeleteOperationRequest {
        name: name.to_owned(),
    };
    caller.operations().delete_operation(request).await.map(drop)
}

async fn read_log(
    caller: &Caller,
    name: &str,
    offset: i64,
    limit: i32,
) -> Result<ReadOperationLogResponse, Status> {
    let request = ReadOperationLogRequest {
        name: name.to_owned(),
        offset,
        limit,
    };
    Ok(caller
        .operations()
        .read_operation_log(request)
        .await?
        .into_inner())
}

/// Reads a log to its end, or as far as it goes by now.
async fn read_on(caller: &Caller, name: &str, mut offset: i64, limit: i32) -> (String, i64, bool) {
    let mut text = String::new();
    loop {
        let piece = read_log(caller, name, offset, limit).await.unwrap();
        let stands_still = piece.next_offset == offset;
        offset = piece.next_offset;
        text.push_str(&piece.text);
        if piece.end || stands_still {
            return (text, offset, piece.end);
        }
    }
}

#[tokio::test]
async fn operation_is_seen_alike_through_both_instances() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let queued = start_backup(&a, wish(&server)).await.unwrap();
    assert_eq!(
        (queued.kind(), queued.state(), queued.done),
        (OperationKind::Backup, OperationState::Queued, false)
    );
    assert_eq!((&queued.server, queued.database.as_str()), (&server, "postgres"));
    assert_eq!(queued.owner, format!("users/{}", world.admin));
    assert!(queued.start_time.is_none() && queued.end_time.is_none());
    assert_eq!(get(&b, &queued.name).await.unwrap(), queued);

    let worker = Worker::of(&world).await;
    let attempt = worker.claim().await.attempt;
    let progress = OperationProgress {
        phase: Some(OperationPhase::Reading),
        bytes_done: 5_000_000_000,
        bytes_total: None,
        objects_done: 3,
        objects_total: Some(7),
    };
    let hour = Duration::from_secs(3600);
    worker
        .store
        .operations()
        .heartbeat(&attempt, &progress, hour)
        .await
        .unwrap();
    let running = get(&b, &queued.name).await.unwrap();
    let shown = running.progress.unwrap();
    assert_eq!(shown.phase(), rpc::operation::v1::OperationPhase::Reading);
    assert_eq!(
        (
            shown.bytes_done,
            shown.bytes_total,
            shown.objects_done,
            shown.objects_total
        ),
        (5_000_000_000, 0, 3, 7)
    );
    assert_eq!((running.state(), running.attempt), (OperationState::Running, 1));

    let failure = OperationFailure {
        reason: "TOOL_FAILED".to_owned(),
        message: "pg_dump: error: no matching schemas were found".to_owned(),
        exit_status: Some(1),
    };
    worker
        .finish(&attempt, OperationOutcome::Failed(failure.clone()))
        .await;
    let failed = get(&a, &queued.name).await.unwrap();
    assert!(failed.done && failed.end_time.is_some());
    let error = failed.error.clone().unwrap();
    assert_eq!(
        (failed.state(), error.reason, error.message, error.exit_status),
        (
            OperationState::Failed,
            failure.reason,
            failure.message,
            failure.exit_status
        )
    );
}

#[tokio::test]
async fn operations_are_listed_newest_first_page_by_page() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(start_backup(&a, wish(&server)).await.unwrap().name);
    }
    names.reverse();
    let mut listed = Vec::new();
    let mut request = ListOperationsRequest {
        page_size: 2,
        page_token: String::new(),
    };
    loop {
        // Each page comes from the other instance.
        let caller = if listed.len() % 4 == 0 { &a } else { &b };
        let page = caller
            .operations()
            .list_operations(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.operations.len() <= 2);
        listed.extend(page.operations.into_iter().map(|operation| operation.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, names);
    let member = world.member("alice").await.caller;
    let theirs = member
        .operations()
        .list_operations(ListOperationsRequest::default())
        .await
        .unwrap();
    assert!(theirs.into_inner().operations.is_empty());
    request.page_token = "nonsense".to_owned();
    let outcome = a.operations().list_operations(request).await;
    assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidPageToken);
}

#[tokio::test]
async fn foreign_operation_is_as_good_as_missing() {
    let world = World::start().await;
    let member = world.member("alice").await.caller;
    let server = server(&world.a.login(ADMIN).await).await;
    let foreign = start_backup(&world.a.login(ADMIN).await, wish(&server))
        .await
        .unwrap()
        .name;
    let missing = "operations/00000000-0000-4000-8000-000000000000";
    let mut answers = Vec::new();
    for name in [foreign.as_str(), missing] {
        let outcomes = [
            get(&member, name).await.map(drop),
            wait(&member, name, Duration::ZERO).await.map(drop),
            read_log(&member, name, 0, 0).await.map(drop),
            cancel(&member, name).await.map(drop),
            delete(&member, name).await,
        ];
        answers.push(outcomes.map(|outcome| {
            let status = assert_fails(outcome, Code::NotFound, ErrorReason::ResourceNotFound);
            let info = status.get_details_resource_info().unwrap();
            assert_eq!(info.resource_name, name);
            (
                status.message().to_owned(),
                info.resource_type,
                info.description,
                info.owner,
            )
        }));
    }
    assert_eq!(answers[0], answers[1]);
    // It is the owner's alone: an administrator is nobody special here.
    let theirs = crate::work::server(&member).await;
    let theirs = start_backup(&member, wish(&theirs)).await.unwrap().name;
    let admin = world.b.login(ADMIN).await;
    assert_fails(
        get(&admin, &theirs).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    assert_eq!(
        get(&admin, &foreign).await.unwrap().state(),
        OperationState::Queued
    );
}

#[tokio::test]
async fn malformed_names_and_numbers_are_named() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    for name in [
        "",
        "operations/",
        "operations/x",
        "operations/../users/me",
        &"x".repeat(10_000),
    ] {
        assert_fails(
            get(&admin, name).await,
            Code::InvalidArgument,
            ErrorReason::InvalidField,
        );
    }
    let missing = "operations/00000000-0000-4000-8000-000000000000";
    let outcome = read_log(&admin, missing, -1, -1).await;
    let status = assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
    let fields = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(
        fields.iter().map(|it| it.field.as_str()).collect::<Vec<_>>(),
        ["offset", "limit"]
    );
    let outcome = wait(&admin, missing, Duration::from_secs(301)).await;
    assert_fails(outcome, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn log_is_read_from_any_offset_through_the_other_instance() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let name = start_backup(&a, wish(&server)).await.unwrap().name;
    let empty = read_log(&b, &name, 0, 0).await.unwrap();
    assert_eq!(
        (empty.text.as_str(), empty.next_offset, empty.end),
        ("", 0, false)
    );

    let worker = Worker::of(&world).await;
    let attempt = worker.claim().await.attempt;
    worker
        .log(&attempt, "pg_dump: liest Tabelle »Größe«\n".as_bytes())
        .await;
    // Cut within a character, as a pipe does.
    worker.log(&attempt, &"€ 🐘".as_bytes()[..2]).await;
    let first = "pg_dump: liest Tabelle »Größe«\n";
    for limit in [0, 1, 5, 7, 1_000_000] {
        let (text, offset, end) = read_on(&b, &name, 0, limit).await;
        assert_eq!(
            (text.as_str(), offset, end),
            (first, first.len() as i64, false),
            "{limit}"
        );
    }
    worker.log(&attempt, &"€ 🐘".as_bytes()[2..]).await;
    let (text, offset, end) = read_on(&a, &name, first.len() as i64, 0).await;
    assert_eq!((text.as_str(), end), ("€ 🐘", false));
    worker.log(&attempt, b"latin1: \xfc\n").await;
    worker.finish(&attempt, OperationOutcome::Succeeded).await;
    for limit in [0, 4] {
        let (text, size, end) = read_on(&b, &name, offset, limit).await;
        assert_eq!(
            (text.as_str(), size, end),
            ("latin1: \u{fffd}\n", offset + 10, true),
            "{limit}"
        );
        assert_eq!(get(&a, &name).await.unwrap().log_size_bytes, size);
    }
    let beyond = read_log(&a, &name, offset + 11, 0).await;
    let status = assert_fails(beyond, Code::OutOfRange, ErrorReason::OffsetOutOfRange);
    assert_eq!(
        status.get_details_error_info().unwrap().metadata["offset"],
        (offset + 10).to_string()
    );
}

#[tokio::test]
async fn waits_end_when_the_operation_ends_through_the_other_instance() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let cancelled = start_backup(&a, wish(&server)).await.unwrap().name;
    let waits = join_all((0..20).map(|_| wait(&a, &cancelled, DEADLINE)));
    let (waited, cancelling) = tokio::join!(waits, cancel(&b, &cancelled));
    assert_eq!(cancelling.unwrap().state(), OperationState::Cancelled);
    for operation in waited {
        assert_eq!(operation.unwrap().state(), OperationState::Cancelled);
    }

    let (first, second) = (
        start_backup(&a, wish(&server)).await,
        start_backup(&a, wish(&server)).await,
    );
    let (first, second) = (first.unwrap().name, second.unwrap().name);
    let worker = Worker::of(&world).await;
    let attempt = worker.claim().await.attempt;
    let still_waiting = wait(&a, &second, Duration::from_secs(60));
    tokio::pin!(still_waiting);
    let finished = async {
        let waiting = wait(&a, &first, Duration::from_secs(60));
        let (waited, ()) = tokio::join!(waiting, worker.finish(&attempt, OperationOutcome::Succeeded));
        waited.unwrap()
    };
    tokio::select! {
        other = &mut still_waiting => panic!("the other operation has not ended: {other:?}"),
        operation = finished => assert_eq!(operation.state(), OperationState::Succeeded),
    }
    // The call that looked for both is gone, and the one that is left looks on.
    let (waited, ending) = tokio::join!(still_waiting, cancel(&b, &second));
    assert!(ending.unwrap().done && waited.unwrap().done);
}

#[tokio::test]
async fn wait_answers_when_its_time_or_its_callers_is_over() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    let name = start_backup(&admin, wish(&server)).await.unwrap().name;
    let operation = wait(&admin, &name, Duration::from_millis(100)).await.unwrap();
    assert_eq!(
        (operation.state(), operation.done),
        (OperationState::Queued, false)
    );

    // Its own deadline is far, the caller's is near: there is an answer before it.
    let timeout = Duration::from_secs(120).try_into().ok();
    let mut request = Request::new(WaitOperationRequest { name, timeout });
    request.set_timeout(Duration::from_secs(2));
    let answer = admin
        .operations()
        .wait_operation(request)
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.operation.unwrap().done);
}

#[tokio::test]
async fn wait_for_a_forgotten_operation_ends() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    let name = start_backup(&admin, wish(&server)).await.unwrap().name;
    let mut waiting = Box::pin(wait(&admin, &name, Duration::from_secs(120)));
    assert!(futures::poll!(&mut waiting).is_pending());
    let id = name.strip_prefix("operations/").unwrap();
    let owner = world.database.connect().await;
    owner
        .batch_execute(&format!("DELETE FROM pgmoor.operations WHERE id = '{id}'"))
        .await
        .unwrap();
    assert_fails(waiting.await, Code::NotFound, ErrorReason::ResourceNotFound);
}

#[tokio::test]
async fn wait_ends_when_its_instance_drains() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    let name = start_backup(&admin, wish(&server)).await.unwrap().name;
    let mut waiting = Box::pin(wait(&admin, &name, Duration::from_secs(120)));
    assert!(futures::poll!(&mut waiting).is_pending());
    // Sent after the wait on the same connection: once it is answered, the wait has come in.
    get(&admin, &name).await.unwrap();
    world.a.drain.cancel();
    assert!(!waiting.await.unwrap().done);
}

#[tokio::test]
async fn wait_of_a_disabled_user_ends() {
    let world = World::start().await;
    let member = world.member("alice").await;
    // The administrator brings the instance in, which a member may not.
    server(&world.a.login(ADMIN).await).await;
    let server = server(&member.caller).await;
    let name = start_backup(&member.caller, wish(&server)).await.unwrap().name;
    let mut waiting = Box::pin(wait(&member.caller, &name, Duration::from_secs(120)));
    assert!(futures::poll!(&mut waiting).is_pending());
    get(&member.caller, &name).await.unwrap();
    let user = User {
        name: member.name,
        disabled: true,
        ..User::default()
    };
    let request = UpdateUserRequest {
        user: Some(user),
        update_mask: None,
    };
    world
        .b
        .login(ADMIN)
        .await
        .users()
        .update_user(request)
        .await
        .unwrap();
    assert_fails(waiting.await, Code::Unauthenticated, ErrorReason::TokenRevoked);
}

#[tokio::test]
async fn of_many_waits_one_looks_for_all() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let name = start_backup(&a, wish(&server)).await.unwrap().name;
    let mut waiting = JoinSet::new();
    waiting.spawn({
        let (a, name) = (a.clone(), name.clone());
        async move { join_all((0..50).map(|_| patient_wait(&a, &name))).await }
    });
    let owner = world.database.connect().await;
    let looks = async |condition: &str| looks(&owner, condition).await;
    eventually(DEADLINE, "somebody has looked", async || looks("true").await > 0).await;
    // A look now takes until this lock is gone, so that others which began beside it would be seen. Calls that have yet to
    // begin their wait read the table too, and could have every connection: then they are let through, and it is tried again.
    eventually(DEADLINE, "a look waits", async || {
        // Outside a transaction a COMMIT does nothing.
        owner
            .batch_execute("COMMIT; BEGIN; LOCK TABLE pgmoor.operations")
            .await
            .unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually(DEADLINE, "somebody waits", async || {
            owner.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        looks("wait_event_type = 'Lock'").await == 1
    })
    .await;
    let second = eventually(DEADLINE, "another one waits too", async || {
        looks("wait_event_type = 'Lock'").await > 1
    });
    let three_intervals = Duration::from_millis(1500);
    assert!(tokio::time::timeout(three_intervals, second).await.is_err());
    owner.batch_execute("COMMIT").await.unwrap();
    cancel(&b, &name).await.unwrap();
    let waited = waiting.join_next().await.unwrap().unwrap();
    assert!(waited.into_iter().all(|operation| operation.done));
}

/// Waits as automation does: a call that comes while the database is busy is made again.
async fn patient_wait(caller: &Caller, name: &str) -> Operation {
    loop {
        match wait(caller, name, DEADLINE).await {
            Err(status) if status.code() == Code::Unavailable => {}
            ended => return ended.unwrap(),
        }
    }
}

/// How many connections look for ended operations, or did so last, and meet the condition.
async fn looks(owner: &harness::Connection, condition: &str) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND query LIKE 'SELECT id FROM pgmoor.operations WHERE id = ANY%' AND {condition}"
    );
    owner.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn cancelling_again_changes_nothing() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let name = start_backup(&a, wish(&server)).await.unwrap().name;
    let worker = Worker::of(&world).await;
    let attempt = worker.claim().await.attempt;
    for caller in [&a, &b, &a] {
        let operation = cancel(caller, &name).await.unwrap();
        assert_eq!(
            (operation.state(), operation.cancel_requested),
            (OperationState::Running, true)
        );
    }
    worker.finish(&attempt, OperationOutcome::Cancelled).await;
    let ended = get(&a, &name).await.unwrap();
    assert_eq!(ended.state(), OperationState::Cancelled);
    assert_eq!(cancel(&b, &name).await.unwrap(), ended);
}

#[tokio::test]
async fn only_an_operation_that_has_ended_is_forgotten() {
    let world = World::start().await;
    let (a, b) = (world.a.login(ADMIN).await, world.b.login(ADMIN).await);
    let server = server(&a).await;
    let name = start_backup(&a, wish(&server)).await.unwrap().name;
    assert_fails(
        delete(&b, &name).await,
        Code::FailedPrecondition,
        ErrorReason::OperationRunning,
    );
    cancel(&a, &name).await.unwrap();
    delete(&b, &name).await.unwrap();
    assert_fails(
        get(&a, &name).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
    assert_fails(
        delete(&a, &name).await,
        Code::NotFound,
        ErrorReason::ResourceNotFound,
    );
}

#[tokio::test]
async fn waits_outlive_an_outage_of_the_config_database() {
    let cluster = harness::Cluster::start(harness::ClusterOptions::default()).await;
    let world = World::start_on(&cluster).await;
    let admin = world.a.login(ADMIN).await;
    let server = server(&admin).await;
    let name = start_backup(&admin, wish(&server)).await.unwrap().name;
    let mut waiting = JoinSet::new();
    waiting.spawn({
        let (admin, name) = (admin.clone(), name.clone());
        async move { wait(&admin, &name, Duration::from_secs(120)).await }
    });
    let owner = world.database.connect().await;
    eventually(DEADLINE, "it waits", async || looks(&owner, "true").await > 0).await;
    drop(owner);
    cluster.stop().await;
    cluster.start_again().await;
    eventually(DEADLINE, "calls work again", async || cancel(&admin, &name).await).await;
    let waited = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(waited.unwrap().state(), OperationState::Cancelled);
}
