//! How many logins may be under way, and whose make room.

use domain::id::LoginAttemptId;
use domain::random::SystemRandom;
use store::login_attempts::NewLoginAttempt;

use crate::support::{HOUR, World};

fn from(address: &str) -> NewLoginAttempt {
    NewLoginAttempt {
        id: LoginAttemptId::generate(&SystemRandom),
        provider: "corp".to_owned(),
        state_hash: Some(domain::random::bytes(&SystemRandom)),
        code_challenge: "c".repeat(43),
        confirmation_code: "AAAA-BBBB".to_owned(),
        redirect_uri: None,
        sealed: vec![1, 2, 3],
        lifetime: HOUR,
        poll_interval: None,
        client_name: None,
        address: Some(address.to_owned()),
    }
}

#[tokio::test]
async fn flood_of_logins_from_one_network_ends_its_own_and_nobody_elses() {
    let world = World::new().await;
    let attempts = world.store.login_attempts();
    let early = from("203.0.113.9");
    attempts.create(early.clone()).await.unwrap();
    let first = from("2001:db8:7::1");
    attempts.create(first.clone()).await.unwrap();
    let connection = world.database.connect().await;
    let flood = "INSERT INTO pgmoor.login_attempts (id, provider, code_challenge, confirmation_code, sealed, expire_time, \
                 address, network) SELECT gen_random_uuid(), 'corp', 'c', 'c', '', clock_timestamp() + interval '1 hour', \
                 '2001:db8:7:' || to_hex(n) || '::1', '2001:db8:7::/48' FROM generate_series(1, 9998) AS n";
    assert_eq!(connection.execute(flood, &[]).await.unwrap(), 9998);

    // Somebody else, and one more of the flood: both begin, for its oldest ones.
    let late = from("198.51.100.7");
    attempts.create(late.clone()).await.unwrap();
    assert_eq!(attempts.get(first.id).await.unwrap(), None);
    attempts.create(from("2001:db8:7:ffff::2")).await.unwrap();
    for other in [early, late] {
        assert!(attempts.get(other.id).await.unwrap().is_some());
    }
    let count = "SELECT count(*) FROM pgmoor.login_attempts";
    let count: i64 = connection.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(count, 10_000);
}
