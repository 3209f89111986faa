//! Settings through two instances: what is wrong with a change, who wins, who hears of it.

use std::time::Duration;

use e2e::{Client, reason};
use rpc::errors::v1::ErrorReason;
use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::{
    GetSettingRequest, ListSettingsRequest, Setting, SettingValue, UpdateSettingsRequest,
    UpdateSettingsResponse, WatchSettingsRequest, WatchSettingsResponse,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::worlds::shared;

const ME: &str = "users/me";
const SOON: Duration = Duration::from_secs(10);

fn setting(name: &str, kind: Kind) -> Setting {
    Setting {
        name: name.to_owned(),
        value: Some(SettingValue { kind: Some(kind) }),
        ..Setting::default()
    }
}

async fn update(client: &Client, setting: Setting, etag: &str) -> Result<UpdateSettingsResponse, Status> {
    let request = UpdateSettingsRequest {
        parent: ME.to_owned(),
        settings: vec![setting],
        etag: etag.to_owned(),
        ..UpdateSettingsRequest::default()
    };
    let response = client.settings().update_settings(request).await?;
    Ok(response.into_inner())
}

#[tokio::test]
async fn unknown_setting_is_refused_by_name() {
    let caller = shared().await.world.create_user().await;
    let unknown = setting("query.no_such_thing", Kind::IntValue(1));
    let refused = update(caller.a(), unknown, "").await;
    reason::expect(refused, Code::InvalidArgument, ErrorReason::UnknownSetting);

    let name = "users/me/settings/query.no_such_thing".to_owned();
    let refused = caller
        .a()
        .settings()
        .get_setting(GetSettingRequest { name })
        .await;
    reason::expect(refused, Code::InvalidArgument, ErrorReason::UnknownSetting);
}

#[tokio::test]
async fn value_of_the_wrong_type_or_range_names_its_field_and_changes_nothing() {
    let caller = shared().await.world.create_user().await;
    for wrong in [
        setting("query.row_limit", Kind::StringValue("many".to_owned())),
        setting("query.row_limit", Kind::IntValue(-1)),
        setting("query.script_mode", Kind::StringValue("SOMEHOW".to_owned())),
        setting("csv.header", Kind::IntValue(1)),
        Setting {
            name: "query.row_limit".to_owned(),
            ..Setting::default()
        },
    ] {
        let refused = update(caller.a(), wrong, "").await;
        let status = reason::expect(refused, Code::InvalidArgument, ErrorReason::InvalidField);
        let fields = status.get_details_bad_request().expect("field violations");
        assert!(!fields.field_violations.is_empty(), "{}", reason::text(&status));
    }
    let request = ListSettingsRequest {
        parent: ME.to_owned(),
    };
    let settings = caller.b().settings().list_settings(request).await.unwrap();
    let changed: Vec<_> = settings
        .into_inner()
        .settings
        .into_iter()
        .filter(|setting| setting.revision != 0)
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[tokio::test]
async fn of_two_instances_updating_at_once_one_wins_and_the_other_is_told() {
    let caller = shared().await.world.create_user().await;
    let request = ListSettingsRequest {
        parent: ME.to_owned(),
    };
    let listed = caller.a().settings().list_settings(request).await.unwrap();
    let etag = listed.into_inner().etag;
    let (a, b) = tokio::join!(
        update(caller.a(), setting("query.row_limit", Kind::IntValue(7)), &etag),
        update(caller.b(), setting("query.row_limit", Kind::IntValue(8)), &etag),
    );
    let (won, lost) = match (a, b) {
        (Ok(won), lost @ Err(_)) | (lost @ Err(_), Ok(won)) => (won, lost),
        other => panic!("exactly one must win: {other:?}"),
    };
    reason::expect(lost, Code::Aborted, ErrorReason::EtagMismatch);
    let name = "users/me/settings/query.row_limit".to_owned();
    for client in [caller.a(), caller.b()] {
        let request = GetSettingRequest { name: name.clone() };
        let read = client.settings().get_setting(request).await.unwrap().into_inner();
        assert_eq!(read.etag, won.etag);
        assert_eq!(read.setting.unwrap().value, won.settings[0].value);
    }
}

async fn watch(client: &Client, after_revision: i64) -> Streaming<WatchSettingsResponse> {
    let request = WatchSettingsRequest {
        parent: ME.to_owned(),
        after_revision,
    };
    let stream = client.settings().watch_settings(request).await.unwrap();
    stream.into_inner()
}

/// The next message that brings changes.
async fn next_change(stream: &mut Streaming<WatchSettingsResponse>) -> WatchSettingsResponse {
    let next = async {
        loop {
            let message = stream.message().await.unwrap().expect("a watch does not end");
            if !message.settings.is_empty() {
                return message;
            }
        }
    };
    timeout(SOON, next).await.expect("a change arrives")
}

#[tokio::test]
async fn change_made_through_a_reaches_a_watcher_on_b_within_a_second() {
    let caller = shared().await.world.create_user().await;
    let mut delays = Vec::new();
    let mut revision = 0;
    let mut stream = watch(caller.b(), revision).await;
    for value in 1..=5 {
        let row_limit = setting("query.row_limit", Kind::IntValue(value));
        let changed = update(caller.a(), row_limit, "").await.unwrap();
        let begun = Instant::now();
        let seen = next_change(&mut stream).await;
        delays.push(begun.elapsed());
        assert_eq!(seen.settings[0].value, changed.settings[0].value);
        assert!(seen.revision >= changed.revision && seen.revision > revision);
        revision = seen.revision;
    }
    // The median: the machine of a test may stall once.
    delays.sort();
    assert!(delays[2] <= Duration::from_secs(1), "{delays:?}");
}

#[tokio::test]
async fn watcher_that_was_away_misses_nothing() {
    let caller = shared().await.world.create_user().await;
    let first = update(caller.a(), setting("query.row_limit", Kind::IntValue(1)), "").await;
    let seen = first.unwrap().revision;
    let null_text = setting("csv.null_text", Kind::StringValue("NULL".to_owned()));
    update(caller.a(), null_text, "").await.unwrap();
    let page_size = setting("query.page_size", Kind::IntValue(17));
    update(caller.b(), page_size, "").await.unwrap();

    let mut stream = watch(caller.b(), seen).await;
    let mut names = Vec::new();
    while names.len() < 2 {
        let change = next_change(&mut stream).await;
        names.extend(change.settings.into_iter().map(|setting| setting.name));
    }
    names.sort();
    assert_eq!(names, ["csv.null_text", "query.page_size"]);
}
