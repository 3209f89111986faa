//! `settings`: values that follow the user, and the administrator's defaults.

use clap::{Args, Subcommand};
use rpc::settings::v1::{
    GetSettingRequest, ListSettingDefinitionsRequest, ListSettingsRequest, ResetSettingsRequest, Setting,
    SettingDefinition, UpdateSettingsRequest, WatchSettingsRequest,
};
use tokio::time::{Duration, timeout};
use tonic::Code;

use super::setting_value;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::globals::Format;
use crate::output::json::JsonMapping;
use crate::output::record::{self, Record, text, word};

/// The server sends something at least every 15 s.
const WATCH_SILENCE: Duration = Duration::from_secs(60);

/// Settings.
#[derive(Debug, Clone, Subcommand)]
pub enum Settings {
    /// List all settings with the values in force
    #[command(
        after_help = "Example:\n  pgmoor settings list --format json | jq '.[] | select(.layer==\"SETTING_LAYER_USER\")'"
    )]
    List(Layer),
    /// Show a value
    Get {
        /// The setting, for example query.row_limit
        name: String,
        #[command(flatten)]
        layer: Layer,
    },
    /// Change a value
    #[command(after_help = "\
Examples:
  pgmoor settings set query.statement_timeout 30s
  pgmoor settings set csv.delimiter semicolon
  pgmoor settings set query.row_limit 1000 --defaults")]
    Set {
        /// The setting, for example query.row_limit
        name: String,
        /// The value: true/false, a number, a word, or a time such as 30s
        #[arg(allow_hyphen_values = true)]
        value: String,
        #[command(flatten)]
        layer: Layer,
        /// Only if the layer has not changed since this etag was read
        #[arg(long, default_value = "", hide_default_value = true)]
        etag: String,
    },
    /// Take values back, so that the administrator's or the built-in ones show through
    Reset {
        /// The settings
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// Take all values back
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[command(flatten)]
        layer: Layer,
    },
    /// Print changes as they are made, wherever that is
    #[command(after_help = "With --format json each change is one line.")]
    Watch {
        #[command(flatten)]
        layer: Layer,
        /// Begin with what changed after this revision; without it, with what changes from now on
        #[arg(long, value_name = "REVISION")]
        after_revision: Option<i64>,
    },
    /// List what settings there are: types, ranges, defaults, meaning
    Definitions,
}

/// Whose values.
#[derive(Debug, Clone, Args)]
pub struct Layer {
    /// The administrator's defaults instead of your own values
    #[arg(long)]
    defaults: bool,
}

impl Layer {
    fn parent(&self) -> String {
        if self.defaults { "defaults" } else { "users/me" }.to_owned()
    }
}

impl Settings {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        let client = context.connection()?.settings();
        match self {
            Self::List(layer) => {
                let request = ListSettingsRequest {
                    parent: layer.parent(),
                };
                let answer = context
                    .read(async || client.clone().list_settings(request.clone()).await)
                    .await?;
                context.show_list(&answer.settings).await
            }
            Self::Get { name, layer } => {
                let request = GetSettingRequest {
                    name: format!("{}/settings/{name}", layer.parent()),
                };
                let answer = context
                    .read(async || client.clone().get_setting(request.clone()).await)
                    .await?;
                let setting = answer
                    .setting
                    .ok_or(ClientError::Incomplete { field: "setting" })?;
                if context.globals.format == Format::Table {
                    let value = setting_value::text(setting.value.as_ref()).unwrap_or_default();
                    return context.show_text(&format!("{value}\n")).await;
                }
                context.show(&setting).await
            }
            Self::Set {
                name,
                value,
                layer,
                etag,
            } => {
                let definitions = definitions(context).await?;
                let definition = definitions.iter().find(|definition| definition.name == name);
                let value = Some(setting_value::parse(definition, &value)?);
                let request = UpdateSettingsRequest {
                    parent: layer.parent(),
                    settings: vec![Setting {
                        name,
                        value,
                        ..Setting::default()
                    }],
                    etag,
                    ..UpdateSettingsRequest::default()
                };
                let answer = context
                    .read(async || client.clone().update_settings(request.clone()).await)
                    .await?;
                context.show_list(&answer.settings).await
            }
            Self::Reset { names, all: _, layer } => {
                let request = ResetSettingsRequest {
                    parent: layer.parent(),
                    names,
                    ..ResetSettingsRequest::default()
                };
                let answer = context
                    .read(async || client.clone().reset_settings(request.clone()).await)
                    .await?;
                context.show_list(&answer.settings).await
            }
            Self::Watch {
                layer,
                after_revision,
            } => watch(context, layer.parent(), after_revision).await,
            Self::Definitions => {
                let definitions = definitions(context).await?;
                context.show_list(&definitions).await
            }
        }
    }
}

