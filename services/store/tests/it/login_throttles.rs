//! Counts of login attempts.

use std::time::Duration;

use futures::future::join_all;
use store::login_throttles::{Attempt, ThrottlePolicy};

use crate::support::{HOUR, World};

const POLICY: ThrottlePolicy = ThrottlePolicy {
    limit: 3,
    window: HOUR,
};

#[tokio::test]
async fn attempts_at_once_are_all_counted() {
    let world = World::new().await;
    let throttles = world.store.login_throttles();
    let attempts = join_all((0..10).map(|_| throttles.attempt("nobody", POLICY))).await;
    let allowed = attempts
        .into_iter()
        .filter(|attempt| matches!(attempt, Ok(Attempt::Allowed)))
        .count();
    assert_eq!(allowed, 3);
    let Attempt::Throttled { retry_after } = throttles.attempt("nobody", POLICY).await.unwrap() else {
        panic!("allowed");
    };
    assert!(retry_after > HOUR / 2 && retry_after <= HOUR, "{retry_after:?}");
    assert_eq!(
        throttles.attempt("somebody", POLICY).await.unwrap(),
        Attempt::Allowed
    );
}

#[tokio::test]
async fn success_and_the_end_of_the_window_begin_anew() {
    let world = World::new().await;
    let throttles = world.store.login_throttles();
    let strict = ThrottlePolicy {
        limit: 1,
        window: HOUR,
    };
    assert_eq!(throttles.attempt("ann", strict).await.unwrap(), Attempt::Allowed);
    throttles.clear("ann").await.unwrap();
    assert_eq!(throttles.attempt("ann", strict).await.unwrap(), Attempt::Allowed);
    assert!(matches!(
        throttles.attempt("ann", strict).await.unwrap(),
        Attempt::Throttled { .. }
    ));
    let over = ThrottlePolicy {
        limit: 1,
        window: Duration::ZERO,
    };
    assert_eq!(throttles.attempt("ann", over).await.unwrap(), Attempt::Allowed);
}

#[tokio::test]
async fn keys_from_outside_are_bounded() {
    let world = World::new().await;
    let throttles = world.store.login_throttles();
    for key in ["ä".repeat(100_000), "a\0b".to_owned(), String::new()] {
        assert_eq!(throttles.attempt(&key, POLICY).await.unwrap(), Attempt::Allowed);
    }
    assert_eq!(throttles.prune(HOUR).await.unwrap(), 0);
    assert_eq!(throttles.prune(Duration::ZERO).await.unwrap(), 3);
}
