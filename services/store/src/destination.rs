//! Columns that hold a [`Destination`]: endpoints as JSON, and the TLS policy.

use domain::endpoint::{Destination, Endpoint, InvalidEndpoint, SslMode, TlsPolicy};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Inconsistency;

#[derive(Debug, sqlx::FromRow)]
pub(crate) struct DestinationRow {
    endpoints: Value,
    tls_mode: String,
    root_certificates: Option<String>,
}

impl DestinationRow {
    pub(crate) fn of(destination: &Destination) -> Self {
        let endpoints = destination.endpoints().iter();
        let endpoints = endpoints.map(|it| json!({ "host": it.host.to_string(), "port": it.port.get() }));
        Self {
            endpoints: endpoints.collect(),
            tls_mode: destination.tls().mode().as_str().to_owned(),
            root_certificates: destination.tls().root_certificates().map(str::to_owned),
        }
    }

    /// The values in the order `endpoints, tls_mode, root_certificates`.
    pub(crate) fn into_values(self) -> (Value, String, Option<String>) {
        (self.endpoints, self.tls_mode, self.root_certificates)
    }

    pub(crate) fn parse(self, table: &'static str, row: Uuid) -> Result<Destination, Inconsistency> {
        let wrong = |column| Inconsistency::new(table, column, row);
        let endpoints = self.endpoints.as_array().ok_or_else(|| wrong("endpoints"))?;
        let endpoints = endpoints
            .iter()
            .map(endpoint)
            .collect::<Option<Result<Vec<_>, _>>>();
        let endpoints = endpoints.and_then(Result::ok).ok_or_else(|| wrong("endpoints"))?;
        let mode: SslMode = self.tls_mode.parse().map_err(|_| wrong("tls_mode"))?;
        let tls = TlsPolicy::new(mode, self.root_certificates.as_deref().unwrap_or_default());
        let tls = tls.map_err(|_| wrong("root_certificates"))?;
        Destination::new(endpoints, tls).map_err(|_| wrong("endpoints"))
    }
}

fn endpoint(value: &Value) -> Option<Result<Endpoint, InvalidEndpoint>> {
    Some(Endpoint::new(
        value.get("host")?.as_str()?,
        value.get("port")?.as_i64()?,
    ))
}
