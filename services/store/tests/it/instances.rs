//! Instances.

use domain::id::InstanceId;
use domain::limits::{Limit, Limits};
use domain::random::SystemRandom;
use futures::future::join_all;
use store::instances::{
    Budget, Facts, InstanceChange, InstanceScope, RecogniseError, Recognised, UpdateInstanceError,
};
use store::{PageRequest, PageSize};
use time::OffsetDateTime;

use crate::support::{World, destination, new_server};

/// What the postmaster says that started `second` seconds after the epoch.
fn facts(system_identifier: &str, second: i64) -> Facts {
    Facts {
        system_identifier: system_identifier.to_owned(),
        postmaster_start_time: OffsetDateTime::from_unix_timestamp(second).unwrap(),
        server_version: "15.4".to_owned(),
    }
}

#[tokio::test]
async fn endpoints_lead_to_one_instance_whoever_registers_them_at_once() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let new: Vec<_> = (0..5)
        .map(|index| new_server(user.id, &format!("s{index}"), "DB.example.com"))
        .collect();
    let servers = world.store.servers();
    let made = join_all(new.iter().map(|new| servers.create(new, None))).await;
    let made: Vec<_> = made
        .into_iter()
        .map(|server| server.unwrap().instance_id)
        .collect();
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]), "{made:?}");
    let instance = world.store.instances().get(made[0]).await.unwrap().unwrap();
    assert_eq!(instance.destination, destination("db.example.com"));
    assert_eq!(
        instance.budget,
        Budget {
            max_connections: 20,
            reserved_connections: 5
        }
    );
    assert_eq!(instance.facts, None);
}

#[tokio::test]
async fn limits_are_chosen_one_by_one_and_set_back() {
    let world = World::new().await;
    let id = world.instance("a").await;
    let instances = world.store.instances();
    let choose = |limits: &[(Limit, Option<u64>)]| InstanceChange {
        limits: limits.to_vec(),
        ..InstanceChange::default()
    };
    let chosen = choose(&[(Limit::PoolSize, Some(3)), (Limit::QueryTimeout, Some(90_000))]);
    instances.update(id, chosen).await.unwrap();
    let changed = instances
        .update(id, choose(&[(Limit::PoolSize, None)]))
        .await
        .unwrap();
    assert_eq!(changed.limits.chosen(Limit::PoolSize), None);
    assert_eq!(changed.limits.get(Limit::QueryTimeout), 90_000);
    assert_eq!(instances.get(id).await.unwrap().unwrap(), changed);
}

#[tokio::test]
async fn limits_of_another_version_do_no_harm() {
    let world = World::new().await;
    let id = world.instance("a").await;
    let sql =
        r#"UPDATE pgmoor.instances SET limits = '{"new_one": 5, "max_waiting": 0, "pool_size": "many"}'"#;
    world.database.connect().await.batch_execute(sql).await.unwrap();
    let instance = world.store.instances().get(id).await.unwrap().unwrap();
    assert_eq!(instance.limits, Limits::default());
}

#[tokio::test]
async fn budget_is_changed_within_its_bounds() {
    let world = World::new().await;
    let id = world.instance("a").await;
    let instances = world.store.instances();
    let change = InstanceChange {
        max_connections: Some(30),
        ..InstanceChange::default()
    };
    let changed = instances.update(id, change.clone()).await.unwrap();
    assert_eq!(
        changed.budget,
        Budget {
            max_connections: 30,
            reserved_connections: 5
        }
    );
    let stale = InstanceChange {
        etag: Some(store::Etag::new("1")),
        ..change
    };
    assert!(matches!(
        instances.update(id, stale).await.unwrap_err(),
        UpdateInstanceError::EtagMismatch
    ));
    let wrong = InstanceChange {
        reserved_connections: Some(30),
        ..InstanceChange::default()
    };
    assert!(matches!(
        instances.update(id, wrong).await.unwrap_err(),
        UpdateInstanceError::BudgetOutOfRange
    ));
    let nothing = InstanceId::generate(&SystemRandom);
    let error = instances
        .update(nothing, InstanceChange::default())
        .await
        .unwrap_err();
    assert!(matches!(error, UpdateInstanceError::NotFound));
}

