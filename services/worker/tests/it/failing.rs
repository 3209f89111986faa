//! Each cause has its reason.

use domain::backup::BackupSelection;
use domain::credential::CredentialKind;
use domain::operation::OperationFailure;
use harness::Login;
use worker::WorkerOptions;

use crate::world::{World, name, register};

impl World {
    async fn failing_backup(&self, (host, port): (&str, u16), login: &Login) -> OperationFailure {
        let server = register(
            &self.store,
            self.user,
            &self.key,
            (host, port),
            login,
            self.target.name(),
        )
        .await;
        let selection = BackupSelection::Schemas(vec![name("public")]);
        let failure = self.failed(self.backup_of(selection, server.id).await).await;
        assert!(!failure.message.contains(&login.password), "{failure:?}");
        assert_eq!(self.artifact_files(), Vec::<std::path::PathBuf>::new());
        failure
    }
}

#[tokio::test]
async fn unreachable_and_refusing_servers_are_told_apart() {
    let world = World::new().await;
    let closed = harness::free_port();
    let mut options = world.options();
    options.egress.loopback_ports.insert(closed);
    let _worker = world.start_with(options).await;
    let (login, port) = (&world.login, world.cluster.port());
    let wrong = Login {
        password: "wrong-password".to_owned(),
        ..login.clone()
    };
    for (place, login, reason) in [
        (("127.0.0.1", closed), login, "TARGET_UNREACHABLE"),
        (("127.0.0.1", port), &wrong, "TARGET_AUTHENTICATION_FAILED"),
        (("127.0.0.1", 1), login, "EGRESS_DENIED"),
        (("169.254.169.254", 80), login, "EGRESS_DENIED"),
    ] {
        let failure = world.failing_backup(place, login).await;
        assert_eq!(failure.reason, reason, "{place:?}: {failure:?}");
    }
}

#[tokio::test]
async fn password_that_is_void_or_missing_is_not_used() {
    let world = World::new().await;
    let _worker = world.start().await;
    let id = world.server.id;
    let config = world.store.clone();
    let etag = config.servers().get(id).await.unwrap().unwrap().etag;
    // Sealed for another server: what is in the row does not open here.
    let other = register(
        &world.store,
        world.user,
        &world.key,
        ("127.0.0.1", 2),
        &world.login,
        "x",
    )
    .await;
    let foreign = config
        .servers()
        .credential(other.id, CredentialKind::Shared)
        .await
        .unwrap()
        .unwrap();
    let moved = store::servers::NewCredential {
        id: domain::id::CredentialId::generate(&domain::random::SystemRandom),
        sealed: foreign.sealed,
        key_id: foreign.key_id,
    };
    let etag = config
        .servers()
        .set_credential(id, Some(&moved), &etag)
        .await
        .unwrap()
        .etag;
    assert_eq!(
        world.failed(world.backup(&["public"]).await).await.reason,
        "CREDENTIAL_MISSING"
    );
    config.servers().set_credential(id, None, &etag).await.unwrap();
    assert_eq!(
        world.failed(world.backup(&["public"]).await).await.reason,
        "CREDENTIAL_MISSING"
    );
}

#[tokio::test]
async fn missing_schema_and_missing_program_fail_the_backup() {
    let world = World::new().await;
    let worker = world.start().await;
    let failure = world.failed(world.backup(&["no such schema"]).await).await;
    assert_eq!(
        (failure.reason.as_str(), failure.exit_status),
        ("TOOL_FAILED", Some(1))
    );
    assert!(failure.message.contains("no such schema"), "{failure:?}");
    assert_eq!(world.artifact_files(), Vec::<std::path::PathBuf>::new());
    worker.end().await;
    let mut options: WorkerOptions = world.options();
    options.toolbox.known_places = false;
    let _worker = world.start_with(options).await;
    assert_eq!(
        world.failed(world.backup(&["public"]).await).await.reason,
        "TOOL_MISSING"
    );
}

#[tokio::test]
async fn owner_who_may_not_any_more_gets_nothing() {
    let world = World::new().await;
    let policy = domain::access::ServerPolicy::production(domain::access::Tenancy::Single);
    let servers = world.store.servers();
    // As an API instance that lies would: queued all the same.
    servers.set_policy(world.server.id, &policy, None).await.unwrap();
    let _worker = world.start().await;
    let failure = world.failed(world.backup(&["public"]).await).await;
    assert_eq!(failure.reason, "POLICY_FORBIDS", "{failure:?}");
    assert_eq!(world.artifact_files(), Vec::<std::path::PathBuf>::new());
}
