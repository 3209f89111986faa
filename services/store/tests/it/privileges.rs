//! What the group roles may and may not.

use std::time::Duration;

use domain::credential::CredentialKind;
use domain::id::{CredentialId, IncarnationId};
use domain::operation::{OperationKind, OperationProgress};
use domain::random::SystemRandom;
use store::StoreError;
use store::inspection_policies::InspectionPolicy;
use store::instance_owners::{Claim, Claimant};
use store::instances::{Facts, InstanceChange, Recognised};
use store::operations::{NewOperation, RequestId};
use store::poolers::{NewPooler, PoolerState, ProtocolRange};
use store::servers::{ImportMode, NewCredential, ServerChange};
use store::signing_keys::{NewSigningKey, PrivateKey, SigningKeyId};

use crate::support::{HOUR, World, destination, new_backup, new_operation, new_server, new_user};

async fn denied(world: &World, group: &str, statements: &[&str]) {
    let (_, login) = world.store_as(group).await;
    let connection = world.database.connect_as(&login).await;
    for statement in statements {
        let error = connection.batch_execute(statement).await.expect_err(statement);
        let code = error.as_db_error().expect(statement).code().code().to_owned();
        assert_eq!(code, "42501", "{group}: {statement}: {error:?}");
    }
}

#[tokio::test]
async fn only_the_api_reads_private_keys_and_passwords_and_writes_accounts() {
    let world = World::new().await;
    let forbidden = [
        "SELECT private_key FROM pgmoor.signing_keys",
        "SELECT * FROM pgmoor.signing_keys",
        "SELECT password_hash FROM pgmoor.users",
        "INSERT INTO pgmoor.users (id, username, username_key, display_name) \
         VALUES (gen_random_uuid(), 'x', 'x', 'x')",
        "UPDATE pgmoor.users SET administrator = true",
        "DELETE FROM pgmoor.users",
        "SELECT * FROM pgmoor.logins",
        "SELECT * FROM pgmoor.refresh_tokens",
        "UPDATE pgmoor.settings SET value = NULL",
        "INSERT INTO pgmoor.settings_layers (layer) VALUES ('defaults')",
        "DELETE FROM pgmoor.revocations",
        "UPDATE pgmoor.counters SET revision = 0",
        "INSERT INTO pgmoor.signing_keys (id, private_key, public_key) VALUES (gen_random_uuid(), '', '')",
        "CREATE TABLE pgmoor.mine ()",
        "SELECT * FROM pgmoor.schema_migrations",
    ];
    for group in ["pgmoor_pooler", "pgmoor_worker"] {
        denied(&world, group, &forbidden).await;
    }
    denied(&world, "pgmoor_worker", &["SELECT hash FROM pgmoor.api_tokens"]).await;
    denied(
        &world,
        "pgmoor_api",
        &["CREATE TABLE pgmoor.mine ()", "DROP TABLE pgmoor.users"],
    )
    .await;
}

#[tokio::test]
async fn api_does_its_work_with_its_own_role() {
    let world = World::new().await;
    let (store, _) = world.store_as("pgmoor_api").await;
    store.check_schema().await.unwrap();
    let user = store.users().create_first(new_user("ann", true)).await.unwrap();
    store.users().get_with_password(user.id).await.unwrap().unwrap();
    let new = NewSigningKey {
        id: SigningKeyId::from_u128(1),
        private_key: PrivateKey::Clear(secrecy::SecretBox::new(Box::new([1; 32]))),
        public_key: [2; 32],
    };
    store.signing_keys().current_or_insert(new).await.unwrap();
    store.users().set_password(user.id, &"x".into()).await.unwrap();
    world
        .store
        .sealing_keys()
        .publish("key1", &[1; 32])
        .await
        .unwrap();
    assert_eq!(
        store.sealing_keys().current().await.unwrap().unwrap().key_id,
        "key1"
    );
    let sealed = NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: vec![1],
        key_id: "key1".to_owned(),
    };
    let new = new_server(user.id, "one", "a");
    let server = store.servers().create(&new, Some(&sealed)).await.unwrap();
    store
        .servers()
        .set_credential(server.id, Some(&sealed), &server.etag)
        .await
        .unwrap();
    let change = ServerChange {
        destination: Some(destination("b")),
        ..ServerChange::default()
    };
    let moved = store.servers().update(server.id, &change).await.unwrap();
    store
        .instances()
        .update(moved.instance_id, InstanceChange::default())
        .await
        .unwrap();
    store.servers().import(&new, ImportMode::Apply).await.unwrap();
    assert!(
        store
            .instance_owners()
            .owner_of(moved.instance_id)
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.poolers().list_live().await.unwrap().is_empty());
    store.servers().delete(server.id, None).await.unwrap();
}

