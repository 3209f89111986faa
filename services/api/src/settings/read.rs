//! ListSettingDefinitions, ListSettings, GetSetting.

use domain::settings::{DEFINITIONS, find};
use rpc::settings::v1::{
    GetSettingRequest, GetSettingResponse, ListSettingDefinitionsResponse, ListSettingsRequest,
    ListSettingsResponse,
};

use super::{convert, parent};
use crate::context::{Call, Context};
use crate::error::Error;

/// What settings there are, by name.
pub(super) fn list_setting_definitions() -> ListSettingDefinitionsResponse {
    let definitions = DEFINITIONS
        .iter()
        .map(|definition| convert::definition(definition))
        .collect();
    ListSettingDefinitionsResponse { definitions }
}

/// Every setting with the value in force.
pub(super) async fn list_settings(
    api: &Context,
    call: Call<ListSettingsRequest>,
) -> Result<ListSettingsResponse, Error> {
    let name = parent::layer(api, &call.caller, "parent", &call.message.parent).await?;
    api.settings.catch_up().await?;
    let read = api.store.settings().layer(name).await?;
    let settings = parent::in_force(api, name, &read);
    Ok(ListSettingsResponse {
        settings: settings.iter().map(convert::setting).collect(),
        etag: read.etag.to_string(),
        // The older of the two layers' reads, so that who watches from it misses nothing.
        revision: read.revision.min(api.settings.revision()),
    })
}

/// One setting with the value in force.
pub(super) async fn get_setting(
    api: &Context,
    call: Call<GetSettingRequest>,
) -> Result<GetSettingResponse, Error> {
    let name = &call.message.name;
    let (parent, setting) = name.split_once("/settings/").ok_or_else(|| {
        Error::invalid(
            "name",
            "must be of the form users/me/settings/{setting} or defaults/settings/{setting}",
        )
    })?;
    let layer = parent::layer(api, &call.caller, "name", parent).await?;
    let definition = find(setting).ok_or_else(|| Error::UnknownSetting {
        field: "name".to_owned(),
        name: setting.to_owned(),
    })?;
    api.settings.catch_up().await?;
    let read = api.store.settings().layer(layer).await?;
    let settings = parent::in_force(api, layer, &read);
    Ok(GetSettingResponse {
        setting: Some(convert::setting(settings.in_force(definition))),
        etag: read.etag.to_string(),
    })
}
