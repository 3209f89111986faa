//! Settings in layers: the handlers of SettingsService.
//!
//! Invariant: what a reader gets with an etag was read together with it, so that an update with this etag
//! overwrites nothing its author has not seen.

mod change;
pub(crate) mod convert;
mod parent;
mod read;
mod watch;

use std::sync::Arc;

use rpc::settings::v1 as proto;
use rpc::settings::v1::settings_service_server::SettingsService;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::rpcs::rpcs;
use crate::upheld::Upheld;

pub(crate) use parent::allowed;

/// Serves `pgmoor.settings.v1.SettingsService`.
#[derive(Debug)]
pub(crate) struct SettingsRpcs(pub(crate) Arc<Context>);

rpcs! {
    SettingsService for SettingsRpcs {
        read::list_settings(ListSettingsRequest) -> ListSettingsResponse;
        read::get_setting(GetSettingRequest) -> GetSettingResponse;
        change::update_settings(UpdateSettingsRequest) -> UpdateSettingsResponse;
        change::reset_settings(ResetSettingsRequest) -> ResetSettingsResponse;
    }

    type WatchSettingsStream = Upheld<proto::WatchSettingsResponse>;

    async fn list_setting_definitions(
        &self,
        _request: Request<proto::ListSettingDefinitionsRequest>,
    ) -> Result<Response<proto::ListSettingDefinitionsResponse>, Status> {
        Ok(Response::new(read::list_setting_definitions()))
    }

    async fn watch_settings(
        &self,
        request: Request<proto::WatchSettingsRequest>,
    ) -> Result<Response<Self::WatchSettingsStream>, Status> {
        let call = self.0.call(request)?;
        self.0.answer(watch::watch_settings(&self.0, call).await)
    }
}
