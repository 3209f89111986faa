//! Operations and their logs.

use std::time::Duration;

use domain::id::{IncarnationId, OperationId, ServerId};
use domain::operation::{
    LOST, OperationFailure, OperationKind, OperationOutcome, OperationPhase, OperationProgress,
    OperationState,
};
use domain::random::SystemRandom;
use futures::future::join_all;
use store::operations::{
    AppendLogError, Attempt, AttemptError, DeleteOperationError, EnqueueError, Enqueued, Fate, NewOperation,
    ReadLogError, RequestId,
};
use store::servers::DeleteServerError;
use store::{PageRequest, PageSize};

use crate::support::{HOUR, World, new_operation};

const NOT_YET: OperationProgress = OperationProgress {
    phase: None,
    bytes_done: 0,
    bytes_total: None,
    objects_done: 0,
    objects_total: None,
};

fn superseded<T: std::fmt::Debug>(result: Result<T, AttemptError>) {
    assert!(matches!(result, Err(AttemptError::Superseded)), "{result:?}");
}

async fn state(world: &World, id: OperationId) -> OperationState {
    world.store.operations().get(id).await.unwrap().unwrap().state
}

/// Everything a worker can write is refused.
async fn is_fenced(world: &World, attempt: &Attempt) {
    let operations = world.store.operations();
    superseded(operations.heartbeat(attempt, &NOT_YET, HOUR).await);
    superseded(operations.finish(attempt, &OperationOutcome::Succeeded).await);
    superseded(
        operations
            .finish_backup(
                attempt,
                &crate::support::new_backup(domain::id::BackupId::generate(&SystemRandom)),
            )
            .await,
    );
    superseded(operations.hand_back(attempt).await);
    assert!(matches!(
        operations.append_log(attempt, b"x").await,
        Err(AppendLogError::Superseded)
    ));
}

#[tokio::test]
async fn operation_goes_from_queue_to_end() {
    let world = World::new().await;
    let server = world.any_server().await;
    let new = new_operation(&server, OperationKind::Restore);
    let new = NewOperation {
        backup_id: None,
        ..new
    };
    let queued = world.enqueue(&new).await;
    assert_eq!(
        (&queued.state, queued.attempt, queued.start_time),
        (&OperationState::Queued, 0, None)
    );
    assert_eq!(queued.request, new.request);
    let claimed = world.claim(HOUR).await;
    assert_eq!(
        (claimed.operation.id, &claimed.operation.state),
        (new.id, &OperationState::Running)
    );
    let progress = OperationProgress {
        phase: Some(OperationPhase::Writing),
        bytes_done: 1 << 40,
        bytes_total: Some(1 << 41),
        objects_done: 3,
        objects_total: None,
    };
    let operations = world.store.operations();
    let heartbeat = operations
        .heartbeat(&claimed.attempt, &progress, HOUR)
        .await
        .unwrap();
    assert!(!heartbeat.cancel_requested);
    assert_eq!(operations.get(new.id).await.unwrap().unwrap().progress, progress);
    let failure = OperationFailure {
        reason: "TOOL_FAILED".to_owned(),
        message: "pg_restore: error".to_owned(),
        exit_status: Some(1),
    };
    let ended = operations
        .finish(&claimed.attempt, &OperationOutcome::Failed(failure.clone()))
        .await
        .unwrap();
    assert_eq!(
        ended.state,
        OperationState::Ended(OperationOutcome::Failed(failure))
    );
    assert!(ended.end_time >= ended.start_time && ended.start_time.is_some());
    assert_eq!(operations.get(new.id).await.unwrap().unwrap(), ended);
    is_fenced(&world, &claimed.attempt).await;
}

#[tokio::test]
async fn workers_that_claim_at_once_get_different_operations_oldest_first() {
    let world = World::new().await;
    let server = world.any_server().await;
    let mut queued = Vec::new();
    for _ in 0..8 {
        queued.push(
            world
                .enqueue(&new_operation(&server, OperationKind::Backup))
                .await
                .id,
        );
    }
    let operations = world.store.operations();
    let workers: Vec<_> = (0..10).map(|_| IncarnationId::generate(&SystemRandom)).collect();
    let first = operations.claim(workers[0], HOUR).await.unwrap().unwrap();
    assert_eq!(first.operation.id, queued[0]);
    let claims = join_all(workers[1..].iter().map(|worker| operations.claim(*worker, HOUR))).await;
    let mut claimed: Vec<_> = claims
        .into_iter()
        .filter_map(|claim| claim.unwrap())
        .map(|it| it.operation.id)
        .collect();
    let mut expected = queued[1..].to_vec();
    claimed.sort();
    expected.sort();
    assert_eq!(claimed, expected);
}

