//! UpdateSettings, ResetSettings.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::settings::{Definition, Layer, SettingValue, find};
use rpc::settings::v1::{
    ResetSettingsRequest, ResetSettingsResponse, Setting, UpdateSettingsRequest, UpdateSettingsResponse,
};
use store::Etag;
use store::settings::{Layer as LayerName, ResetScope, UpdateSettingsError};

use super::{convert, parent};
use crate::context::{Call, Context};
use crate::error::{Error, ResourceKind, Violations};

/// A setting and what becomes of it: a value, or none for a reset.
type Changes = BTreeMap<&'static str, (&'static Definition, Option<SettingValue>)>;

/// Changes settings of one layer, all or none.
pub(super) async fn update_settings(
    api: &Context,
    call: Call<UpdateSettingsRequest>,
) -> Result<UpdateSettingsResponse, Error> {
    let request = call.message;
    let layer = parent::layer_to_change(api, &call.caller, &request.parent).await?;
    let etag = etag(request.etag);
    let mask = request.update_mask.map(|mask| mask.paths);
    let changes = changes(request.settings, mask)?;
    if request.validate_only {
        return validated(api, layer, etag.as_ref(), &changes).await;
    }
    let values = changes
        .iter()
        .map(|(name, (_, value))| ((*name).to_owned(), value.as_ref().map(convert::to_json)))
        .collect();
    let changed = api.store.settings().update(layer, &values, etag.as_ref()).await;
    let changed = changed.map_err(|error| cause(error, &request.parent))?;
    let definitions = changes.values().map(|(definition, _)| *definition);
    Ok(UpdateSettingsResponse {
        settings: now_in_force(api, layer, definitions).await?,
        etag: changed.etag.to_string(),
        revision: changed.revision,
    })
}

/// Takes settings out of one layer.
pub(super) async fn reset_settings(
    api: &Context,
    call: Call<ResetSettingsRequest>,
) -> Result<ResetSettingsResponse, Error> {
    let request = call.message;
    let layer = parent::layer_to_change(api, &call.caller, &request.parent).await?;
    for (index, name) in request.names.iter().enumerate() {
        known(name, || format!("names[{index}]"))?;
    }
    let scope = if request.names.is_empty() {
        ResetScope::All
    } else {
        ResetScope::Names(&request.names)
    };
    let changed = api
        .store
        .settings()
        .reset(layer, scope, etag(request.etag).as_ref())
        .await;
    let changed = changed.map_err(|error| cause(error, &request.parent))?;
    // What was asked for, or with no names what was there.
    let definitions: Vec<_> = if request.names.is_empty() {
        changed.changed.iter().filter_map(|name| find(name)).collect()
    } else {
        request.names.iter().filter_map(|name| find(name)).collect()
    };
    Ok(ResetSettingsResponse {
        settings: now_in_force(api, layer, definitions.into_iter()).await?,
        etag: changed.etag.to_string(),
        revision: changed.revision,
    })
}

fn etag(given: String) -> Option<Etag> {
    (!given.is_empty()).then(|| Etag::new(given))
}

fn known(name: &str, field: impl FnOnce() -> String) -> Result<&'static Definition, Error> {
    find(name).ok_or_else(|| Error::UnknownSetting {
        field: field(),
        name: name.to_owned(),
    })
}

/// What a request changes. A name in the mask without a setting is a reset; a setting outside the mask is
/// left alone.
fn changes(settings: Vec<Setting>, mask: Option<Vec<String>>) -> Result<Changes, Error> {
    let mut violations = Violations::default();
    let mut given = Changes::new();
    for (index, setting) in settings.into_iter().enumerate() {
        let definition = known(&setting.name, || format!("settings[{index}].name"))?;
        if mask.as_ref().is_some_and(|mask| !mask.contains(&setting.name)) {
            continue;
        }
        let value_field = format!("settings[{index}].value");
        let value = violations.check(&value_field, convert::value(setting.value));
        if let Some(value) = &value {
            violations.check(&value_field, definition.kind.check(value));
        }
        if given.insert(definition.name, (definition, value)).is_some() {
            violations.add(format!("settings[{index}].name"), "is given twice");
        }
    }
    violations.done()?;
    for (index, name) in mask.into_iter().flatten().enumerate() {
        let definition = known(&name, || format!("update_mask.paths[{index}]"))?;
        given.entry(definition.name).or_insert((definition, None));
    }
    if given.is_empty() {
        return Err(Error::invalid("settings", "must name at least one setting"));
    }
    Ok(given)
}

/// What would be in force after the change.
async fn validated(
    api: &Context,
    name: LayerName,
    etag: Option<&Etag>,
    changes: &Changes,
) -> Result<UpdateSettingsResponse, Error> {
    api.settings.catch_up().await?;
    let read = api.store.settings().layer(name).await?;
    if etag.is_some_and(|etag| *etag != read.etag) {
        return Err(Error::EtagMismatch);
    }
    let mut layer: Layer = convert::layer(&read);
    for (definition, value) in changes.values() {
        match value {
            // Checked when the request was read.
            Some(value) => drop(layer.choose(definition, value.clone(), read.revision)),
            None => layer.reset(definition, read.revision),
        }
    }
    let settings = match name {
        LayerName::Defaults => domain::settings::Settings::new(Arc::new(layer), Arc::default()),
        LayerName::User(_) => api.settings.defaults().with_user(Arc::new(layer)),
    };
    let in_force = changes
        .values()
        .map(|(definition, _)| convert::setting(settings.in_force(definition)));
    Ok(UpdateSettingsResponse {
        settings: in_force.collect(),
        etag: read.etag.to_string(),
        revision: read.revision,
    })
}

async fn now_in_force(
    api: &Context,
    layer: LayerName,
    definitions: impl Iterator<Item = &'static Definition>,
) -> Result<Vec<Setting>, Error> {
    // So that the caller's next call on this instance sees the change too.
    api.settings.catch_up().await?;
    let settings = parent::cached(api, layer).await?;
    Ok(definitions
        .map(|definition| convert::setting(settings.in_force(definition)))
        .collect())
}

fn cause(error: UpdateSettingsError, parent: &str) -> Error {
    match error {
        UpdateSettingsError::EtagMismatch => Error::EtagMismatch,
        UpdateSettingsError::UserNotFound => Error::not_found(ResourceKind::User, parent),
        UpdateSettingsError::Store(error) => Error::Store(error),
    }
}
