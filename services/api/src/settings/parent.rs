//! Which layer a request names, and whether its caller may.

use std::sync::Arc;

use domain::access::Caller;
use domain::settings::{Layer, Settings};
use store::settings::{Layer as LayerName, LayerSettings};

use super::convert;
use crate::context::Context;
use crate::error::{Error, ResourceKind};
use crate::resource;

const DEFAULTS: &str = "defaults";

/// The layer a parent names: `defaults`, `users/{user}` or `users/me`. Another user's answers as a missing
/// one, unless an administrator asks.
pub(super) async fn layer(
    api: &Context,
    caller: &Caller,
    field: &str,
    parent: &str,
) -> Result<LayerName, Error> {
    if parent == DEFAULTS {
        return Ok(LayerName::Defaults);
    }
    if !parent.starts_with("users/") {
        return Err(Error::invalid(
            field,
            "must be of the form users/me, users/{user} or defaults",
        ));
    }
    let user = resource::user(field, parent, caller)?;
    if user != caller.user && (!caller.administrator || api.store.users().get(user).await?.is_none()) {
        return Err(Error::not_found(ResourceKind::User, parent));
    }
    Ok(LayerName::User(user))
}

/// Whether the caller may see the layer.
pub(crate) async fn allowed(api: &Context, caller: &Caller, parent: &str) -> Result<(), Error> {
    layer(api, caller, "parent", parent).await.map(drop)
}

/// As [`layer`], for a change: the defaults are the administrators'.
pub(super) async fn layer_to_change(
    api: &Context,
    caller: &Caller,
    parent: &str,
) -> Result<LayerName, Error> {
    let layer = layer(api, caller, "parent", parent).await?;
    if layer == LayerName::Defaults && !caller.administrator {
        return Err(Error::PermissionMissing {
            action: "changing the defaults",
        });
    }
    Ok(layer)
}

/// The settings in force seen from a layer that was just read.
pub(super) fn in_force(api: &Context, name: LayerName, read: &LayerSettings) -> Settings {
    let layer = Arc::new(convert::layer(read));
    match name {
        LayerName::Defaults => Settings::new(layer, Arc::default()),
        LayerName::User(_) => api.settings.defaults().with_user(layer),
    }
}

/// The settings in force seen from a layer, as the cache has them.
pub(super) async fn cached(api: &Context, name: LayerName) -> Result<Settings, Error> {
    match name {
        LayerName::Defaults => Ok(api.settings.defaults()),
        LayerName::User(user) => Ok(api.settings.of(user).await?),
    }
}

/// The layers that a view from this one rests on.
pub(super) fn changed_after(
    settings: &Settings,
    revision: i64,
) -> impl Iterator<Item = &'static domain::settings::Definition> {
    let mut changed: Vec<_> = settings
        .layers()
        .flat_map(|layer: &Layer| layer.changed_after(revision))
        .collect();
    changed.sort_by_key(|definition| definition.name);
    changed.dedup_by_key(|definition| definition.name);
    changed.into_iter()
}