#[tokio::test]
async fn request_that_is_sent_again_finds_its_operation() {
    let world = World::new().await;
    let server = world.any_server().await;
    let request_id = Some(RequestId {
        id: "r1".to_owned(),
        hash: [1; 32],
    });
    let new = || NewOperation {
        request_id: request_id.clone(),
        ..new_operation(&server, OperationKind::Backup)
    };
    let requests: Vec<_> = (0..5).map(|_| new()).collect();
    let operations = world.store.operations();
    let outcomes = join_all(requests.iter().map(|request| operations.enqueue(request))).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    let created = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Enqueued::Created(_)))
        .count();
    let ids: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Enqueued::Created(operation) | Enqueued::Existing(operation) => operation.id,
        })
        .collect();
    assert_eq!(created, 1);
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    let mut other = new();
    other.request_id = Some(RequestId {
        id: "r1".to_owned(),
        hash: [2; 32],
    });
    assert!(matches!(
        operations.enqueue(&other).await,
        Err(EnqueueError::RequestIdReused)
    ));
    world
        .database
        .execute("UPDATE pgmoor.operations SET create_time = now() - interval '25 hours'")
        .await;
    assert!(matches!(
        operations.enqueue(&other).await,
        Ok(Enqueued::Created(_))
    ));
}

#[tokio::test]
async fn operation_that_may_not_be_repeated_fails_with_its_worker() {
    let world = World::new().await;
    let server = world.any_server().await;
    let new = NewOperation {
        backup_id: None,
        ..new_operation(&server, OperationKind::Restore)
    };
    let queued = world.enqueue(&new).await;
    let operations = world.store.operations();
    let claimed = world.claim(Duration::ZERO).await;
    let lost = operations.reap_lost().await.unwrap();
    assert_eq!(
        lost.iter()
            .map(|lost| (lost.attempt, lost.fate))
            .collect::<Vec<_>>(),
        [(claimed.attempt, Fate::Failed)]
    );
    let OperationState::Ended(OperationOutcome::Failed(failure)) = state(&world, queued.id).await else {
        panic!("not failed");
    };
    assert_eq!(failure.reason, LOST);
    is_fenced(&world, &claimed.attempt).await;
    assert!(operations.reap_lost().await.unwrap().is_empty());
}

