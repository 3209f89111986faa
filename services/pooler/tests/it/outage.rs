//! What a pooler does while the config database does not take what it has to say.

use std::sync::Arc;
use std::time::Duration;

use domain::clock::{Clock as _, ManualClock, SystemClock};
use domain::limits::Limit;
use domain::random::SystemRandom;
use harness::eventually;
use pooler::{Pooler, PoolerOptions};
use rpc::errors::v1::ErrorReason;
use rpc::query::v1::ExecuteRequest;
use sealing::Opener;
use sessions::Sessions as _;

use crate::support::{DEADLINE, Run, World, egress, name, reason, split, verifier};

/// Connections that are not recorded yet, at most.
const MOST_IN_FLIGHT: usize = 4;

#[tokio::test]
async fn connections_that_cannot_be_recorded_are_four_at_most() {
    let world = World::new().await;
    world.set_limits(&[(Limit::ServerConnectTimeout, 1)]).await;
    // Who the instance is has to be known, and sessions that need no connection before their first statement be there.
    world.open().await;
    let mut sessions = Vec::new();
    for _ in 0..=MOST_IN_FLIGHT {
        sessions.push(world.open_auto().await);
    }
    let hide = "ALTER TABLE pgmoor.pooler_connections RENAME TO hidden";
    world.config().execute(hide).await;
    let last = sessions.pop().unwrap();
    for session in sessions {
        assert_eq!(world.run(session, "BEGIN").await.tags(), ["BEGIN"]);
    }
    let begin = ExecuteRequest {
        script: Some(split("BEGIN")),
        ..ExecuteRequest::default()
    };
    let refused = world.try_execute(last, begin).await.err().unwrap();
    assert_eq!(reason(&refused), ErrorReason::ConfigDatabaseUnavailable);
    let show = "ALTER TABLE pgmoor.hidden RENAME TO pooler_connections";
    world.config().execute(show).await;
    eventually(DEADLINE, "sessions can be opened again", async || {
        let opened = world.try_open(world.open_request()).await;
        opened.map(drop).map_err(|status| status.message().to_owned())
    })
    .await;
    assert_eq!(world.run(last, "BEGIN").await.tags(), ["BEGIN"]);
}

#[tokio::test]
async fn pooler_that_slept_for_longer_than_its_lease_opens_nothing() {
    let world = World::new().await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let options = PoolerOptions::new("127.0.0.1:2".to_owned(), egress(&[world.cluster.port()]));
    let lease = options.lease;
    let pooler = Pooler::start(
        world.store.clone(),
        verifier(&world.store).await,
        Opener::new([world.opening_key.clone()]),
        clock.clone(),
        Arc::new(SystemRandom),
        options,
    )
    .await
    .unwrap();
    let open = async || {
        let instance = world.server.instance_id;
        pooler
            .open_session(&world.token, instance, world.open_request())
            .await
    };
    let session = name(&open().await.unwrap());
    // Claims and renewals come to nothing from now on. Who owns the instance needs none for now.
    let locking = world.config().connect().await;
    let lock = "BEGIN; LOCK TABLE pgmoor.instance_owners";
    locking.batch_execute(lock).await.unwrap();
    assert!(open().await.is_ok());
    clock.advance((lease + Duration::from_secs(1)).try_into().unwrap());
    let refused = open().await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::ConfigDatabaseUnavailable);
    // What is open stays open.
    let request = ExecuteRequest {
        script: Some(split("SELECT 1")),
        ..ExecuteRequest::default()
    };
    let run = Run::read(pooler.execute(&world.token, session, request).await.unwrap()).await;
    assert_eq!(run.rows(), [[Some("1".to_owned())]]);
    locking.batch_execute("ROLLBACK").await.unwrap();
    eventually(DEADLINE, "sessions can be opened again", async || {
        open()
            .await
            .map(drop)
            .map_err(|status| status.message().to_owned())
    })
    .await;
}
