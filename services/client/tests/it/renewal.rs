use std::sync::Arc;
use std::time::Duration;

use client::{Call, Connection, Exit, Identity, Target};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use rpc::auth::v1::WhoAmIRequest;
use tokio::sync::Notify;

use crate::fake::Fake;
use crate::login::logged_in;
use crate::pgmoor::until;

fn connection(fake: &Fake) -> Connection {
    let identity = Identity::login("alice", fake.pair());
    Connection::new(
        &Target::new(&fake.url),
        identity,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    )
    .unwrap()
}

async fn who_am_i(connection: &Connection) -> Result<String, tonic::Status> {
    let client = connection.auth();
    let call = Call::repeatable(Duration::from_secs(20));
    let answer = connection
        .call(call, async || client.clone().who_am_i(WhoAmIRequest {}).await)
        .await?;
    Ok(answer.username)
}

#[tokio::test]
async fn many_calls_renew_an_expired_token_once() {
    let fake = Fake::start().await;
    *fake.state.lifetime.lock() = Duration::ZERO;
    let connection = connection(&fake);
    *fake.state.lifetime.lock() = Duration::from_secs(300);
    let calls = (0..50).map(|_| who_am_i(&connection));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), "alice");
    }
    assert_eq!(fake.state.count(|counts| &counts.refresh), 1);
}

#[tokio::test]
async fn token_that_the_server_finds_expired_is_renewed_and_the_call_repeated() {
    // The client's clock is behind: it believes the token to live.
    let fake = Fake::start().await;
    fake.state.expired.lock().insert("access-0".into());
    let connection = connection(&fake);
    let calls = (0..20).map(|_| who_am_i(&connection));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), "alice");
    }
    assert_eq!(fake.state.count(|counts| &counts.refresh), 1);
}

#[tokio::test]
async fn token_that_stays_expired_is_an_error_and_no_loop() {
    let fake = Fake::start().await;
    for token in ["access-0", "access-1"] {
        fake.state.expired.lock().insert(token.into());
    }
    let status = who_am_i(&connection(&fake)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert_eq!(fake.state.count(|counts| &counts.refresh), 1);
}

#[tokio::test]
async fn processes_of_one_profile_use_each_refresh_token_once() {
    let fake = Fake::start().await;
    *fake.state.lifetime.lock() = Duration::ZERO;
    let machine = logged_in(&fake).await;
    *fake.state.lifetime.lock() = Duration::from_secs(300);
    let commands = (0..8).map(|_| machine.run(&["whoami"]));
    for done in futures::future::join_all(commands).await {
        assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    }
    assert!(!*fake.state.reused.lock());
    assert_eq!(
        fake.state.count(|counts| &counts.refresh),
        1,
        "the others found the new tokens stored"
    );
}

#[tokio::test]
async fn renewal_is_stored_though_its_call_was_given_up() {
    let fake = Fake::start().await;
    *fake.state.lifetime.lock() = Duration::ZERO;
    let machine = logged_in(&fake).await;
    *fake.state.lifetime.lock() = Duration::from_secs(300);
    let held = Arc::new(Notify::new());
    *fake.state.hold_refresh.lock() = Some(Arc::clone(&held));
    let ends = machine.ends(std::io::empty());
    let interrupter = ends.interrupter.clone();
    let command = machine.start(&["whoami"], ends);
    let interrupting = async {
        until("the renewal", || fake.state.count(|counts| &counts.refresh) == 1).await;
        interrupter.interrupt();
        held.notify_one();
    };
    let (exit, ()) = tokio::join!(command, interrupting);
    assert_eq!(exit, Exit::Interrupted);
    *fake.state.hold_refresh.lock() = None;
    let done = machine.run(&["whoami"]).await;
    assert_eq!(done.exit, Exit::Success, "{}", done.stderr);
    assert!(!*fake.state.reused.lock());
}
