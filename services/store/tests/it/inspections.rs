//! What was found of servers' roles, and whose turn it is.

use std::time::Duration;

use domain::access::{ServerPolicy, Tenancy};
use domain::credential::{CredentialKind, CredentialMode};
use domain::id::{CredentialId, IncarnationId, ServerId};
use domain::name::Identifier;
use domain::random::SystemRandom;
use domain::session::PoolerId;
use store::Store;
use store::inspection_policies::InspectionPolicy;
use store::inspections::{Beyond, InspectedRole, Inspection, Reason, Schedule};
use store::instance_owners::Claimant;
use store::servers::{NewCredential, NewRoleCredential, Server};
use time::OffsetDateTime;

use crate::support::{HOUR, World};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// Stores a password that nobody can open.
async fn give(world: &World, server: &Server, kind: CredentialKind) -> CredentialId {
    world.store.sealing_keys().publish("key", &[1; 32]).await.unwrap();
    let credential = NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: vec![1],
        key_id: "key".to_owned(),
    };
    let (id, servers) = (credential.id, world.store.servers());
    let etag = servers.get(server.id).await.unwrap().unwrap().etag;
    match kind {
        CredentialKind::Shared => {
            servers
                .set_credential(server.id, Some(&credential), &etag)
                .await
                .unwrap();
        }
        CredentialKind::ReadOnly | CredentialKind::Personal(_) => {
            let role = "reader".parse().unwrap();
            let new = NewRoleCredential { role, credential };
            servers
                .set_role_credential(server.id, kind, &new, &etag)
                .await
                .unwrap();
        }
    }
    id
}

fn found(credential: CredentialId, check_time: OffsetDateTime) -> Inspection {
    Inspection {
        credential,
        check_time,
        trusted_functions: Vec::new(),
        allowed_databases: vec!["postgres".to_owned()],
        read_only: Beyond::default(),
        tenancy: Beyond {
            count: 150,
            reasons: vec![Reason {
                code: "DATABASE_CONNECT".to_owned(),
                object: "template1".to_owned(),
            }],
        },
    }
}

/// A pooler that asks, with a pooler's rights.
struct Asking {
    store: Store,
    me: IncarnationId,
}

impl Asking {
    async fn new(world: &World) -> Self {
        let (store, _) = world.store_as("pgmoor_pooler").await;
        let me = IncarnationId::generate(&SystemRandom);
        Self { store, me }
    }

    /// What is due that long after [`NOW`].
    async fn due(&self, later: Duration, except: &[ServerId]) -> Vec<(CredentialKind, String)> {
        let schedule = Schedule {
            incarnation: self.me,
            now: NOW + later,
            interval: HOUR,
            except,
            most: 10,
        };
        let due = self.store.inspections().due(&schedule).await.unwrap();
        let due = due.into_iter().map(|due| (due.kind, due.database.to_string()));
        let mut due: Vec<_> = due.collect();
        due.sort_by(|one, other| one.1.cmp(&other.1));
        due
    }
}

fn of(kind: CredentialKind, databases: &[&str]) -> Vec<(CredentialKind, String)> {
    databases.iter().map(|name| (kind, (*name).to_owned())).collect()
}

