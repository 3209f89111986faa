//! `[pooler]`: the process that owns every connection to targets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::problem::Problem;
use crate::values;

/// Keys of `[pooler]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pooler {
    /// Address and port its internal gRPC listens on. Default `127.0.0.1:7710`.
    pub listen: SocketAddr,
    /// Where API instances and workers reach it, as `host:port`. Default: `listen`, which then may not be an
    /// unspecified address such as `0.0.0.0`.
    pub advertise: Option<String>,
    /// How long executions and pinned sessions may take to finish once the process was asked to stop, or another
    /// pooler owns their instance. At most 1 h. Default 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// How long it counts as alive, and as owner of its instances, without a sign of life in the config
    /// database. So long a takeover takes at least. 1 s to 10 min. Default 15 s.
    #[serde(deserialize_with = "values::duration")]
    pub lease: Duration,
    /// How long another pooler may be silent before its connections are ended, once one of its instances was
    /// taken over. At most 1 h. Default 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub takeover_grace: Duration,
    /// How old what was found of a server's role may become before it is looked again what the role may do. 1 min to
    /// 7 days. Default 1 h.
    #[serde(deserialize_with = "values::duration")]
    pub inspection_interval: Duration,
    /// Where results are kept that nobody reads, while their executions go on: in files without names, encrypted.
    /// Default: the system's directory for temporary files.
    pub spool_directory: Option<PathBuf>,
    /// Most bytes of them; one execution has a quarter at most. 0: none are kept. Default 1 GiB.
    pub spool_bytes: u64,
}

impl Default for Pooler {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7710)),
            advertise: None,
            drain_timeout: Duration::from_secs(30),
            lease: Duration::from_secs(15),
            takeover_grace: Duration::from_secs(30),
            inspection_interval: Duration::from_hours(1),
            spool_directory: None,
            spool_bytes: 1 << 30,
        }
    }
}

impl Pooler {
    /// Where others reach it.
    #[must_use]
    pub fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    pub(crate) fn validate(&self) -> Vec<Problem> {
        const ADVERTISE: &str = "pooler.advertise";
        let mut problems = Vec::new();
        match &self.advertise {
            None if self.listen.ip().is_unspecified() => {
                let what = format!(
                    "pooler.listen is {}: say where other processes reach it",
                    self.listen
                );
                problems.push(Problem::missing(ADVERTISE, &what));
            }
            Some(address) if !is_host_and_port(address) => {
                problems.push(Problem::invalid(
                    ADVERTISE,
                    "must be host:port, such as pooler-1.example.com:7710",
                ));
            }
            _ => {}
        }
        let hour = Duration::from_secs(60 * 60);
        if self.drain_timeout > hour {
            problems.push(Problem::invalid("pooler.drain_timeout", "must be at most 1h"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.lease) {
            problems.push(Problem::invalid("pooler.lease", "must be 1s to 10min"));
        }
        if self.takeover_grace > hour {
            problems.push(Problem::invalid("pooler.takeover_grace", "must be at most 1h"));
        }
        if !(Duration::from_mins(1)..=hour * 24 * 7).contains(&self.inspection_interval) {
            problems.push(Problem::invalid(
                "pooler.inspection_interval",
                "must be 1min to 7days",
            ));
        }
        problems
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        url::Host::parse(host).is_ok() && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
