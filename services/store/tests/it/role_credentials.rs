//! Credentials that log in as a role of their own.

use domain::access::Access;
use domain::credential::{CredentialKind, CredentialMode, NoCredential};
use domain::id::{CredentialId, UserId};
use domain::random::SystemRandom;
use store::servers::{NewCredential, NewRoleCredential, Server, ServerChange, SetCredentialError};
use store::succession::Connection;
use time::OffsetDateTime;

use crate::support::{World, destination, new_server};

const READ: Access = Access::ReadOnly;
const WRITE: Access = Access::ReadWrite;

fn sealed(bytes: &[u8]) -> NewCredential {
    NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: bytes.to_vec(),
        key_id: "key1".to_owned(),
    }
}

fn of_role(role: &str, bytes: &[u8]) -> NewRoleCredential {
    NewRoleCredential {
        role: role.parse().unwrap(),
        credential: sealed(bytes),
    }
}

/// A server with a password, and its owner.
async fn server(world: &World) -> (Server, UserId) {
    let user = world.user("ann").await;
    let keys = world.store.sealing_keys();
    keys.publish("key1", &[1; 32]).await.unwrap();
    let servers = world.store.servers();
    let new = new_server(user.id, "one", "a");
    let server = servers.create(&new, Some(&sealed(b"shared"))).await.unwrap();
    (server, user.id)
}

/// What a user logs in with.
async fn chosen(world: &World, server: &Server, user: UserId, access: Access) -> (String, Vec<u8>) {
    let servers = world.store.servers();
    let credentials = servers.credentials(server.id, user).await.unwrap();
    let credential = credentials.choose(CredentialMode::Shared, access).unwrap();
    (credential.role.to_string(), credential.sealed)
}

