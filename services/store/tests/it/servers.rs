//! Servers and their passwords.

use domain::credential::CredentialKind;
use domain::endpoint::{Destination, SslMode, TlsPolicy};
use domain::id::{CredentialId, ServerId, UserId};
use domain::random::SystemRandom;
use futures::future::join_all;
use store::servers::{
    CreateServerError, DeleteServerError, ImportMode, ImportOutcome, NewCredential, ServerChange,
    SetCredentialError, UpdateServerError,
};
use store::{PageRequest, PageSize};

use crate::support::{World, destination, new_server};

async fn credential(world: &World) -> NewCredential {
    world
        .store
        .sealing_keys()
        .publish("key1", &[1; 32])
        .await
        .unwrap();
    NewCredential {
        id: CredentialId::generate(&SystemRandom),
        sealed: vec![1, 2, 3],
        key_id: "key1".to_owned(),
    }
}

#[tokio::test]
async fn server_is_read_as_it_was_registered() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let new = new_server(user.id, "Größe", "::1");
    let made = world.store.servers().create(&new, None).await.unwrap();
    assert_eq!(world.store.servers().get(new.id).await.unwrap().unwrap(), made);
    assert_eq!(
        (&made.destination, &made.display_name, &made.username),
        (&new.destination, &new.display_name, &new.username)
    );
    assert!(!made.has_password);
}

#[tokio::test]
async fn name_is_unique_within_owner_and_group() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let first = world.server(&ann, "one", "a").await;
    world.server(&bob, "one", "a").await;
    let servers = world.store.servers();
    let error = servers
        .create(&new_server(ann.id, "one", "b"), None)
        .await
        .unwrap_err();
    assert!(matches!(error, CreateServerError::NameTaken));
    let second = world.server(&ann, "two", "b").await;
    let rename = ServerChange {
        display_name: Some(first.display_name),
        ..ServerChange::default()
    };
    let error = servers.update(second.id, &rename).await.unwrap_err();
    assert!(matches!(error, UpdateServerError::NameTaken));
    let nobody = UserId::generate(&SystemRandom);
    let error = servers
        .create(&new_server(nobody, "one", "a"), None)
        .await
        .unwrap_err();
    assert!(matches!(error, CreateServerError::OwnerNotFound));
}

#[tokio::test]
async fn of_two_updates_with_one_etag_one_wins() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let server = world.server(&user, "one", "a").await;
    let change = |comment: &str| ServerChange {
        comment: Some(comment.to_owned()),
        etag: Some(server.etag.clone()),
        ..ServerChange::default()
    };
    let servers = world.store.servers();
    let (one, two) = (change("one"), change("two"));
    let (one, two) = tokio::join!(servers.update(server.id, &one), servers.update(server.id, &two));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(loser.unwrap_err(), UpdateServerError::EtagMismatch));
    assert_eq!(servers.get(server.id).await.unwrap().unwrap(), winner.unwrap());
}

#[tokio::test]
async fn password_is_voided_with_its_destination_and_role_and_by_nothing_else() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let servers = world.store.servers();
    let keep = [
        ServerChange {
            comment: Some("x".to_owned()),
            ..ServerChange::default()
        },
        ServerChange {
            display_name: Some("x".parse().unwrap()),
            ..ServerChange::default()
        },
        ServerChange {
            group: Some("x".parse().unwrap()),
            ..ServerChange::default()
        },
        ServerChange {
            maintenance_database: Some("x".parse().unwrap()),
            ..ServerChange::default()
        },
        ServerChange {
            destination: Some(destination("a")),
            ..ServerChange::default()
        },
    ];
    let tls = TlsPolicy::new(SslMode::Require, "").unwrap();
    let encrypted = Destination::new(destination("a").endpoints().to_vec(), tls).unwrap();
    let void = [
        ServerChange {
            username: Some("x".parse().unwrap()),
            ..ServerChange::default()
        },
        ServerChange {
            destination: Some(destination("b")),
            ..ServerChange::default()
        },
        ServerChange {
            destination: Some(encrypted),
            ..ServerChange::default()
        },
    ];
    let cases = keep
        .into_iter()
        .map(|change| (change, true))
        .chain(void.into_iter().map(|change| (change, false)));
    for (index, (change, kept)) in cases.enumerate() {
        let new = new_server(user.id, &format!("server{index}"), "a");
        let made = servers
            .create(&new, Some(&credential(&world).await))
            .await
            .unwrap();
        assert!(made.has_password);
        let changed = servers.update(new.id, &change).await.unwrap();
        assert_eq!(changed.has_password, kept, "{change:?}");
        assert_eq!(
            servers
                .credential(new.id, CredentialKind::Shared)
                .await
                .unwrap()
                .is_some(),
            kept,
            "{change:?}"
        );
        servers.delete(new.id, None).await.unwrap();
    }
}

#[tokio::test]
async fn password_sealed_for_a_destination_of_before_is_refused() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let server = world.server(&user, "one", "a").await;
    let servers = world.store.servers();
    let change = ServerChange {
        destination: Some(destination("b")),
        ..ServerChange::default()
    };
    let moved = servers.update(server.id, &change).await.unwrap();
    let sealed = credential(&world).await;
    let error = servers
        .set_credential(server.id, Some(&sealed), &server.etag)
        .await
        .unwrap_err();
    assert!(matches!(error, SetCredentialError::EtagMismatch));
    let set = servers
        .set_credential(server.id, Some(&sealed), &moved.etag)
        .await
        .unwrap();
    assert!(set.has_password && set.etag != moved.etag);
    let kept = servers
        .credential(server.id, CredentialKind::Shared)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((kept.sealed, kept.key_id), (sealed.sealed, sealed.key_id));
    let unset = servers.set_credential(server.id, None, &set.etag).await.unwrap();
    assert!(!unset.has_password);
}

