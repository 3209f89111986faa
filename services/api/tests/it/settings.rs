//! Settings on two instances.

use prost_types::FieldMask;
use rpc::errors::v1::ErrorReason;
use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::{
    GetSettingRequest, ListSettingDefinitionsRequest, ListSettingsRequest, ListSettingsResponse,
    ResetSettingsRequest, Setting, SettingLayer, SettingValue, UpdateSettingsRequest, UpdateSettingsResponse,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::world::{ADMIN, Caller, World, assert_fails};

pub fn setting(name: &str, kind: Kind) -> Setting {
    Setting {
        name: name.to_owned(),
        value: Some(SettingValue { kind: Some(kind) }),
        ..Setting::default()
    }
}

pub async fn update(
    caller: &Caller,
    parent: &str,
    settings: Vec<Setting>,
) -> Result<UpdateSettingsResponse, Status> {
    let request = UpdateSettingsRequest {
        parent: parent.to_owned(),
        settings,
        ..Default::default()
    };
    caller
        .settings()
        .update_settings(request)
        .await
        .map(tonic::Response::into_inner)
}

pub async fn list(caller: &Caller, parent: &str) -> ListSettingsResponse {
    let request = ListSettingsRequest {
        parent: parent.to_owned(),
    };
    caller
        .settings()
        .list_settings(request)
        .await
        .unwrap()
        .into_inner()
}

async fn get(caller: &Caller, parent: &str, name: &str) -> Setting {
    let request = GetSettingRequest {
        name: format!("{parent}/settings/{name}"),
    };
    caller
        .settings()
        .get_setting(request)
        .await
        .unwrap()
        .into_inner()
        .setting
        .unwrap()
}

fn int(setting: &Setting) -> i64 {
    match setting.value.as_ref().and_then(|value| value.kind.as_ref()) {
        Some(Kind::IntValue(value)) => *value,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn setting_written_through_one_instance_is_read_through_the_other() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let there = world.b.with_token(member.caller.token.as_deref().unwrap());
    update(
        &member.caller,
        "users/me",
        vec![setting("query.row_limit", Kind::IntValue(7))],
    )
    .await
    .unwrap();
    for parent in ["users/me", &member.name] {
        let read = get(&there, parent, "query.row_limit").await;
        assert_eq!((int(&read), read.layer()), (7, SettingLayer::User));
    }
}

#[tokio::test]
async fn layers_show_through_from_the_nearest() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let member = world.member("alice").await;
    let name = "query.page_size";
    assert_eq!(
        get(&member.caller, "users/me", name).await.layer(),
        SettingLayer::BuiltIn
    );
    update(&admin, "defaults", vec![setting(name, Kind::IntValue(20))])
        .await
        .unwrap();
    let there = world.b.with_token(member.caller.token.as_deref().unwrap());
    let read = get(&there, "users/me", name).await;
    assert_eq!((int(&read), read.layer()), (20, SettingLayer::Defaults));
    update(&there, "users/me", vec![setting(name, Kind::IntValue(3))])
        .await
        .unwrap();
    assert_eq!(int(&get(&member.caller, "users/me", name).await), 3);
    assert_eq!(int(&get(&member.caller, "defaults", name).await), 20);
    let reset = ResetSettingsRequest {
        parent: "users/me".to_owned(),
        ..Default::default()
    };
    let reset = there.settings().reset_settings(reset).await.unwrap().into_inner();
    assert_eq!(reset.settings.iter().map(int).collect::<Vec<_>>(), [20]);
    assert_eq!(int(&get(&member.caller, "users/me", name).await), 20);
}

#[tokio::test]
async fn of_two_updates_with_one_etag_one_is_aborted() {
    let world = World::start().await;
    let here = world.a.login(ADMIN).await;
    let there = world.b.with_token(here.token.as_deref().unwrap());
    let etag = list(&here, "users/me").await.etag;
    let change = |caller: &Caller, value| {
        let request = UpdateSettingsRequest {
            parent: "users/me".to_owned(),
            settings: vec![setting("query.row_limit", Kind::IntValue(value))],
            etag: etag.clone(),
            ..Default::default()
        };
        let mut client = caller.settings();
        async move { client.update_settings(request).await }
    };
    let (one, two) = tokio::join!(change(&here, 1), change(&there, 2));
    let (winner, loser) = match (one, two) {
        (Ok(won), lost @ Err(_)) | (lost @ Err(_), Ok(won)) => (won.into_inner(), lost),
        other => panic!("exactly one must win: {other:?}"),
    };
    assert_fails(loser, Code::Aborted, ErrorReason::EtagMismatch);
    let now = get(&here, "users/me", "query.row_limit").await;
    assert_eq!(int(&now), int(&winner.settings[0]));
    assert_eq!(list(&there, "users/me").await.etag, winner.etag);
}

#[tokio::test]
async fn unknown_setting_and_wrong_type_are_told_apart() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let unknown = update(
        &admin,
        "users/me",
        vec![setting("query.colour", Kind::IntValue(1))],
    )
    .await;
    assert_fails(unknown, Code::InvalidArgument, ErrorReason::UnknownSetting);
    let long = update(
        &admin,
        "users/me",
        vec![setting(&"x".repeat(10_000), Kind::IntValue(1))],
    )
    .await;
    assert_fails(long, Code::InvalidArgument, ErrorReason::UnknownSetting);
    let read = GetSettingRequest {
        name: "users/me/settings/query.colour".to_owned(),
    };
    let read = admin.settings().get_setting(read).await;
    assert_fails(read, Code::InvalidArgument, ErrorReason::UnknownSetting);
    for (name, kind) in [
        ("query.row_limit", Kind::StringValue("7".to_owned())),
        ("query.row_limit", Kind::IntValue(-1)),
        ("query.on_error", Kind::StringValue("PANIC".to_owned())),
        ("csv.null_text", Kind::StringValue("a,b".to_owned())),
        (
            "query.statement_timeout",
            Kind::DurationValue(prost_types::Duration {
                seconds: i64::MIN,
                nanos: 0,
            }),
        ),
    ] {
        // All or none: the good setting beside it is not changed either.
        let wrong = vec![setting("query.page_size", Kind::IntValue(9)), setting(name, kind)];
        let status = assert_fails(
            update(&admin, "users/me", wrong).await,
            Code::InvalidArgument,
            ErrorReason::InvalidField,
        );
        let fields = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, "settings[1].value", "{name}");
    }
    assert_eq!(
        get(&admin, "users/me", "query.page_size").await.layer(),
        SettingLayer::BuiltIn
    );
}