#[tokio::test]
async fn pooler_does_its_work_with_its_own_role() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (one, two) = (
        world.server(&user, "one", "a").await,
        world.server(&user, "two", "b").await,
    );
    let (store, _) = world.store_as("pgmoor_pooler").await;
    store.check_schema().await.unwrap();
    assert_eq!(store.users().get(user.id).await.unwrap().unwrap(), user);
    assert_eq!(store.users().current(&[user.id]).await.unwrap(), [user]);
    assert!(store.signing_keys().verifying().await.unwrap().is_empty());
    assert!(store.revocations_since(0).await.unwrap().revocations.is_empty());
    assert!(store.api_tokens().find(&[0; 32]).await.unwrap().is_none());
    store.sealing_keys().publish("key1", &[1; 32]).await.unwrap();
    assert!(
        store
            .servers()
            .credential(one.id, CredentialKind::Shared)
            .await
            .unwrap()
            .is_none()
    );
    let facts = Facts {
        system_identifier: "7".to_owned(),
        postmaster_start_time: time::OffsetDateTime::UNIX_EPOCH,
        server_version: "15".to_owned(),
    };
    let new = NewPooler {
        incarnation: IncarnationId::generate(&SystemRandom),
        address: "pooler:7000".to_owned(),
        wire_address: None,
        protocol: ProtocolRange { min: 1, max: 1 },
        lease: HOUR,
    };
    let pooler = store.poolers().register(&new).await.unwrap();
    store
        .poolers()
        .heartbeat(pooler.incarnation, PoolerState::Serving, HOUR)
        .await
        .unwrap()
        .unwrap();
    let claimant = Claimant {
        pooler_id: pooler.id,
        incarnation: pooler.incarnation,
        lease: HOUR,
        patience: Some(Duration::ZERO),
    };
    for instance in [one.instance_id, two.instance_id] {
        let claim = store.instance_owners().claim(instance, claimant).await.unwrap();
        assert!(matches!(claim, Claim::Owned { .. }), "{claim:?}");
    }
    store
        .instances()
        .recognise(one.instance_id, &facts)
        .await
        .unwrap();
    let merged = store
        .instances()
        .recognise(two.instance_id, &facts)
        .await
        .unwrap();
    assert_eq!(merged, Recognised::MergedInto(one.instance_id));
    assert_eq!(
        store
            .instance_owners()
            .renew_all(pooler.incarnation, HOUR)
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(
        store
            .instance_owners()
            .release(one.instance_id, pooler.incarnation, 1)
            .await
            .unwrap()
    );
    store.poolers().deregister(pooler.incarnation).await.unwrap();
    let error = store.signing_keys().current().await.unwrap_err();
    assert!(matches!(error, StoreError::PrivilegeMissing(_)), "{error:?}");
}