#[tokio::test]
async fn role_that_reads_is_due_until_it_was_looked_at_and_when_that_is_old_or_something_changed() {
    use CredentialKind::{ReadOnly, Shared};
    let world = World::new().await;
    let server = world.any_server().await;
    let asking = Asking::new(&world).await;
    let postgres: Identifier = "postgres".parse().unwrap();
    assert_eq!(server.maintenance_database, postgres);
    // Without a password nobody can look.
    assert_eq!(asking.due(Duration::ZERO, &[]).await, []);
    let shared = give(&world, &server, Shared).await;
    assert_eq!(asking.due(Duration::ZERO, &[]).await, of(Shared, &["postgres"]));
    assert_eq!(asking.due(Duration::ZERO, &[server.id]).await, []);
    let role = InspectedRole {
        server: server.id,
        kind: Shared,
        username: &server.username,
        database: &postgres,
    };
    let inspections = world.store.inspections();
    assert_eq!(inspections.set(&role, &found(shared, NOW)).await.unwrap(), None);
    assert_eq!(inspections.get(&role).await.unwrap(), Some(found(shared, NOW)));
    // Not before five sixths of the interval, and at its end whatever is taken off.
    assert_eq!(asking.due(HOUR * 5 / 6 - Duration::from_secs(1), &[]).await, []);
    assert_eq!(asking.due(HOUR, &[]).await, of(Shared, &["postgres"]));
    let policies = world.store.inspection_policies();
    let trusting = InspectionPolicy {
        trusted_functions: vec!["extension:dblink".to_owned()],
    };
    policies.set(server.id, &trusting).await.unwrap();
    assert_eq!(asking.due(Duration::ZERO, &[]).await, of(Shared, &["postgres"]));
    policies
        .set(server.id, &InspectionPolicy::default())
        .await
        .unwrap();
    assert_eq!(asking.due(Duration::ZERO, &[]).await, []);
    give(&world, &server, Shared).await;
    assert_eq!(asking.due(Duration::ZERO, &[]).await, of(Shared, &["postgres"]));
    // With a credential for what only reads it is that one's role, in every database that the policy names.
    give(&world, &server, ReadOnly).await;
    assert_eq!(asking.due(Duration::ZERO, &[]).await, of(ReadOnly, &["postgres"]));
    let databases = ["orders", "stock"].map(|name| name.parse().unwrap()).into();
    let policy = ServerPolicy {
        credential_mode: CredentialMode::PersonalOnly,
        ..ServerPolicy::production(Tenancy::Multi { databases })
    };
    let servers = world.store.servers();
    servers.set_policy(server.id, &policy, None).await.unwrap();
    let all = of(ReadOnly, &["orders", "postgres", "stock"]);
    assert_eq!(asking.due(Duration::ZERO, &[]).await, all);
    // Where everybody has their own, the shared one's role reads nothing.
    servers.delete_role_credential(server.id, ReadOnly).await.unwrap();
    assert_eq!(asking.due(Duration::ZERO, &[]).await, []);
}

#[tokio::test]
async fn roles_of_another_poolers_instance_are_left_to_it() {
    let world = World::new().await;
    let server = world.any_server().await;
    give(&world, &server, CredentialKind::Shared).await;
    let (me, other) = (Asking::new(&world).await, Asking::new(&world).await);
    let claimant = Claimant {
        pooler_id: PoolerId(1),
        incarnation: other.me,
        lease: HOUR,
        patience: None,
    };
    let owners = world.store.instance_owners();
    owners.claim(server.instance_id, claimant).await.unwrap();
    let due = async |asking: &Asking| asking.due(Duration::ZERO, &[]).await.len();
    assert_eq!((due(&me).await, due(&other).await), (0, 1));
    owners.release(server.instance_id, other.me, 1).await.unwrap();
    assert_eq!((due(&me).await, due(&other).await), (1, 1));
}

#[tokio::test]
async fn what_is_found_replaces_what_was_found_before_and_of_another_role() {
    let world = World::new().await;
    let server = world.any_server().await;
    let credential = CredentialId::generate(&SystemRandom);
    let (pooler, _) = world.store_as("pgmoor_pooler").await;
    let [one, other, database]: [Identifier; 3] = ["one", "other", "d"].map(|name| name.parse().unwrap());
    let role = |username| InspectedRole {
        server: server.id,
        kind: CredentialKind::Shared,
        username,
        database: &database,
    };
    let inspections = pooler.inspections();
    let first = found(credential, NOW);
    assert_eq!(inspections.set(&role(&one), &first).await.unwrap(), None);
    let later = found(credential, NOW + HOUR);
    assert_eq!(inspections.set(&role(&one), &later).await.unwrap(), Some(first));
    assert_eq!(inspections.get(&role(&one)).await.unwrap(), Some(later.clone()));
    assert_eq!(inspections.set(&role(&other), &later).await.unwrap(), None);
    assert_eq!(inspections.get(&role(&one)).await.unwrap(), None);
    world.store.servers().delete(server.id, None).await.unwrap();
    assert_eq!(inspections.get(&role(&other)).await.unwrap(), None);
    assert_eq!(inspections.set(&role(&other), &later).await.unwrap(), None);
}
