//! What was found of servers' roles, and whose turn it is.

use std::time::Duration;

use crate::support::{HOUR, World};
use domain::access::{ServerPolicy, Tenancy};
use domain::credential::{CredentialKind, CredentialMode};
use domain::id::{CredentialId, IncarnationId, ServerId};
use domain::name::Identifier;
use domain::random::SystemRandom;
use domain::session::PoolerId;
use store::Store;
use store::inspection_policies::InspectionPolicy;
use store::inspections::{Beyond, Due, InspectedRole, Inspection, Reason, Schedule};
use store::instance_owners::Claimant;
use store::servers::{NewCredential, NewRoleCredential, Server};

const NEW: Duration = Duration::ZERO;

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

fn found(credential: CredentialId) -> Inspection {
    Inspection {
        credential,
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

    /// At most so many roles that are due.
    async fn first(&self, most: u32, except: &[(ServerId, CredentialKind, Identifier)]) -> Vec<Due> {
        let schedule = Schedule {
            incarnation: self.me,
            interval: HOUR,
            except,
            most,
        };
        self.store.inspections().due(&schedule).await.unwrap()
    }

    /// What is due.
    async fn due(&self) -> Vec<(CredentialKind, String)> {
        let due = self.first(10, &[]).await;
        let due = due.into_iter().map(|due| (due.kind, due.database.to_string()));
        let mut due: Vec<_> = due.collect();
        due.sort_by(|one, other| one.1.cmp(&other.1));
        due
    }
}

/// Keeps what was found of a role by a look that began so long ago. True where that was written.
async fn keep(store: &Store, role: &InspectedRole<'_>, found: &Inspection, age: Duration) -> bool {
    let written = store.inspections().set(role, found, age).await;
    written.unwrap().is_some()
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
    assert_eq!(asking.due().await, []);
    let shared = give(&world, &server, Shared).await;
    assert_eq!(asking.due().await, of(Shared, &["postgres"]));
    let this = |database: &str| (server.id, Shared, database.parse().unwrap());
    assert_eq!(asking.first(10, &[this("other"), this("postgres")]).await, []);
    let others = [this("other"), (server.id, ReadOnly, postgres.clone())];
    assert_eq!(asking.first(10, &others).await.len(), 1);
    let role = InspectedRole {
        server: server.id,
        kind: Shared,
        username: &server.username,
        database: &postgres,
    };
    // At the end of the interval whatever is taken off, and not before five sixths of it.
    assert!(keep(&world.store, &role, &found(shared), HOUR).await);
    assert_eq!(asking.due().await, of(Shared, &["postgres"]));
    let younger = HOUR * 5 / 6 - Duration::from_mins(1);
    assert!(keep(&world.store, &role, &found(shared), younger).await);
    assert_eq!(asking.due().await, []);
    let kept = world.store.inspections().get(&role).await.unwrap().unwrap();
    assert_eq!(kept.inspection, found(shared));
    assert!(kept.age >= younger && kept.age < HOUR * 5 / 6, "{kept:?}");
    let policies = world.store.inspection_policies();
    let trusting = InspectionPolicy {
        trusted_functions: vec!["extension:dblink".to_owned()],
    };
    policies.set(server.id, &trusting).await.unwrap();
    assert_eq!(asking.due().await, of(Shared, &["postgres"]));
    policies
        .set(server.id, &InspectionPolicy::default())
        .await
        .unwrap();
    assert_eq!(asking.due().await, []);
    give(&world, &server, Shared).await;
    assert_eq!(asking.due().await, of(Shared, &["postgres"]));
    // With a credential for what only reads it is that one's role, in every database that the policy names.
    give(&world, &server, ReadOnly).await;
    assert_eq!(asking.due().await, of(ReadOnly, &["postgres"]));
    let databases = ["orders", "stock"].map(|name| name.parse().unwrap()).into();
    let policy = ServerPolicy {
        credential_mode: CredentialMode::PersonalOnly,
        ..ServerPolicy::production(Tenancy::Multi { databases })
    };
    let servers = world.store.servers();
    servers.set_policy(server.id, &policy, None).await.unwrap();
    let all = of(ReadOnly, &["orders", "postgres", "stock"]);
    assert_eq!(asking.due().await, all);
    // Where everybody has their own, the shared one's role reads nothing.
    servers.delete_role_credential(server.id, ReadOnly).await.unwrap();
    assert_eq!(asking.due().await, []);
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
    let due = async |asking: &Asking| asking.due().await.len();
    assert_eq!((due(&me).await, due(&other).await), (0, 1));
    owners.release(server.instance_id, other.me, 1).await.unwrap();
    assert_eq!((due(&me).await, due(&other).await), (1, 1));
}

#[tokio::test]
async fn roles_of_owned_instances_come_before_those_that_nobody_owns() {
    let world = World::new().await;
    let user = world.user("somebody").await;
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        let server = world.server(&user, name, name).await;
        give(&world, &server, CredentialKind::Shared).await;
        servers.push(server);
    }
    let asking = Asking::new(&world).await;
    for owned in &servers {
        let claimant = Claimant {
            pooler_id: PoolerId(1),
            incarnation: asking.me,
            lease: HOUR,
            patience: None,
        };
        let owners = world.store.instance_owners();
        owners.claim(owned.instance_id, claimant).await.unwrap();
        // Also where it was looked at before, and at the others never.
        let role = InspectedRole {
            server: owned.id,
            kind: CredentialKind::Shared,
            username: &owned.username,
            database: &owned.maintenance_database,
        };
        let gone = CredentialId::generate(&SystemRandom);
        assert!(keep(&asking.store, &role, &found(gone), NEW).await);
        let first = asking.first(1, &[]).await;
        assert_eq!((first[0].server, first[0].is_owned), (owned.id, true));
        owners.release(owned.instance_id, asking.me, 1).await.unwrap();
    }
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
    let (first, mut later) = (found(credential), found(credential));
    later.read_only.count = 1;
    let written = inspections.set(&role(&one), &first, HOUR).await.unwrap().unwrap();
    assert_eq!(written.before, None);
    let (first_time, written) = (
        written.check_time,
        inspections.set(&role(&one), &later, NEW).await.unwrap().unwrap(),
    );
    let before = written.before.unwrap();
    assert_eq!(
        (before.inspection, before.check_time),
        (first.clone(), first_time)
    );
    // A look that began before that one and took longer.
    assert!(!keep(&pooler, &role(&one), &first, HOUR).await);
    let kept = inspections.get(&role(&one)).await.unwrap().unwrap();
    assert_eq!(
        (kept.inspection, kept.check_time),
        (later.clone(), written.check_time)
    );
    // What was found of another role later stays.
    assert!(keep(&pooler, &role(&other), &later, HOUR).await);
    assert!(inspections.get(&role(&one)).await.unwrap().is_some());
    assert!(keep(&pooler, &role(&other), &later, NEW).await);
    assert_eq!(inspections.get(&role(&one)).await.unwrap(), None);
    world.store.servers().delete(server.id, None).await.unwrap();
    assert_eq!(inspections.get(&role(&other)).await.unwrap(), None);
    assert!(!keep(&pooler, &role(&other), &later, NEW).await);
}

#[tokio::test]
async fn look_does_not_wait_for_one_at_the_role_that_was_there_before() {
    let world = World::new().await;
    let server = world.any_server().await;
    let [one, other, database]: [Identifier; 3] = ["one", "other", "d"].map(|name| name.parse().unwrap());
    let role = |username| InspectedRole {
        server: server.id,
        kind: CredentialKind::Shared,
        username,
        database: &database,
    };
    let found = found(CredentialId::generate(&SystemRandom));
    assert!(keep(&world.store, &role(&one), &found, HOUR).await);
    let mut another = world.database.connect().await;
    let writing = another.transaction().await.unwrap();
    writing
        .batch_execute("SELECT FROM pgmoor.inspections FOR UPDATE")
        .await
        .unwrap();
    assert!(keep(&world.store, &role(&other), &found, NEW).await);
    writing.rollback().await.unwrap();
}