#[tokio::test]
async fn worker_does_its_work_with_its_own_role() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (api, _) = world.store_as("pgmoor_api").await;
    let (worker, _) = world.store_as("pgmoor_worker").await;
    worker.check_schema().await.unwrap();
    let backup = NewOperation {
        request_id: Some(RequestId {
            id: "r".to_owned(),
            hash: [1; 32],
        }),
        ..new_operation(&server, OperationKind::Backup)
    };
    api.operations().enqueue(&backup).await.unwrap();
    let incarnation = IncarnationId::generate(&SystemRandom);
    let claimed = worker
        .operations()
        .claim(incarnation, HOUR)
        .await
        .unwrap()
        .unwrap();
    assert!(worker.servers().get(server.id).await.unwrap().is_some());
    assert!(
        worker
            .servers()
            .credential(server.id, CredentialKind::Shared)
            .await
            .unwrap()
            .is_none()
    );
    worker
        .operations()
        .append_log(&claimed.attempt, b"x")
        .await
        .unwrap();
    worker
        .operations()
        .heartbeat(&claimed.attempt, &OperationProgress::default(), HOUR)
        .await
        .unwrap();
    api.operations().cancel(backup.id).await.unwrap();
    let made = new_backup(backup.backup_id.unwrap());
    let made = worker
        .operations()
        .finish_backup(&claimed.attempt, &made)
        .await
        .unwrap();
    assert_eq!(
        api.operations().read_log(backup.id, 0, 10).await.unwrap().data,
        b"x"
    );
    let restore = NewOperation {
        backup_id: Some(made.id),
        ..new_operation(&server, OperationKind::Restore)
    };
    api.operations().enqueue(&restore).await.unwrap();
    assert!(
        worker
            .operations()
            .claim(incarnation, Duration::ZERO)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(worker.operations().reap_lost().await.unwrap().len(), 1);
    api.operations().delete(restore.id).await.unwrap();
    api.backups().delete(made.id).await.unwrap();
    assert_eq!(worker.operations().prune(Duration::ZERO).await.unwrap(), 1);
    let forbidden = [
        "INSERT INTO pgmoor.operations (id, owner_id, kind, server_id, database, request) \
         VALUES (gen_random_uuid(), gen_random_uuid(), 'backup', gen_random_uuid(), 'x', '{}')",
        "UPDATE pgmoor.operations SET request = '{}'",
        "UPDATE pgmoor.operations SET owner_id = gen_random_uuid()",
        "DELETE FROM pgmoor.backups",
        "UPDATE pgmoor.operation_logs SET data = 'x'",
    ];
    denied(&world, "pgmoor_worker", &forbidden).await;
    let forbidden = [
        "SELECT * FROM pgmoor.operation_logs",
        "SELECT * FROM pgmoor.backups",
        "DELETE FROM pgmoor.operations",
    ];
    denied(&world, "pgmoor_pooler", &forbidden).await;
    let forbidden = ["INSERT INTO pgmoor.operation_logs VALUES (gen_random_uuid(), 0, 'x')"];
    denied(&world, "pgmoor_api", &forbidden).await;
}

#[tokio::test]
async fn api_says_what_inspections_let_pass_and_poolers_read_it() {
    let world = World::new().await;
    let server = world.any_server().await;
    let (api, _) = world.store_as("pgmoor_api").await;
    let (pooler, _) = world.store_as("pgmoor_pooler").await;
    let none = InspectionPolicy::default();
    assert_eq!(pooler.inspection_policies().get(server.id).await.unwrap(), none);
    let policy = InspectionPolicy {
        trusted_functions: vec!["public.f(integer)".to_owned()],
    };
    for policy in [policy, none] {
        assert!(api.inspection_policies().set(server.id, &policy).await.unwrap());
        assert_eq!(pooler.inspection_policies().get(server.id).await.unwrap(), policy);
    }
    let missing = domain::id::ServerId::generate(&domain::random::SystemRandom);
    assert!(
        !api.inspection_policies()
            .set(missing, &InspectionPolicy::default())
            .await
            .unwrap()
    );
    let forbidden = ["UPDATE pgmoor.inspection_policies SET trusted_functions = '{}'"];
    denied(&world, "pgmoor_pooler", &forbidden).await;
    denied(
        &world,
        "pgmoor_worker",
        &["SELECT * FROM pgmoor.inspection_policies"],
    )
    .await;
}
