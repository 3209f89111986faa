//! What becomes of what a provider gave that is not configured any more, and of API tokens without a provider's word.

use std::time::Duration;

use domain::id::{LoginAttemptId, UserId};
use domain::random::SystemRandom;
use store::identities::{IdentityUser, ProvenIdentity};
use store::login_attempts::NewLoginAttempt;
use store::logins::{LoginOrigin, NewLogin, ProviderOrigin};
use time::OffsetDateTime;

use crate::support::{HOUR, World, hash, new_login};

/// Two hours pass, in which instances look.
const AGED: &str =
    "UPDATE pgmoor.known_providers SET seen_time = seen_time - interval '2 hours' WHERE id <> '*'";
/// Three days pass, in which none does.
const STOPPED: &str = "UPDATE pgmoor.known_providers SET seen_time = seen_time - interval '3 days'";

async fn log_in(world: &World, provider: &str, subject: &str, administrator: bool) -> UserId {
    let proven = ProvenIdentity {
        provider: provider.to_owned(),
        issuer: format!("https://{provider}.example.com"),
        subject: subject.to_owned(),
        email: None,
        groups: vec![("g".to_owned(), Some("shop".to_owned()))],
        administrator,
        vouched_for: HOUR,
        new_user: Some(IdentityUser {
            id: UserId::generate(&SystemRandom),
            username: subject.parse().unwrap(),
            display_name: subject.parse().unwrap(),
        }),
    };
    world.store.identities().resolve(proven).await.unwrap().user_id
}

async fn memberships(world: &World) -> i64 {
    let connection = world.database.connect().await;
    let sql = "SELECT count(*) FROM pgmoor.group_members WHERE source LIKE 'oidc:%'";
    connection.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn memberships_end_once_no_instance_has_had_their_provider_for_a_while() {
    let world = World::new().await;
    log_in(&world, "old", "ann", false).await;
    log_in(&world, "new", "bob", false).await;
    let known = world.store.known_providers();
    let (both, new) = (["old".to_owned(), "new".to_owned()], ["new".to_owned()]);
    // One instance has the provider still, another one has it no more.
    known.see(&both).await.unwrap();
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    world.database.execute(AGED).await;
    known.see(&both).await.unwrap();
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0, "an instance has it still");
    assert_eq!(memberships(&world).await, 2);

    world.database.execute(AGED).await;
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 1);
    assert_eq!(memberships(&world).await, 1);
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
}

#[tokio::test]
async fn provider_that_nobody_ever_said_to_have_is_given_the_same_while() {
    let world = World::new().await;
    log_in(&world, "old", "ann", false).await;
    let known = world.store.known_providers();
    known.see(&[]).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    assert_eq!(known.forget(Duration::ZERO).await.unwrap(), 1);
}

#[tokio::test]
async fn time_in_which_no_instance_looks_does_not_count() {
    let world = World::new().await;
    log_in(&world, "old", "ann", false).await;
    let known = world.store.known_providers();
    let (both, new) = (["old".to_owned(), "new".to_owned()], ["new".to_owned()]);
    known.see(&both).await.unwrap();
    // The first one to start again is configured without the provider, and another one has it still.
    world.database.execute(STOPPED).await;
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    known.see(&both).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    assert_eq!(memberships(&world).await, 1);

    // What had passed before the stop is not forgotten with it.
    world.database.execute(AGED).await;
    world.database.execute(STOPPED).await;
    known.see(&[]).await.unwrap();
    known.see(&[]).await.unwrap();
    assert_eq!(known.forget(HOUR * 3).await.unwrap(), 0);
    assert_eq!(known.forget(HOUR).await.unwrap(), 1);

    // The same where a version ran that did not write down when it looked.
    log_in(&world, "old", "ann", false).await;
    known.see(&both).await.unwrap();
    world.database.execute(STOPPED).await;
    let before = "DELETE FROM pgmoor.known_providers WHERE id = '*'";
    world.database.execute(before).await;
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    assert_eq!(memberships(&world).await, 1);
}

