//! Watching settings from another instance.

use harness::eventually;
use rpc::errors::v1::ErrorReason;
use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::{ResetSettingsRequest, WatchSettingsRequest, WatchSettingsResponse};
use tokio::time::timeout;
use tonic::{Code, Streaming};

use crate::settings::{list, setting, update};
use crate::world::{ADMIN, Caller, DEADLINE, REVOCATION_DEADLINE, World};

async fn watch(caller: &Caller, after_revision: i64) -> Streaming<WatchSettingsResponse> {
    let request = WatchSettingsRequest {
        parent: "users/me".to_owned(),
        after_revision,
    };
    caller
        .settings()
        .watch_settings(request)
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Streaming<WatchSettingsResponse>) -> WatchSettingsResponse {
    timeout(DEADLINE, stream.message())
        .await
        .expect("a message in time")
        .unwrap()
        .expect("no end")
}

fn names(message: &WatchSettingsResponse) -> Vec<&str> {
    message
        .settings
        .iter()
        .map(|setting| setting.name.as_str())
        .collect()
}

#[tokio::test]
async fn watcher_on_the_other_instance_sees_a_change_within_a_second() {
    let world = World::start().await;
    let here = world.a.login(ADMIN).await;
    let there = world.b.with_token(here.token.as_deref().unwrap());
    let from = list(&there, "users/me").await.revision;
    let mut stream = watch(&there, from).await;
    let first = next(&mut stream).await;
    assert_eq!((names(&first), first.revision), (vec![], from));

    let changed = update(
        &here,
        "users/me",
        vec![setting("query.row_limit", Kind::IntValue(7))],
    )
    .await
    .unwrap();
    let seen = timeout(std::time::Duration::from_secs(1), stream.message()).await;
    let seen = seen.expect("within a second").unwrap().unwrap();
    assert_eq!(
        (names(&seen), seen.revision),
        (vec!["query.row_limit"], changed.revision)
    );

    // The administrator's defaults show through, so their changes are changes of the view.
    update(
        &here,
        "defaults",
        vec![setting("csv.header", Kind::BoolValue(false))],
    )
    .await
    .unwrap();
    assert_eq!(names(&next(&mut stream).await), ["csv.header"]);
}

#[tokio::test]
async fn watcher_that_was_away_misses_nothing() {
    let world = World::start().await;
    let here = world.a.login(ADMIN).await;
    update(
        &here,
        "users/me",
        vec![setting("query.row_limit", Kind::IntValue(1))],
    )
    .await
    .unwrap();
    let there = world.b.with_token(here.token.as_deref().unwrap());
    let mut stream = watch(&there, 0).await;
    let seen = next(&mut stream).await;
    assert_eq!(names(&seen), ["query.row_limit"]);
    drop(stream);

    update(
        &here,
        "users/me",
        vec![setting("query.page_size", Kind::IntValue(5))],
    )
    .await
    .unwrap();
    update(
        &here,
        "users/me",
        vec![setting("query.page_size", Kind::IntValue(6))],
    )
    .await
    .unwrap();
    let names_to_reset = vec!["query.row_limit".to_owned()];
    let reset = ResetSettingsRequest {
        parent: "users/me".to_owned(),
        names: names_to_reset,
        ..Default::default()
    };
    let reset = here.settings().reset_settings(reset).await.unwrap().into_inner();

    let caught_up = next(&mut watch(&there, seen.revision).await).await;
    assert_eq!(names(&caught_up), ["query.page_size", "query.row_limit"]);
    assert_eq!(
        caught_up.settings[0].value.as_ref().unwrap().kind,
        Some(Kind::IntValue(6))
    );
    assert_eq!(caught_up.revision, reset.revision);
    let nothing = next(&mut watch(&there, caught_up.revision).await).await;
    assert_eq!(names(&nothing), Vec::<&str>::new());
}

#[tokio::test]
async fn changes_of_others_wake_nobody_up() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let from = list(&member.caller, "users/me").await.revision;
    let mut stream = watch(&member.caller, from).await;
    next(&mut stream).await;
    let admin = world.b.login(ADMIN).await;
    update(
        &admin,
        "users/me",
        vec![setting("query.row_limit", Kind::IntValue(7))],
    )
    .await
    .unwrap();
    update(
        &admin,
        &member.name,
        vec![setting("query.page_size", Kind::IntValue(7))],
    )
    .await
    .unwrap();
    assert_eq!(names(&next(&mut stream).await), ["query.page_size"]);
}

#[tokio::test]
async fn watch_ends_with_the_login() {
    let world = World::start().await;
    let here = world.a.login(ADMIN).await;
    let mut stream = watch(&world.b.with_token(here.token.as_deref().unwrap()), 0).await;
    next(&mut stream).await;
    here.auth().logout(rpc::auth::v1::LogoutRequest {}).await.unwrap();
    let end = timeout(REVOCATION_DEADLINE, stream.message())
        .await
        .expect("within the promise")
        .unwrap_err();
    assert_eq!(
        rpc::error::reason(&end),
        Some(ErrorReason::TokenRevoked),
        "{end:?}"
    );
}

#[tokio::test]
async fn watch_ends_when_the_server_drains() {
    let world = World::start().await;
    let caller = world.b.login(ADMIN).await;
    let mut stream = watch(&caller, 0).await;
    next(&mut stream).await;
    world.b.drain.cancel();
    let end = timeout(DEADLINE, stream.message())
        .await
        .expect("an end")
        .unwrap_err();
    assert_eq!(
        (end.code(), rpc::error::reason(&end)),
        (Code::Unavailable, Some(ErrorReason::ShuttingDown))
    );
    drop((stream, caller));
    // Nothing is in the way of its end any more.
    eventually(DEADLINE, "the drained instance takes no connection", async || {
        tonic::transport::Endpoint::from_shared(world.b.address.clone())
            .unwrap()
            .connect()
            .await
            .is_err()
    })
    .await;
}