#[tokio::test]
async fn unknown_sealing_key_is_refused() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let sealed = NewCredential {
        key_id: "unknown".to_owned(),
        ..credential(&world).await
    };
    let new = new_server(user.id, "one", "a");
    let error = world
        .store
        .servers()
        .create(&new, Some(&sealed))
        .await
        .unwrap_err();
    assert!(matches!(error, CreateServerError::SealingKeyUnknown));
    assert!(world.store.servers().get(new.id).await.unwrap().is_none());
}

#[tokio::test]
async fn passwords_are_sealed_to_the_youngest_key_that_is_not_retired() {
    let world = World::new().await;
    let keys = world.store.sealing_keys();
    assert!(keys.current().await.unwrap().is_none());
    for key in ["old", "new", "old"] {
        keys.publish(key, key.as_bytes()).await.unwrap();
    }
    assert_eq!(keys.current().await.unwrap().unwrap().public_key, b"new");
    keys.retire("new").await.unwrap();
    assert_eq!(keys.current().await.unwrap().unwrap().key_id, "old");
}

#[tokio::test]
async fn importing_twice_changes_nothing() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let servers = world.store.servers();
    let entry = || new_server(user.id, "one", "a");
    let dry = servers.import(&entry(), ImportMode::Validate).await.unwrap();
    assert_eq!(dry.outcome, ImportOutcome::Created);
    assert!(
        servers
            .list(user.id, &PageRequest::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let created = servers.import(&entry(), ImportMode::Apply).await.unwrap();
    assert_eq!(created.outcome, ImportOutcome::Created);
    let again = servers.import(&entry(), ImportMode::Apply).await.unwrap();
    assert_eq!(
        (again.outcome, &again.server),
        (ImportOutcome::Unchanged, &created.server)
    );
    let mut other = entry();
    other.destination = destination("b");
    let dry = servers.import(&other, ImportMode::Validate).await.unwrap();
    assert_eq!(dry.outcome, ImportOutcome::Updated);
    assert_eq!(
        servers.get(created.server.id).await.unwrap().unwrap(),
        created.server
    );
    let updated = servers.import(&other, ImportMode::Apply).await.unwrap();
    assert_eq!(
        (updated.outcome, updated.server.id),
        (ImportOutcome::Updated, created.server.id)
    );
    assert_eq!(updated.server.destination, destination("b"));
}

#[tokio::test]
async fn imports_of_one_entry_at_once_make_one_server() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let entries: Vec<_> = (0..5).map(|_| new_server(user.id, "one", "a")).collect();
    let servers = world.store.servers();
    let outcomes = join_all(
        entries
            .iter()
            .map(|entry| servers.import(entry, ImportMode::Apply)),
    )
    .await;
    let outcomes: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.unwrap().outcome)
        .collect();
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == ImportOutcome::Created)
            .count(),
        1,
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == ImportOutcome::Unchanged)
            .count(),
        4,
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn servers_are_listed_by_group_and_name() {
    let world = World::new().await;
    let user = world.user("ann").await;
    for (group, name) in [("B", "1"), ("A", "2"), ("A", "1"), ("B", "2"), ("A", "3")] {
        let mut new = new_server(user.id, name, "a");
        new.group = group.parse().unwrap();
        world.store.servers().create(&new, None).await.unwrap();
    }
    let mut request = PageRequest {
        size: PageSize::new(2),
        after: None,
    };
    let mut listed = Vec::new();
    loop {
        let page = world.store.servers().list(user.id, &request).await.unwrap();
        listed.extend(
            page.items
                .iter()
                .map(|server| format!("{}{}", server.group, server.display_name)),
        );
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["A1", "A2", "A3", "B1", "B2"]);
}

#[tokio::test]
async fn deletion_heeds_the_etag() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let server = world.server(&user, "one", "a").await;
    let servers = world.store.servers();
    let error = servers
        .delete(server.id, Some(&store::Etag::new("0")))
        .await
        .unwrap_err();
    assert!(matches!(error, DeleteServerError::EtagMismatch));
    servers.delete(server.id, Some(&server.etag)).await.unwrap();
    let error = servers
        .delete(ServerId::generate(&SystemRandom), None)
        .await
        .unwrap_err();
    assert!(matches!(error, DeleteServerError::NotFound));
}

#[tokio::test]
async fn registering_while_instances_are_merged_loses_nothing() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (kept, gone) = (world.instance("kept").await, world.instance("gone").await);
    let facts = store::instances::Facts {
        system_identifier: "7".to_owned(),
        postmaster_start_time: time::OffsetDateTime::UNIX_EPOCH,
        server_version: "15".to_owned(),
    };
    world.store.instances().recognise(kept, &facts).await.unwrap();
    let new: Vec<_> = (0..10)
        .map(|index| new_server(user.id, &format!("s{index}"), "gone"))
        .collect();
    let servers = world.store.servers();
    let create = join_all(new.iter().map(|new| servers.create(new, None)));
    let instances = world.store.instances();
    let (made, merged) = tokio::join!(create, instances.recognise(gone, &facts));
    merged.unwrap();
    for server in made {
        let server = servers.get(server.unwrap().id).await.unwrap().unwrap();
        assert_eq!(server.instance_id, kept);
    }
}
