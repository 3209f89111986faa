//! `[metrics]`: figures for Prometheus.

use std::net::SocketAddr;

use serde::Deserialize;

/// Keys of `[metrics]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port where `GET /metrics` is answered, in plain HTTP and to anybody who can reach it: such as
    /// `127.0.0.1:9464`. Without it nothing listens. No default.
    pub listen: Option<SocketAddr>,
}
