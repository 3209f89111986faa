//! Identities of providers, and what is written down of a login with one.

use std::time::Duration;

use domain::id::{LoginAttemptId, UserId};
use domain::random::SystemRandom;
use futures::future::join_all;
use store::accounts::Account;
use store::identities::{IdentityUser, ProvenIdentity, ResolveIdentityError};
use store::login_attempts::{LoginOutcome, NewLoginAttempt};
use store::users::CreateUserError;

use crate::support::{HOUR, World, new_user};

fn proven(subject: &str, username: Option<&str>) -> ProvenIdentity {
    ProvenIdentity {
        provider: "corp".to_owned(),
        issuer: "https://id.example.com".to_owned(),
        subject: subject.to_owned(),
        email: None,
        groups: Vec::new(),
        administrator: false,
        vouched_for: HOUR,
        new_user: username.map(|username| IdentityUser {
            id: UserId::generate(&SystemRandom),
            username: username.parse().unwrap(),
            display_name: username.parse().unwrap(),
        }),
    }
}

#[tokio::test]
async fn first_logins_at_once_make_one_user() {
    let world = World::new().await;
    let identities = world.store.identities();
    let users = join_all((0..20).map(|_| identities.resolve(proven("1", Some("ann"))))).await;
    let users: std::collections::HashSet<_> = users.into_iter().map(|it| it.unwrap().user_id).collect();
    assert_eq!(users.len(), 1);
    // Another subject of that name is nobody's user.
    let other = identities.resolve(proven("2", Some("ANN"))).await;
    assert!(
        matches!(other, Err(ResolveIdentityError::UsernameTaken)),
        "{other:?}"
    );
    let uninvited = identities.resolve(proven("3", None)).await;
    assert!(
        matches!(uninvited, Err(ResolveIdentityError::NotInvited)),
        "{uninvited:?}"
    );
}

#[tokio::test]
async fn groups_make_and_unmake_an_administrator_but_not_one_that_somebody_made() {
    let world = World::new().await;
    let root = world.administrator("root").await;
    let identities = world.store.identities();
    let admin = |subject: &str, name: &str, administrator| ProvenIdentity {
        administrator,
        groups: vec![("dba".to_owned(), None)],
        ..proven(subject, Some(name))
    };
    let ann = identities.resolve(admin("1", "ann", true)).await.unwrap().user_id;
    let is = async |user| {
        world
            .store
            .users()
            .get(user)
            .await
            .unwrap()
            .unwrap()
            .administrator
    };
    assert!(is(ann).await);
    identities.resolve(admin("1", "ann", false)).await.unwrap();
    assert!(!is(ann).await);

    // One that somebody made stays.
    let change = store::users::UserChange {
        administrator: Some(true),
        ..Default::default()
    };
    world.store.users().update(ann, change).await.unwrap();
    identities.resolve(admin("1", "ann", false)).await.unwrap();
    assert!(is(ann).await);

    // The last one stays.
    let bob = identities.resolve(admin("2", "bob", true)).await.unwrap().user_id;
    let demote = || store::users::UserChange {
        administrator: Some(false),
        ..Default::default()
    };
    world.store.users().update(ann, demote()).await.unwrap();
    world.store.users().update(root.id, demote()).await.unwrap();
    identities.resolve(admin("2", "bob", false)).await.unwrap();
    assert!(is(bob).await);
}

#[tokio::test]
async fn administrator_who_is_made_or_unmade_is_one_revision_of_the_rules_with_and_without_a_group() {
    let world = World::new().await;
    world.administrator("root").await;
    let identities = world.store.identities();
    let revision = async || world.store.access().revision().await.unwrap();
    for (subject, name, group) in [("1", "ann", None), ("2", "bob", Some("shop".to_owned()))] {
        for administrator in [true, false] {
            let before = revision().await;
            let word = || ProvenIdentity {
                administrator,
                groups: if administrator {
                    vec![("dba".to_owned(), group.clone())]
                } else {
                    Vec::new()
                },
                ..proven(subject, Some(name))
            };
            let changes = identities.resolve(word()).await.unwrap().changes;
            assert_eq!(changes.administrator, Some(administrator));
            assert_eq!(revision().await, before + 1);
            // The same word again changes nothing.
            identities.resolve(word()).await.unwrap();
            assert_eq!(revision().await, before + 1);
        }
    }
}

#[tokio::test]
async fn administrators_who_lose_their_groups_at_once_do_not_wait_for_each_other_in_a_circle() {
    let world = World::new().await;
    world.administrator("root").await;
    let identities = world.store.identities();
    let people: Vec<(String, String)> = (0..5).map(|n| (n.to_string(), format!("user{n}"))).collect();
    for _ in 0..10 {
        for administrator in [true, false] {
            let words = people.iter().map(|(subject, name)| {
                let word = ProvenIdentity {
                    administrator,
                    ..proven(subject, Some(name))
                };
                identities.resolve(word)
            });
            for resolved in join_all(words).await {
                assert_eq!(resolved.unwrap().changes.administrator, Some(administrator));
            }
        }
    }
}

#[tokio::test]
async fn identity_goes_by_the_name_that_its_provider_has_now() {
    let world = World::new().await;
    let identities = world.store.identities();
    let ann = identities.resolve(proven("1", Some("ann"))).await.unwrap();
    let renamed = ProvenIdentity {
        provider: "company".to_owned(),
        ..proven("1", None)
    };
    assert_eq!(identities.resolve(renamed).await.unwrap().user_id, ann.user_id);
    let connection = world.database.connect().await;
    let sql = "SELECT provider FROM pgmoor.identities";
    let provider: String = connection.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(provider, "company");
}