#[tokio::test]
async fn operation_that_may_be_repeated_is_taken_over_and_the_lost_worker_fenced() {
    let world = World::new().await;
    let server = world.any_server().await;
    let new = NewOperation {
        max_attempts: 2,
        ..new_operation(&server, OperationKind::Backup)
    };
    world.enqueue(&new).await;
    let operations = world.store.operations();
    let first = world.claim(Duration::ZERO).await;
    // A worker that is only late goes on.
    operations
        .heartbeat(&first.attempt, &NOT_YET, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(operations.reap_lost().await.unwrap()[0].fate, Fate::Requeued);
    is_fenced(&world, &first.attempt).await;
    let second = world.claim(Duration::ZERO).await;
    assert_eq!((second.operation.id, second.attempt.number), (new.id, 2));
    is_fenced(&world, &first.attempt).await;
    operations.append_log(&second.attempt, b"second").await.unwrap();
    assert_eq!(operations.reap_lost().await.unwrap()[0].fate, Fate::Failed);
}

#[tokio::test]
async fn reapers_at_once_deal_with_each_lost_operation_once() {
    let world = World::new().await;
    let server = world.any_server().await;
    for _ in 0..6 {
        world
            .enqueue(&new_operation(&server, OperationKind::Backup))
            .await;
        world.claim(Duration::ZERO).await;
    }
    let operations = world.store.operations();
    let reaped = join_all((0..4).map(|_| operations.reap_lost())).await;
    assert_eq!(
        reaped.into_iter().map(|lost| lost.unwrap().len()).sum::<usize>(),
        6
    );
}

#[tokio::test]
async fn worker_that_stops_hands_its_operation_back() {
    let world = World::new().await;
    let server = world.any_server().await;
    let queued = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let first = world.claim(HOUR).await;
    world.store.operations().hand_back(&first.attempt).await.unwrap();
    assert_eq!(state(&world, queued.id).await, OperationState::Queued);
    is_fenced(&world, &first.attempt).await;
    assert_eq!(world.claim(HOUR).await.attempt.number, 2);
}

#[tokio::test]
async fn cancellation_ends_what_waits_and_reaches_what_runs() {
    let world = World::new().await;
    let server = world.any_server().await;
    let operations = world.store.operations();
    let running = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let claimed = world.claim(HOUR).await;
    let waiting = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let cancelled = operations.cancel(waiting.id).await.unwrap().unwrap();
    assert_eq!(
        cancelled.state,
        OperationState::Ended(OperationOutcome::Cancelled)
    );
    assert!(cancelled.end_time.is_some());
    let asked = operations.cancel(running.id).await.unwrap().unwrap();
    assert_eq!(
        (&asked.state, asked.cancel_requested),
        (&OperationState::Running, true)
    );
    assert!(
        operations
            .heartbeat(&claimed.attempt, &NOT_YET, HOUR)
            .await
            .unwrap()
            .cancel_requested
    );
    operations
        .finish(&claimed.attempt, &OperationOutcome::Cancelled)
        .await
        .unwrap();
    let ended = operations.get(running.id).await.unwrap().unwrap();
    assert_eq!(operations.cancel(running.id).await.unwrap().unwrap(), ended);
    assert!(
        operations
            .cancel(OperationId::generate(&SystemRandom))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn cancelled_operation_of_a_lost_worker_is_cancelled() {
    let world = World::new().await;
    let server = world.any_server().await;
    let new = NewOperation {
        max_attempts: 5,
        ..new_operation(&server, OperationKind::Backup)
    };
    let queued = world.enqueue(&new).await;
    world.claim(Duration::ZERO).await;
    world.store.operations().cancel(queued.id).await.unwrap();
    assert_eq!(
        world.store.operations().reap_lost().await.unwrap()[0].fate,
        Fate::Cancelled
    );
    assert_eq!(
        state(&world, queued.id).await,
        OperationState::Ended(OperationOutcome::Cancelled)
    );
}

#[tokio::test]
async fn log_is_read_from_any_offset() {
    let world = World::new().await;
    let server = world.any_server().await;
    let queued = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let claimed = world.claim(HOUR).await;
    let operations = world.store.operations();
    for (piece, size) in [("hello ", 6), ("", 6), ("wörld", 12), ("!", 13)] {
        assert_eq!(
            operations
                .append_log(&claimed.attempt, piece.as_bytes())
                .await
                .unwrap(),
            size
        );
    }
    let whole = "hello wörld!".as_bytes();
    for offset in 0..=whole.len() {
        for limit in 0..=whole.len() + 1 {
            let piece = operations
                .read_log(queued.id, offset as u64, limit as u32)
                .await
                .unwrap();
            let stop = whole.len().min(offset + limit);
            assert_eq!(
                (piece.data.as_slice(), piece.next_offset),
                (&whole[offset..stop], stop as u64),
                "{offset} {limit}"
            );
            assert!(!piece.end);
        }
    }
    operations
        .finish(&claimed.attempt, &OperationOutcome::Succeeded)
        .await
        .unwrap();
    assert!(operations.read_log(queued.id, 13, 10).await.unwrap().end);
    assert!(!operations.read_log(queued.id, 0, 12).await.unwrap().end);
    let beyond = operations.read_log(queued.id, 14, 1).await;
    assert!(
        matches!(beyond, Err(ReadLogError::OffsetOutOfRange { size: 13 })),
        "{beyond:?}"
    );
    let nothing = operations
        .read_log(OperationId::generate(&SystemRandom), 0, 1)
        .await;
    assert!(matches!(nothing, Err(ReadLogError::NotFound)), "{nothing:?}");
}

#[tokio::test]
async fn log_has_a_limit() {
    let world = World::new().await;
    let server = world.any_server().await;
    world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let claimed = world.claim(HOUR).await;
    let operations = world.store.operations();
    let limit = usize::try_from(store::operations::LOG_LIMIT).unwrap();
    operations
        .append_log(&claimed.attempt, &vec![b'x'; limit])
        .await
        .unwrap();
    assert!(matches!(
        operations.append_log(&claimed.attempt, b"x").await,
        Err(AppendLogError::Full)
    ));
}

#[tokio::test]
async fn server_with_an_operation_is_not_deleted() {
    let world = World::new().await;
    let server = world.any_server().await;
    let queued = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let error = world.store.servers().delete(server.id, None).await.unwrap_err();
    assert!(
        matches!(&error, DeleteServerError::InUse { operations } if *operations == [queued.id]),
        "{error:?}"
    );
    world.store.operations().cancel(queued.id).await.unwrap();
    world.store.servers().delete(server.id, None).await.unwrap();
    let error = world
        .store
        .operations()
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await
        .unwrap_err();
    assert!(matches!(error, EnqueueError::ServerNotFound));
    // What has ended outlives its server.
    assert_eq!(
        world
            .store
            .operations()
            .get(queued.id)
            .await
            .unwrap()
            .unwrap()
            .server_id,
        server.id
    );
}

#[tokio::test]
async fn deletion_of_a_server_and_an_operation_on_it_exclude_each_other() {
    let world = World::new().await;
    let user = world.user("ann").await;
    for round in 0..10 {
        let server = world.server(&user, &format!("server{round}"), "a").await;
        let new = new_operation(&server, OperationKind::Backup);
        let operations = world.store.operations();
        let servers = world.store.servers();
        let (queued, deleted) = tokio::join!(operations.enqueue(&new), servers.delete(server.id, None));
        assert_ne!(queued.is_ok(), deleted.is_ok(), "{queued:?} {deleted:?}");
    }
}

#[tokio::test]
async fn only_what_has_ended_is_forgotten() {
    let world = World::new().await;
    let server = world.any_server().await;
    let queued = world
        .enqueue(&new_operation(&server, OperationKind::Backup))
        .await;
    let claimed = world.claim(HOUR).await;
    let operations = world.store.operations();
    operations.append_log(&claimed.attempt, b"x").await.unwrap();
    assert!(matches!(
        operations.delete(queued.id).await,
        Err(DeleteOperationError::Running)
    ));
    assert_eq!(operations.prune(Duration::ZERO).await.unwrap(), 0);
    operations
        .finish(&claimed.attempt, &OperationOutcome::Succeeded)
        .await
        .unwrap();
    assert_eq!(operations.prune(HOUR).await.unwrap(), 0);
    operations.delete(queued.id).await.unwrap();
    assert!(matches!(
        operations.delete(queued.id).await,
        Err(DeleteOperationError::NotFound)
    ));
    assert!(matches!(
        operations.read_log(queued.id, 0, 1).await,
        Err(ReadLogError::NotFound)
    ));
}

#[tokio::test]
async fn operations_are_listed_newest_first() {
    let world = World::new().await;
    let server = world.any_server().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(
            world
                .enqueue(&new_operation(&server, OperationKind::Backup))
                .await
                .id,
        );
    }
    made.reverse();
    let operations = world.store.operations();
    let mut request = PageRequest {
        size: PageSize::new(2),
        after: None,
    };
    let mut listed = Vec::new();
    loop {
        let page = operations.list(server.owner_id, &request).await.unwrap();
        listed.extend(page.items.iter().map(|operation| operation.id));
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(listed, made);
    let unknown = ServerId::generate(&SystemRandom);
    let elsewhere = NewOperation {
        server_id: unknown,
        ..new_operation(&server, OperationKind::Backup)
    };
    let error = operations.enqueue(&elsewhere).await;
    assert!(matches!(error, Err(EnqueueError::ServerNotFound)));
}

#[tokio::test]
async fn of_many_operations_those_that_go_on_are_found() {
    let world = World::new().await;
    let server = world.any_server().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            world
                .enqueue(&new_operation(&server, OperationKind::Backup))
                .await
                .id,
        );
    }
    let claimed = world.claim(HOUR).await;
    let operations = world.store.operations();
    operations.cancel(ids[1]).await.unwrap();
    let mut asked = ids.clone();
    asked.push(OperationId::generate(&SystemRandom));
    let unfinished = operations.unfinished(&asked).await.unwrap();
    assert_eq!(unfinished, [ids[0], ids[2]].into_iter().collect());
    operations
        .finish(&claimed.attempt, &OperationOutcome::Succeeded)
        .await
        .unwrap();
    let unfinished = operations.unfinished(&asked).await.unwrap();
    assert_eq!(unfinished, [ids[2]].into_iter().collect());
    assert!(operations.unfinished(&[]).await.unwrap().is_empty());
}