#[tokio::test]
async fn mask_resets_what_is_named_without_a_value_and_leaves_the_rest() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let before = vec![
        setting("query.row_limit", Kind::IntValue(1)),
        setting("query.page_size", Kind::IntValue(2)),
    ];
    update(&admin, "users/me", before).await.unwrap();
    let paths = vec!["query.row_limit".to_owned(), "csv.header".to_owned()];
    let request = UpdateSettingsRequest {
        parent: "users/me".to_owned(),
        settings: vec![
            setting("csv.header", Kind::BoolValue(false)),
            setting("query.page_size", Kind::IntValue(99)),
        ],
        update_mask: Some(FieldMask { paths }),
        ..Default::default()
    };
    admin.settings().update_settings(request).await.unwrap();
    assert_eq!(
        get(&admin, "users/me", "query.row_limit").await.layer(),
        SettingLayer::BuiltIn
    );
    assert_eq!(
        get(&admin, "users/me", "csv.header").await.layer(),
        SettingLayer::User
    );
    assert_eq!(int(&get(&admin, "users/me", "query.page_size").await), 2);
}

#[tokio::test]
async fn validate_only_changes_nothing() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let etag = list(&admin, "users/me").await.etag;
    let request = UpdateSettingsRequest {
        parent: "users/me".to_owned(),
        settings: vec![setting("query.row_limit", Kind::IntValue(5))],
        validate_only: true,
        ..Default::default()
    };
    let tried = admin
        .settings()
        .update_settings(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(int(&tried.settings[0]), 5);
    assert_eq!(
        get(&admin, "users/me", "query.row_limit").await.layer(),
        SettingLayer::BuiltIn
    );
    assert_eq!(list(&admin, "users/me").await.etag, etag);
}

#[tokio::test]
async fn layers_of_others_are_as_good_as_missing_and_defaults_are_the_administrators() {
    let world = World::start().await;
    let member = world.member("alice").await;
    let admin = format!("users/{}", world.admin);
    let absent = "users/00000000-0000-4000-8000-000000000000".to_owned();
    let mut answers = Vec::new();
    for parent in [admin, absent.clone()] {
        let request = ListSettingsRequest { parent };
        let status = assert_fails(
            member.caller.settings().list_settings(request).await,
            Code::NotFound,
            ErrorReason::ResourceNotFound,
        );
        answers.push(status.message().to_owned());
    }
    assert_eq!(answers[0], answers[1]);
    let denied = update(
        &member.caller,
        "defaults",
        vec![setting("query.row_limit", Kind::IntValue(1))],
    )
    .await;
    assert_fails(denied, Code::PermissionDenied, ErrorReason::PermissionMissing);

    let admin = world.a.login(ADMIN).await;
    update(
        &admin,
        &member.name,
        vec![setting("query.row_limit", Kind::IntValue(4))],
    )
    .await
    .unwrap();
    assert_eq!(int(&get(&member.caller, "users/me", "query.row_limit").await), 4);
    let missing = update(
        &admin,
        &absent,
        vec![setting("query.row_limit", Kind::IntValue(4))],
    )
    .await;
    assert_fails(missing, Code::NotFound, ErrorReason::ResourceNotFound);
    let odd = update(&admin, "groups/1", Vec::new()).await;
    assert_fails(odd, Code::InvalidArgument, ErrorReason::InvalidField);
}

#[tokio::test]
async fn definitions_describe_every_setting_that_is_listed() {
    let world = World::start().await;
    let admin = world.a.login(ADMIN).await;
    let request = ListSettingDefinitionsRequest {};
    let definitions = admin
        .settings()
        .list_setting_definitions(request)
        .await
        .unwrap()
        .into_inner();
    let listed = list(&admin, "users/me").await.settings;
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(
            definitions
                .definitions
                .iter()
                .map(|definition| &definition.name)
                .collect()
        ),
        names(listed.iter().map(|setting| &setting.name).collect())
    );
    assert!(listed.len() >= 8);
    for (definition, setting) in definitions.definitions.iter().zip(&listed) {
        assert_eq!(definition.default_value, setting.value, "{}", definition.name);
    }
}
