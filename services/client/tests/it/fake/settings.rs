use rpc::settings::v1::setting_value::Kind;
use rpc::settings::v1::settings_service_server::SettingsService;
use rpc::settings::v1::*;
use tokio_stream::Empty;
use tonic::{Request, Response, Status, async_trait};

use super::{Service, not_offered};

#[async_trait]
impl SettingsService for Service {
    type WatchSettingsStream = Empty<Result<WatchSettingsResponse, Status>>;

    async fn list_settings(
        &self,
        request: Request<ListSettingsRequest>,
    ) -> Result<Response<ListSettingsResponse>, Status> {
        self.0.admit(&request)?;
        let setting = |name: &str, kind| Setting {
            name: name.into(),
            value: Some(SettingValue { kind: Some(kind) }),
            ..Setting::default()
        };
        let settings = vec![
            setting("csv.delimiter", Kind::StringValue("SEMICOLON".into())),
            setting("csv.header", Kind::BoolValue(true)),
            setting("csv.line_ending", Kind::StringValue("LF".into())),
            setting("csv.null_text", Kind::StringValue("NULL".into())),
        ];
        Ok(Response::new(ListSettingsResponse {
            settings,
            ..ListSettingsResponse::default()
        }))
    }

    async fn watch_settings(
        &self,
        _: Request<WatchSettingsRequest>,
    ) -> Result<Response<Self::WatchSettingsStream>, Status> {
        Err(Status::unimplemented("watch_settings"))
    }

    not_offered! {
        list_setting_definitions(ListSettingDefinitionsRequest) -> ListSettingDefinitionsResponse;
        get_setting(GetSettingRequest) -> GetSettingResponse;
        update_settings(UpdateSettingsRequest) -> UpdateSettingsResponse;
        reset_settings(ResetSettingsRequest) -> ResetSettingsResponse;
    }
}