#[tokio::test]
async fn instances_that_are_one_postmaster_become_the_older_one() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let by_name = world.server(&user, "by name", "db.example.com").await;
    let by_address = world.server(&user, "by address", "10.0.0.1").await;
    let instances = world.store.instances();
    let same = Recognised::Same { absorbed: Vec::new() };
    assert_eq!(
        instances
            .recognise(by_name.instance_id, &facts("7", 1))
            .await
            .unwrap(),
        same
    );
    let merged = instances
        .recognise(by_address.instance_id, &facts("7", 1))
        .await
        .unwrap();
    assert_eq!(merged, Recognised::MergedInto(by_name.instance_id));
    let moved = world.store.servers().get(by_address.id).await.unwrap().unwrap();
    assert_eq!(moved.instance_id, by_name.instance_id);
    assert_ne!(moved.etag, by_address.etag);
    assert!(instances.get(by_address.instance_id).await.unwrap().is_none());
    // Whoever registers the address later gets the same instance.
    assert_eq!(
        world.server(&user, "again", "10.0.0.1").await.instance_id,
        by_name.instance_id
    );
    let error = instances
        .recognise(by_address.instance_id, &facts("7", 1))
        .await
        .unwrap_err();
    assert!(matches!(error, RecogniseError::NotFound));
}

#[tokio::test]
async fn older_instance_absorbs_the_younger_that_was_recognised_first() {
    let world = World::new().await;
    let (older, younger) = (world.instance("a").await, world.instance("b").await);
    let instances = world.store.instances();
    instances.recognise(younger, &facts("7", 1)).await.unwrap();
    let recognised = instances.recognise(older, &facts("7", 1)).await.unwrap();
    assert_eq!(
        recognised,
        Recognised::Same {
            absorbed: vec![younger]
        }
    );
    assert_eq!(
        instances.get(older).await.unwrap().unwrap().facts,
        Some(facts("7", 1))
    );
}

#[tokio::test]
async fn instances_recognised_at_once_see_each_other() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for host in ["a", "b", "c", "d"] {
        ids.push(world.instance(host).await);
    }
    let instances = world.store.instances();
    let same = facts("7", 1);
    for outcome in join_all(ids.iter().map(|id| instances.recognise(*id, &same))).await {
        // One that was absorbed meanwhile is gone.
        assert!(
            matches!(outcome, Ok(_) | Err(RecogniseError::NotFound)),
            "{outcome:?}"
        );
    }
    let left = instances
        .list(InstanceScope::All, &PageRequest::default())
        .await
        .unwrap()
        .items;
    assert_eq!(
        left.iter().map(|instance| instance.id).collect::<Vec<_>>(),
        ids[..1]
    );
}

#[tokio::test]
async fn standby_shares_the_system_identifier_and_stays_apart() {
    let world = World::new().await;
    let (primary, standby) = (world.instance("a").await, world.instance("b").await);
    let instances = world.store.instances();
    let same = Recognised::Same { absorbed: Vec::new() };
    assert_eq!(instances.recognise(primary, &facts("7", 1)).await.unwrap(), same);
    assert_eq!(instances.recognise(standby, &facts("7", 2)).await.unwrap(), same);
    // A restart is noted; saying the same again changes nothing.
    assert_eq!(instances.recognise(primary, &facts("7", 3)).await.unwrap(), same);
    let before = instances.get(primary).await.unwrap().unwrap();
    assert_eq!(instances.recognise(primary, &facts("7", 3)).await.unwrap(), same);
    assert_eq!(instances.get(primary).await.unwrap().unwrap(), before);
    assert_eq!(before.facts, Some(facts("7", 3)));
}

#[tokio::test]
async fn users_see_the_instances_of_their_servers_oldest_first() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let mut of_ann = Vec::new();
    for host in ["a", "b", "c"] {
        of_ann.push(world.server(&ann, host, host).await.instance_id);
    }
    world.server(&bob, "d", "d").await;
    let instances = world.store.instances();
    let mut request = PageRequest {
        size: PageSize::new(2),
        after: None,
    };
    let first = instances
        .list(InstanceScope::ServersOf(ann.id), &request)
        .await
        .unwrap();
    request.after = first.next.clone();
    let second = instances
        .list(InstanceScope::ServersOf(ann.id), &request)
        .await
        .unwrap();
    let listed: Vec<_> = first
        .items
        .iter()
        .chain(&second.items)
        .map(|instance| instance.id)
        .collect();
    assert_eq!((listed, second.next), (of_ann, None));
    let all = instances
        .list(InstanceScope::All, &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(all.items.len(), 4);
}
