//! What an owner may not have done any more ends while it runs.

use std::path::PathBuf;
use std::time::Duration;

use domain::access::{Access, GrantLimits, Principal};
use domain::id::{BackupId, GrantId, OperationId, UserId};
use domain::name::Identifier;
use domain::random::SystemRandom;
use harness::{Connection, eventually};
use store::grants::GrantTerms;
use store::users::{NewUser, UserChange};

use crate::world::{DEADLINE, World};

/// Longest time from a revocation to the end of what it ends: 5 s to see it, and what the program needs to go.
const END: Duration = Duration::from_secs(15);

/// A backup of `other` that waits for a lock.
async fn blocked_backup(world: &World) -> (Connection, OperationId) {
    let blocker = world.owner().await;
    blocker.batch_execute("BEGIN; LOCK other.t").await.unwrap();
    let id = world.backup(&["other"]).await;
    world.blocked(id).await;
    (blocker, id)
}

async fn disable(world: &World, user: UserId) {
    let change = UserChange {
        display_name: None,
        administrator: None,
        disabled: Some(true),
        etag: None,
    };
    world.store.users().update(user, change).await.unwrap();
}

async fn revoked(world: &World, id: OperationId) {
    let failure = tokio::time::timeout(END, world.failed(id)).await;
    assert_eq!(failure.expect("an end in time").reason, "ACCESS_REVOKED");
    assert_eq!(world.backends(id).await, 0);
    assert!(
        world
            .log(id)
            .await
            .contains("the owner of the operation does not have"),
        "{}",
        world.log(id).await
    );
}

async fn backup_is_there(world: &World, id: OperationId) -> bool {
    let backup: BackupId = world.operation(id).await.backup_id.unwrap();
    world.store.backups().get(backup).await.unwrap().is_some()
}

#[tokio::test]
async fn backup_ends_when_its_owner_is_disabled_and_nothing_is_published() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let (_blocker, id) = blocked_backup(&world).await;
    disable(&world, world.user).await;
    revoked(&world, id).await;
    assert!(!backup_is_there(&world, id).await);
    assert_eq!(world.artifact_files(), Vec::<PathBuf>::new());
    eventually(DEADLINE, "the slot is given back", async || {
        world.slots.now() == 0
    })
    .await;
}

#[tokio::test]
async fn restore_ends_in_the_middle_when_its_grant_is_revoked() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let backup = world.succeeded(world.backup(&["shop"]).await).await.backup_id;
    let bob = NewUser {
        id: UserId::generate(&SystemRandom),
        username: "bob".parse().unwrap(),
        display_name: "Bob".parse().unwrap(),
        password_hash: None,
        administrator: false,
    };
    let bob = world.store.users().create(bob).await.unwrap().id;
    let grant = GrantId::generate(&SystemRandom);
    let terms = GrantTerms {
        access: Access::ReadWrite,
        databases: std::collections::BTreeSet::<Identifier>::new(),
        limits: GrantLimits::default(),
        expire_time: None,
    };
    let server = world.server.id;
    let grants = world.store.grants();
    grants
        .create(grant, server, Principal::User(bob), &terms)
        .await
        .unwrap();
    let owner = world.owner().await;
    owner.batch_execute("DROP SCHEMA shop CASCADE").await.unwrap();
    owner.batch_execute("BEGIN; CREATE SCHEMA shop").await.unwrap();
    let id = world.restore_as(bob, backup.unwrap()).await;
    world.blocked(id).await;
    grants.delete(server, grant, None).await.unwrap();
    revoked(&world, id).await;
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert!(!world.exists("shop").await);
}

#[tokio::test]
async fn operation_goes_on_while_rights_cannot_be_read() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let (blocker, id) = blocked_backup(&world).await;
    // What decides is locked against readers, and the operation itself is not.
    let config = world.config().await;
    config
        .batch_execute("BEGIN; LOCK pgmoor.server_grants IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    // Two looks wait in vain.
    eventually(DEADLINE, "a look waits", async || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
        let name = world.config_name().to_owned();
        let connection = world.cluster.connect().await;
        let row = connection.query_one(query, &[&name]).await.unwrap();
        row.get::<_, i64>(0) > 0
    })
    .await;
    assert!(world.backends(id).await > 0);
    config.batch_execute("COMMIT").await.unwrap();
    blocker.batch_execute("COMMIT").await.unwrap();
    world.succeeded(id).await;
    assert!(backup_is_there(&world, id).await);
}
