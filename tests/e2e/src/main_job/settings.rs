//! Steps 1 to 3: logging in, servers.json, a setting.

use anyhow::{Context as _, ensure};
use rpc::auth::v1::WhoAmIRequest;
use rpc::server::v1::{ImportOutcome, ImportServersRequest, SetServerPasswordRequest, TestServerRequest};
use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::{GetSettingRequest, Setting, SettingValue, UpdateSettingsRequest};

use super::MainJob;
use crate::world::SUPERUSER;

pub(super) async fn log_in(job: &mut MainJob) -> anyhow::Result<String> {
    let caller = job.world.superuser().await;
    let me = caller
        .balanced
        .auth()
        .who_am_i(WhoAmIRequest {})
        .await?
        .into_inner();
    ensure!(me.username == SUPERUSER, "the token is {}'s", me.username);
    ensure!(me.administrator, "the superuser is no administrator");
    job.caller = Some(caller);
    let nginx = job.world.url();
    Ok(format!("{} at {nginx}, an administrator", me.username))
}

pub(super) async fn import_servers(job: &mut MainJob) -> anyhow::Result<String> {
    const NAME: &str = "Demo target";
    let balanced = job.balanced()?;
    let document = job.target().servers_json(NAME);
    let import = async |validate_only| {
        let request = ImportServersRequest {
            document: document.clone().into(),
            validate_only,
        };
        let response = balanced.servers().import_servers(request).await?;
        let entry = response.into_inner().servers.pop();
        entry.context("no entry was reported")
    };
    let checked = import(true).await?;
    ensure!(
        checked.outcome() == ImportOutcome::Created && checked.server.is_empty(),
        "the dry run said {checked:?}"
    );
    let created = import(false).await?;
    ensure!(
        created.outcome() == ImportOutcome::Created,
        "the import said {created:?}"
    );
    let again = import(false).await?;
    ensure!(
        again.outcome() == ImportOutcome::Unchanged,
        "importing again said {again:?}"
    );
    ensure!(
        again.server == created.server,
        "importing again made another server"
    );

    let password = job.target().login().password.clone();
    let request = SetServerPasswordRequest {
        name: created.server.clone(),
        password,
    };
    balanced.servers().set_server_password(request).await?;
    let request = TestServerRequest {
        name: created.server.clone(),
        database: String::new(),
        ..Default::default()
    };
    let found = balanced.servers().test_server(request).await?.into_inner();
    job.server = Some(created.server.clone());
    Ok(format!(
        "{} is PostgreSQL {} as role {}; ignored: {}; imported twice, created once",
        created.display_name,
        found.server_version,
        found.role.unwrap_or_default().name,
        created.ignored_keys.join(", ")
    ))
}

pub(super) async fn write_here_read_there(job: &mut MainJob) -> anyhow::Result<String> {
    const NAME: &str = "csv.null_text";
    let value = SettingValue {
        kind: Some(Kind::StringValue("(none)".to_owned())),
    };
    let request = UpdateSettingsRequest {
        parent: "users/me".to_owned(),
        settings: vec![Setting {
            name: NAME.to_owned(),
            value: Some(value.clone()),
            ..Setting::default()
        }],
        ..UpdateSettingsRequest::default()
    };
    let written = job.a()?.settings().update_settings(request).await?.into_inner();
    let name = format!("users/me/settings/{NAME}");
    let read = job
        .b()?
        .settings()
        .get_setting(GetSettingRequest { name })
        .await?
        .into_inner();
    let setting = read.setting.context("B answered without the setting")?;
    ensure!(
        setting.value.as_ref() == Some(&value),
        "B reads {:?}",
        setting.value
    );
    ensure!(read.etag == written.etag, "A and B give different etags");
    Ok(format!(
        "{NAME} = \"(none)\" on both, revision {}",
        setting.revision
    ))
}