#[tokio::test]
async fn each_user_gets_their_own_and_nobody_anothers() {
    let world = World::new().await;
    let (server, ann) = server(&world).await;
    let bob = world.user("bob").await.id;
    let servers = world.store.servers();
    let set = async |kind, new: NewRoleCredential| {
        servers
            .set_role_credential(server.id, kind, &new, &server.etag)
            .await
    };
    let of_ann = of_role("ann_role", b"ann");
    let after = set(CredentialKind::Personal(ann), of_ann).await.unwrap();
    // What somebody has for themselves changes nothing that others see.
    assert_eq!(after, server);
    let pair = |role: &str, bytes: &[u8]| (role.to_owned(), bytes.to_vec());
    assert_eq!(
        chosen(&world, &server, ann, WRITE).await,
        pair("ann_role", b"ann")
    );
    assert_eq!(chosen(&world, &server, ann, READ).await, pair("ann_role", b"ann"));
    let shared = pair(server.username.as_str(), b"shared");
    assert_eq!(chosen(&world, &server, bob, WRITE).await, shared);

    let reader = set(CredentialKind::ReadOnly, of_role("reader", b"read"))
        .await
        .unwrap();
    assert_ne!(reader.etag, server.etag);
    assert_eq!(reader.read_only_role, Some("reader".parse().unwrap()));
    assert_eq!(chosen(&world, &server, ann, READ).await, pair("reader", b"read"));
    assert_eq!(chosen(&world, &server, bob, READ).await, pair("reader", b"read"));
    assert_eq!(chosen(&world, &server, bob, WRITE).await, shared);

    let credentials = servers.credentials(server.id, bob).await.unwrap();
    let refused = credentials.choose(CredentialMode::PersonalOnly, WRITE);
    assert_eq!(refused.unwrap_err(), NoCredential::PersonalMissing);
    let own = CredentialKind::Personal(ann);
    let seen = servers.role_credential(server.id, own).await.unwrap().unwrap();
    assert_eq!(seen.role.as_str(), "ann_role");
    assert_eq!(
        servers.with_personal_credential(ann, &[server.id]).await.unwrap(),
        [server.id]
    );
    assert!(
        servers
            .with_personal_credential(bob, &[server.id])
            .await
            .unwrap()
            .is_empty()
    );

    // Set again it is another; deleted there is none.
    let replaced = of_role("ann_too", b"new");
    let etag = &reader.etag;
    servers
        .set_role_credential(server.id, own, &replaced, etag)
        .await
        .unwrap();
    assert_eq!(chosen(&world, &server, ann, WRITE).await, pair("ann_too", b"new"));
    assert!(
        servers
            .delete_role_credential(server.id, own)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        servers
            .delete_role_credential(server.id, own)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(chosen(&world, &server, ann, WRITE).await, shared);
}

#[tokio::test]
async fn every_credential_is_voided_with_the_destination_and_goes_with_server_and_user() {
    let world = World::new().await;
    let (server, ann) = server(&world).await;
    let bob = world.user("bob").await.id;
    let servers = world.store.servers();
    let kinds = [
        CredentialKind::ReadOnly,
        CredentialKind::Personal(ann),
        CredentialKind::Personal(bob),
    ];
    let set_all = async |server: &Server| {
        let mut etag = server.etag.clone();
        for kind in kinds {
            let new = of_role("r", b"x");
            let set = servers.set_role_credential(server.id, kind, &new, &etag);
            etag = set.await.unwrap().etag;
        }
    };
    let left = async || {
        let mut left = Vec::new();
        for kind in kinds {
            if servers.role_credential(server.id, kind).await.unwrap().is_some() {
                left.push(kind);
            }
        }
        left
    };
    set_all(&server).await;
    let renamed = ServerChange {
        username: Some("another".parse().unwrap()),
        ..ServerChange::default()
    };
    let changed = servers.update(server.id, &renamed).await.unwrap();
    // The server's own role is not theirs.
    assert!(!changed.has_password);
    assert_eq!(left().await, kinds);
    let moved = ServerChange {
        destination: Some(destination("b")),
        ..ServerChange::default()
    };
    let old = changed.etag.clone();
    let changed = servers.update(server.id, &moved).await.unwrap();
    assert_eq!(changed.read_only_role, None);
    assert!(left().await.is_empty());
    // Sealed for where it pointed before.
    let new = of_role("r", b"x");
    let late = servers.set_role_credential(server.id, kinds[1], &new, &old);
    assert!(matches!(
        late.await.unwrap_err(),
        SetCredentialError::EtagMismatch
    ));

    set_all(&changed).await;
    let delete = format!("DELETE FROM pgmoor.users WHERE id = '{}'", bob.as_uuid());
    world.database.execute(&delete).await;
    assert_eq!(left().await, kinds[..2]);
    servers.delete(server.id, None).await.unwrap();
    assert!(left().await.is_empty());
}

#[tokio::test]
async fn credentials_of_every_kind_go_over_to_another_key() {
    let world = World::new().await;
    let (server, ann) = server(&world).await;
    let servers = world.store.servers();
    let mut etag = server.etag.clone();
    for kind in [CredentialKind::ReadOnly, CredentialKind::Personal(ann)] {
        let new = of_role("r", b"x");
        let set = servers.set_role_credential(server.id, kind, &new, &etag);
        etag = set.await.unwrap().etag;
    }
    let keys = world.store.sealing_keys();
    keys.publish("key2", &[2; 32]).await.unwrap();
    assert_eq!(keys.in_use().await.unwrap(), [("key1".to_owned(), 3)]);
    let (mut after, mut found) = (None, Vec::new());
    // One at a time, so that the pages are gone through.
    while let [one] = &*servers.sealed_to_others("key2", after, 1).await.unwrap() {
        after = Some(one.credential.id);
        found.push(one.credential.kind);
        assert!(servers.rewrap(&one.credential, b"anew", "key2").await.unwrap());
        assert!(!servers.rewrap(&one.credential, b"late", "key2").await.unwrap());
    }
    found.sort_by_key(|kind| kind.as_str());
    let (own, read_only) = (CredentialKind::Personal(ann), CredentialKind::ReadOnly);
    assert_eq!(found, [own, read_only, CredentialKind::Shared]);
    assert_eq!(keys.in_use().await.unwrap(), [("key2".to_owned(), 3)]);
    for kind in found {
        let now = servers.credential(server.id, kind).await.unwrap().unwrap();
        assert_eq!((now.sealed, now.key_id), (b"anew".to_vec(), "key2".to_owned()));
    }
}

#[tokio::test]
async fn api_sets_credentials_it_cannot_read() {
    let world = World::new().await;
    let (server, ann) = server(&world).await;
    let (api, _) = world.store_as("pgmoor_api").await;
    let own = CredentialKind::Personal(ann);
    let (servers, new) = (api.servers(), of_role("r", b"x"));
    let set = servers.set_role_credential(server.id, own, &new, &server.etag);
    set.await.unwrap();
    assert!(
        api.servers()
            .role_credential(server.id, own)
            .await
            .unwrap()
            .is_some()
    );
    api.servers().credentials(server.id, ann).await.unwrap_err();
    for reader in ["pgmoor_pooler", "pgmoor_worker"] {
        let (store, _) = world.store_as(reader).await;
        let read = store.servers().credential(server.id, own).await.unwrap();
        assert_eq!(read.unwrap().sealed, b"x");
        assert!(
            store
                .servers()
                .delete_role_credential(server.id, own)
                .await
                .is_err()
        );
    }
    api.servers()
        .delete_role_credential(server.id, own)
        .await
        .unwrap();
}

#[tokio::test]
async fn successor_learns_with_which_credential_a_connection_was_made() {
    let world = World::new().await;
    let (server, ann) = server(&world).await;
    let [one, two] = [(); 2].map(|()| domain::id::IncarnationId::generate(&SystemRandom));
    let connection = |backend_pid, credential| Connection {
        instance_id: server.instance_id,
        backend_pid,
        backend_start: OffsetDateTime::UNIX_EPOCH,
        server_id: server.id,
        credential,
    };
    let opened = [
        connection(1, CredentialKind::Shared),
        connection(2, CredentialKind::ReadOnly),
        connection(3, CredentialKind::Personal(ann)),
    ];
    let succession = world.store.succession();
    succession.record(one, &opened, &[]).await.unwrap();
    // As a program of before wrote it.
    let sql = "UPDATE pgmoor.pooler_connections SET credential_kind = NULL WHERE backend_pid = 1";
    world.database.execute(sql).await;
    let left = succession.forerunners(server.instance_id, two).await.unwrap();
    assert_eq!(left[0].connections, opened);
}