async fn definitions(context: &mut Context) -> Result<Vec<SettingDefinition>, ClientError> {
    let client = context.connection()?.settings();
    let request = ListSettingDefinitionsRequest {};
    let answer = context
        .read(async || client.clone().list_setting_definitions(request).await)
        .await?;
    Ok(answer.definitions)
}

/// Follows changes until it is interrupted. A watch that breaks off begins again where it was: nothing is
/// missed.
async fn watch(context: &mut Context, parent: String, after: Option<i64>) -> Result<(), ClientError> {
    let connection = context.connection()?;
    let client = connection.settings();
    let mut revision = match after {
        Some(revision) => revision,
        None => {
            let request = ListSettingsRequest {
                parent: parent.clone(),
            };
            context
                .read(async || client.clone().list_settings(request.clone()).await)
                .await?
                .revision
        }
    };
    let mapping = JsonMapping::new()?;
    let mut header = true;
    loop {
        let request = WatchSettingsRequest {
            parent: parent.clone(),
            after_revision: revision,
        };
        let call = Call::repeatable(context.globals.timeout());
        let mut changes = connection
            .call(call, async || {
                client.clone().watch_settings(request.clone()).await
            })
            .await?;
        loop {
            let change = match timeout(WATCH_SILENCE, changes.message()).await {
                Ok(Ok(Some(change))) => change,
                // The connection was cut, the server is going down, or the token has ended: begin again.
                Ok(Ok(None)) | Err(_) => break,
                Ok(Err(status))
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::Unauthenticated | Code::Unknown
                    ) =>
                {
                    break;
                }
                Ok(Err(status)) => return Err(status.into()),
            };
            revision = revision.max(change.revision);
            if change.settings.is_empty() {
                continue;
            }
            let text = changes_text(&mapping, &change.settings, context.globals.format, &mut header)?;
            context.show_text(&text).await?;
        }
        // A server that ends every watch at once must not be asked as fast as it answers.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn changes_text(
    mapping: &JsonMapping,
    settings: &[Setting],
    format: Format,
    header: &mut bool,
) -> Result<String, ClientError> {
    if format == Format::Json {
        let mut lines = String::new();
        for setting in settings {
            lines.push_str(&mapping.json(Setting::MESSAGE, setting)?.to_string());
            lines.push('\n');
        }
        return Ok(lines);
    }
    let csv = format == Format::Csv;
    let text = if csv {
        record::csv_rows(Setting::COLUMNS, settings.iter().map(Record::cells))
    } else {
        settings
            .iter()
            .map(|setting| {
                let [name, value, layer, _] =
                    [0, 1, 2, 3].map(|at| setting.cells().get(at).cloned().flatten().unwrap_or_default());
                format!("{name} = {value} ({layer})\n")
            })
            .collect()
    };
    let first = std::mem::replace(header, false);
    Ok(if csv && !first {
        text.split_once('\n')
            .map(|(_, rows)| rows.to_owned())
            .unwrap_or_default()
    } else {
        text
    })
}

impl Record for Setting {
    const MESSAGE: &'static str = "pgmoor.settings.v1.Setting";
    const COLUMNS: &'static [&'static str] = &["name", "value", "layer", "revision"];

    fn cells(&self) -> Vec<Option<String>> {
        vec![
            text(&self.name),
            setting_value::text(self.value.as_ref()),
            word(self.layer().as_str_name(), "SETTING_LAYER_"),
            Some(self.revision.to_string()),
        ]
    }
}

impl Record for SettingDefinition {
    const MESSAGE: &'static str = "pgmoor.settings.v1.SettingDefinition";
    const COLUMNS: &'static [&'static str] = &["name", "type", "default", "allowed", "description"];

    fn cells(&self) -> Vec<Option<String>> {
        let seconds = |duration: &prost_types::Duration| format!("{}s", duration.seconds);
        let range = |low: Option<String>, high: Option<String>| match (low, high) {
            (None, None) => None,
            (low, high) => Some(format!(
                "{}..{}",
                low.unwrap_or_default(),
                high.unwrap_or_default()
            )),
        };
        let allowed = if !self.enum_values.is_empty() {
            Some(self.enum_values.join(" "))
        } else if let Some(length) = self.max_length {
            Some(format!("up to {length} characters"))
        } else {
            let ints = range(
                self.min_int.map(|int| int.to_string()),
                self.max_int.map(|int| int.to_string()),
            );
            ints.or_else(|| {
                range(
                    self.min_duration.as_ref().map(seconds),
                    self.max_duration.as_ref().map(seconds),
                )
            })
        };
        vec![
            text(&self.name),
            word(self.r#type().as_str_name(), "SETTING_TYPE_"),
            setting_value::text(self.default_value.as_ref()),
            allowed,
            text(&self.description),
        ]
    }
}
