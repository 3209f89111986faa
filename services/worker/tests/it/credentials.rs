//! As whom a backup logs in.

use domain::access::ServerPolicy;
use domain::credential::{CredentialKind, CredentialMode};
use domain::id::CredentialId;
use domain::random::SystemRandom;
use sealing::{Binding, Sealer};
use secrecy::SecretString;
use store::servers::{NewCredential, NewRoleCredential};

use crate::world::World;

#[tokio::test]
async fn backup_logs_in_as_the_role_of_its_owner_alone() {
    let world = World::with_data().await;
    let _worker = world.start().await;
    let servers = world.store.servers();
    let personal_only = ServerPolicy {
        credential_mode: CredentialMode::PersonalOnly,
        ..ServerPolicy::default()
    };
    let id = world.server.id;
    let server = servers.set_policy(id, &personal_only, None).await.unwrap();
    let failure = world.failed(world.backup(&["shop"]).await).await;
    assert_eq!(failure.reason, "PERSONAL_CREDENTIAL_MISSING");

    let own = world.cluster.create_login("").await;
    let kind = CredentialKind::Personal(world.user);
    let binding = Binding {
        server: id,
        kind,
        username: &own.user,
        destination: &server.destination,
    };
    let password = SecretString::from(own.password.clone());
    let sealed = Sealer::new(world.key.sealing_key()).seal(&binding, &password, &SystemRandom);
    let sealed = sealed.unwrap();
    let new = NewRoleCredential {
        role: own.user.parse().unwrap(),
        credential: NewCredential {
            id: CredentialId::generate(&SystemRandom),
            sealed: sealed.bytes,
            key_id: sealed.key.to_string(),
        },
    };
    let set = servers.set_role_credential(id, kind, &new, &server.etag);
    set.await.unwrap();
    // The shared role owns the schema; one's own may do nothing there yet.
    let refused = world.backup(&["shop"]).await;
    assert_eq!(world.failed(refused).await.reason, "TOOL_FAILED");
    let log = world.log(refused).await;
    assert!(log.contains("permission denied"), "{log}");
    let grant = format!(
        "GRANT USAGE ON SCHEMA shop TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {0}; \
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA shop TO {0}",
        own.user
    );
    world.owner().await.batch_execute(&grant).await.unwrap();
    let made = world.backup(&["shop"]).await;
    world.succeeded(made).await;
    for log in [log, world.log(made).await] {
        assert!(!log.contains(&own.password), "{log}");
    }
}