#[tokio::test]
async fn invited_person_is_found_by_address_and_service_account_is_not() {
    let world = World::new().await;
    let accounts = world.store.accounts();
    let email = || Account::Person {
        email: Some("ann@example.com".to_owned()),
    };
    let invited = accounts.create(new_user("ann", false), &email()).await.unwrap();
    let again = accounts.create(new_user("other", false), &email()).await;
    assert!(matches!(again, Err(CreateUserError::EmailTaken)), "{again:?}");
    let robot = store::users::NewUser {
        password_hash: None,
        ..new_user("robot", false)
    };
    let robot = accounts.create(robot, &Account::ServiceAccount).await.unwrap();
    assert_eq!(
        accounts.service_account(&"ROBOT".parse().unwrap()).await.unwrap(),
        Some(robot.id)
    );
    assert_eq!(
        accounts.service_account(&"ann".parse().unwrap()).await.unwrap(),
        None
    );
    let linked = ProvenIdentity {
        email: Some("ann@example.com".to_owned()),
        ..proven("1", None)
    };
    assert_eq!(
        world.store.identities().resolve(linked).await.unwrap().user_id,
        invited.id
    );
}

#[tokio::test]
async fn attempt_is_claimed_once_and_collected_once() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let attempts = world.store.login_attempts();
    let new = |lifetime| NewLoginAttempt {
        id: LoginAttemptId::generate(&SystemRandom),
        provider: "corp".to_owned(),
        state_hash: Some(domain::random::bytes(&SystemRandom)),
        code_challenge: "c".repeat(43),
        confirmation_code: "AAAA-BBBB".to_owned(),
        redirect_uri: None,
        sealed: vec![1, 2, 3],
        lifetime,
        poll_interval: None,
        client_name: None,
        address: None,
    };
    let attempt = new(HOUR);
    let (id, state) = (attempt.id, attempt.state_hash.unwrap());
    attempts.create(attempt).await.unwrap();
    // Another provider's answer takes nothing.
    assert_eq!(attempts.claim("other", &state).await.unwrap(), None);
    let claims = join_all((0..10).map(|_| attempts.claim("corp", &state))).await;
    assert_eq!(
        claims
            .into_iter()
            .filter(|claim| claim.as_ref().unwrap().is_some())
            .count(),
        1
    );
    assert_eq!(attempts.collect(id).await.unwrap(), None);
    let outcome = || LoginOutcome {
        user_id: user.id,
        issuer: "https://id.example.com".to_owned(),
        subject: "1".to_owned(),
        provider_token: None,
        redirect_code_hash: None,
    };
    assert!(attempts.complete(id, outcome()).await.unwrap());
    assert!(!attempts.complete(id, outcome()).await.unwrap());
    let collected = join_all((0..10).map(|_| attempts.collect(id))).await;
    assert_eq!(
        collected
            .into_iter()
            .filter(|it| it.as_ref().unwrap().is_some())
            .count(),
        1
    );

    let late = new(Duration::ZERO);
    let state = late.state_hash.unwrap();
    attempts.create(late).await.unwrap();
    assert_eq!(attempts.claim("corp", &state).await.unwrap(), None);
}

#[tokio::test]
async fn attempt_that_is_held_is_collected_after_its_person_said_so_and_they_say_it_once() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let attempts = world.store.login_attempts();
    let held = async || {
        let (id, secret) = (
            LoginAttemptId::generate(&SystemRandom),
            domain::random::bytes::<32>(&SystemRandom),
        );
        let new = NewLoginAttempt {
            id,
            provider: "corp".to_owned(),
            state_hash: Some(domain::random::bytes(&SystemRandom)),
            code_challenge: "c".repeat(43),
            confirmation_code: "AAAA-BBBB".to_owned(),
            redirect_uri: None,
            sealed: vec![1, 2, 3],
            lifetime: HOUR,
            poll_interval: None,
            client_name: None,
            address: None,
        };
        attempts.create(new).await.unwrap();
        let outcome = LoginOutcome {
            user_id: user.id,
            issuer: "https://id.example.com".to_owned(),
            subject: "1".to_owned(),
            provider_token: Some(vec![7]),
            redirect_code_hash: None,
        };
        assert!(attempts.hold(id, outcome.clone(), &secret).await.unwrap());
        assert!(!attempts.hold(id, outcome, &secret).await.unwrap());
        (id, secret)
    };
    let (id, secret) = held().await;
    assert!(!attempts.get(id).await.unwrap().unwrap().completed);
    assert_eq!(attempts.collect(id).await.unwrap(), None);
    assert_eq!(attempts.confirm(&[0; 32]).await.unwrap(), None);
    let decided = join_all((0..10).map(|_| attempts.confirm(&secret))).await;
    assert_eq!(
        decided
            .into_iter()
            .filter(|it| it.as_ref().unwrap().is_some())
            .count(),
        1
    );
    assert_eq!(attempts.decline(&secret, "X").await.unwrap(), None);
    let collected = attempts.collect(id).await.unwrap().unwrap();
    assert_eq!(
        (collected.user_id, collected.provider_token),
        (user.id, Some(vec![7]))
    );

    let (id, secret) = held().await;
    let declined = attempts.decline(&secret, "X").await.unwrap().unwrap();
    assert_eq!(declined.provider_token, Some(vec![7]));
    assert_eq!(attempts.confirm(&secret).await.unwrap(), None);
    assert_eq!(attempts.collect(id).await.unwrap(), None);
    assert_eq!(
        attempts.get(id).await.unwrap().unwrap().failure.as_deref(),
        Some("X")
    );
}
