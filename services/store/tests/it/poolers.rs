//! Poolers.

use std::time::Duration;

use domain::id::IncarnationId;
use domain::random::SystemRandom;
use domain::session::PoolerId;
use futures::future::join_all;
use store::poolers::{NewPooler, PoolerState, ProtocolRange};

use crate::support::{HOUR, World};

fn new_pooler(lease: Duration) -> NewPooler {
    NewPooler {
        incarnation: IncarnationId::generate(&SystemRandom),
        address: "pooler:7000".to_owned(),
        wire_address: None,
        protocol: ProtocolRange { min: 1, max: 2 },
        lease,
    }
}

#[tokio::test]
async fn poolers_that_start_at_once_get_ids_of_their_own() {
    let world = World::new().await;
    let new: Vec<_> = (0..5).map(|_| new_pooler(HOUR)).collect();
    let poolers = world.store.poolers();
    let made = join_all(new.iter().map(|new| poolers.register(new))).await;
    let mut ids: Vec<_> = made.into_iter().map(|pooler| pooler.unwrap().id).collect();
    ids.sort();
    assert_eq!(ids, (1..=5).map(PoolerId).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_poolers_with_a_lease_are_live() {
    let world = World::new().await;
    let poolers = world.store.poolers();
    let lapsed = poolers.register(&new_pooler(Duration::ZERO)).await.unwrap();
    let live = poolers.register(&new_pooler(HOUR)).await.unwrap();
    assert_eq!(poolers.list_live().await.unwrap(), std::slice::from_ref(&live));
    let alive = poolers
        .heartbeat(lapsed.incarnation, PoolerState::Draining, HOUR)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((alive.id, alive.state), (lapsed.id, PoolerState::Draining));
    assert_eq!(poolers.list_live().await.unwrap().len(), 2);
    poolers.deregister(live.incarnation).await.unwrap();
    poolers.deregister(live.incarnation).await.unwrap();
    assert!(
        poolers
            .heartbeat(live.incarnation, PoolerState::Serving, HOUR)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(poolers.list_live().await.unwrap(), [alive]);
}

#[tokio::test]
async fn registering_again_keeps_the_id_and_the_least_free_one_is_given() {
    let world = World::new().await;
    let poolers = world.store.poolers();
    let new = new_pooler(HOUR);
    let first = poolers.register(&new).await.unwrap();
    let second = poolers.register(&new_pooler(HOUR)).await.unwrap();
    assert_eq!(poolers.register(&new).await.unwrap().id, first.id);
    poolers.deregister(first.incarnation).await.unwrap();
    let third = poolers.register(&new_pooler(HOUR)).await.unwrap();
    assert_eq!((second.id, third.id), (PoolerId(2), first.id));
}