#[tokio::test]
async fn administrators_that_a_provider_made_go_with_it_unless_they_are_the_last() {
    let world = World::new().await;
    let ann = log_in(&world, "old", "ann", true).await;
    let known = world.store.known_providers();
    let a_day_passes = async |configured: &[String]| {
        known.see(configured).await.unwrap();
        world.database.execute(AGED).await;
        known.see(configured).await.unwrap();
        known.forget(HOUR).await.unwrap();
    };
    let is_administrator = async || world.store.users().get(ann).await.unwrap().unwrap().administrator;
    a_day_passes(&[]).await;
    assert!(is_administrator().await, "nobody else is one");
    log_in(&world, "new", "bob", true).await;
    a_day_passes(&["new".to_owned()]).await;
    assert!(!is_administrator().await);
}

#[tokio::test]
async fn logins_end_with_the_provider_that_they_were_begun_at_though_it_gave_nothing_else() {
    let world = World::new().await;
    let begin = async |provider: &str, subject: &str| {
        let user = log_in(&world, provider, subject, false).await;
        let origin = LoginOrigin {
            provider: Some(ProviderOrigin {
                provider: provider.to_owned(),
                issuer: format!("https://{provider}.example.com"),
                subject: subject.to_owned(),
                provider_token: Some(vec![1]),
            }),
            ..LoginOrigin::default()
        };
        let new = NewLogin {
            origin,
            ..new_login(user, hash(), HOUR)
        };
        world.store.logins().start(new).await.unwrap().id
    };
    begin("old", "ann").await;
    begin("new", "bob").await;
    for given in ["group_members", "identity_groups"] {
        world
            .database
            .execute(&format!("DELETE FROM pgmoor.{given}"))
            .await;
    }
    let connection = world.database.connect().await;
    let open = async || {
        let sql = "SELECT provider FROM pgmoor.logins WHERE end_time IS NULL ORDER BY provider";
        let rows = connection.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    // It was taken out while nothing ran: nobody ever said to have it.
    let (known, new) = (world.store.known_providers(), ["new".to_owned()]);
    known.see(&new).await.unwrap();
    assert_eq!(known.forget(HOUR).await.unwrap(), 0);
    assert_eq!(open().await, ["new", "old"]);
    world.database.execute(AGED).await;
    known.see(&new).await.unwrap();
    known.forget(HOUR).await.unwrap();
    assert_eq!(open().await, ["new"]);
    let revoked = "SELECT count(*) FROM pgmoor.revocations AS r JOIN pgmoor.logins AS l ON l.id = r.subject_id \
                   WHERE l.end_reason = 'provider'";
    let revoked: i64 = connection.query_one(revoked, &[]).await.unwrap().get(0);
    assert_eq!(revoked, 1, "access tokens of the login");
}

#[tokio::test]
async fn logins_under_way_are_forgotten_though_nobody_begins_another_one() {
    let world = World::new().await;
    let attempts = world.store.login_attempts();
    let begin = async || {
        let new = NewLoginAttempt {
            id: LoginAttemptId::generate(&SystemRandom),
            provider: "old".to_owned(),
            state_hash: None,
            code_challenge: "c".to_owned(),
            confirmation_code: "c".to_owned(),
            redirect_uri: None,
            sealed: vec![1],
            lifetime: HOUR,
            poll_interval: None,
            client_name: None,
            address: None,
        };
        attempts.create(new).await.unwrap();
    };
    begin().await;
    assert_eq!(attempts.prune(Duration::ZERO).await.unwrap(), 0);
    let aged = "UPDATE pgmoor.login_attempts SET expire_time = clock_timestamp()";
    world.database.execute(aged).await;
    assert_eq!(attempts.prune(HOUR).await.unwrap(), 0);
    assert_eq!(attempts.prune(Duration::ZERO).await.unwrap(), 1);
}

#[tokio::test]
async fn end_of_an_administrator_is_a_revision_of_the_rules_though_no_membership_ends() {
    let world = World::new().await;
    world.administrator("root").await;
    let ann = log_in(&world, "old", "ann", true).await;
    let unjoined = "DELETE FROM pgmoor.group_members";
    world.database.execute(unjoined).await;
    let known = world.store.known_providers();
    known.see(&[]).await.unwrap();
    let before = world.store.access().revision().await.unwrap();
    assert_eq!(known.forget(Duration::ZERO).await.unwrap(), 0);
    assert!(!world.store.users().get(ann).await.unwrap().unwrap().administrator);
    assert_eq!(world.store.access().revision().await.unwrap(), before + 1);
}

const CORP: &str = "https://corp.example.com";

async fn vouch_expire_time(world: &World, user: UserId) -> Option<OffsetDateTime> {
    let user = world.store.users().get(user).await.unwrap().unwrap();
    user.vouch_expire_time
}

#[tokio::test]
async fn refusal_of_a_provider_stops_api_tokens_of_the_user_of_that_identity() {
    let world = World::new().await;
    let ann = log_in(&world, "corp", "ann", false).await;
    let vouching = world.store.vouching();
    let expires = async || vouch_expire_time(&world, ann).await;
    let vouched = expires().await.unwrap();
    let other = vouching.deny("https://other.example.com", "ann").await.unwrap();
    assert_eq!(other, None, "another provider's word is none about her");
    assert_eq!(vouching.deny(CORP, "ann").await.unwrap(), Some(ann));
    assert!(expires().await.unwrap() < vouched);
    assert_eq!(
        vouching.deny(CORP, "ann").await.unwrap(),
        None,
        "they have stopped"
    );
    log_in(&world, "corp", "ann", false).await;
    assert!(expires().await.unwrap() >= vouched);

    // With a password she has a way in of her own.
    world.store.users().set_password(ann, &"x".into()).await.unwrap();
    assert_eq!(expires().await, None);
    log_in(&world, "corp", "ann", false).await;
    assert_eq!(vouching.deny(CORP, "ann").await.unwrap(), None);
    assert_eq!(expires().await, None);
}

#[tokio::test]
async fn login_ends_with_the_word_for_its_user_unless_another_one_was_confirmed_lately() {
    let world = World::new().await;
    let ann = log_in(&world, "corp", "ann", false).await;
    let begin = async || {
        let origin = LoginOrigin {
            provider: Some(ProviderOrigin {
                provider: "corp".to_owned(),
                issuer: CORP.to_owned(),
                subject: "ann".to_owned(),
                provider_token: Some(vec![1]),
            }),
            ..LoginOrigin::default()
        };
        let new = NewLogin {
            origin,
            ..new_login(ann, hash(), HOUR)
        };
        let login = world.store.logins().start(new).await.unwrap();
        let session = world.store.provider_sessions().get(login.id).await.unwrap();
        session.unwrap()
    };
    let (lapsed, left, _fresh) = (begin().await, begin().await, begin().await);
    let sessions = world.store.provider_sessions();
    let vouched = vouch_expire_time(&world, ann).await.unwrap();
    assert!(!sessions.end_and_deny(&lapsed, Some(HOUR)).await.unwrap());
    assert_eq!(vouch_expire_time(&world, ann).await, Some(vouched));
    let open = "SELECT count(*) FROM pgmoor.logins WHERE end_time IS NULL";
    let connection = world.database.connect().await;
    let count: i64 = connection.query_one(open, &[]).await.unwrap().get(0);
    assert_eq!(count, 2);
    // The last word is too old.
    assert!(sessions.end_and_deny(&left, Some(Duration::ZERO)).await.unwrap());
    assert!(vouch_expire_time(&world, ann).await.unwrap() < vouched);
    let count: i64 = connection.query_one(open, &[]).await.unwrap().get(0);
    assert_eq!(count, 1);

    // What the policy says is about the person, whatever their logins are.
    log_in(&world, "corp", "ann", false).await;
    let refused = begin().await;
    assert!(sessions.end_and_deny(&refused, None).await.unwrap());
}

#[tokio::test]
async fn login_is_ended_by_one_of_those_that_end_it() {
    let world = World::new().await;
    let user = world.user("ann").await;
    let (login, _) = world.login(&user).await;
    let sessions = world.store.provider_sessions();
    assert!(sessions.end(login).await.unwrap());
    assert!(!sessions.end(login).await.unwrap());
}
