//! `[telemetry]`: logs, on standard error, and traces.

use serde::Deserialize;
use url::Url;

use crate::problem::Problem;

/// How a log line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Keys of `[telemetry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// `text` or `json`. Default `text`.
    pub log_format: LogFormat,
    /// The least severe level that is logged (`error`, `warn`, `info`, `debug`, `trace`), or a list of
    /// directives such as `info,pooler=debug`. Default `info`.
    pub log_level: String,
    /// OTLP/gRPC endpoint for traces, such as `http://collector:4317`. Without it none are made. No default.
    pub otlp_endpoint: Option<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            otlp_endpoint: None,
        }
    }
}

impl Telemetry {
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let is_http =
            |text: &String| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        let http = self.otlp_endpoint.as_ref().is_none_or(is_http);
        let problem = || {
            Problem::invalid(
                "telemetry.otlp_endpoint",
                "must be a URL that starts with http:// or https://",
            )
        };
        (!http).then(problem).into_iter().collect()
    }
}
