//! The configuration files of a world, as an operator would write them.

use std::fmt::Write as _;
use std::path::Path;

use crate::Role;
use crate::admin::Certificate;

/// What all processes of a world are told alike.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// `egress.allow`.
    pub egress_allow: Vec<String>,
    /// `egress.loopback_ports`.
    pub loopback_ports: Vec<u16>,
    /// `telemetry.otlp_endpoint`.
    pub otlp_endpoint: Option<String>,
    /// `telemetry.log_level`.
    pub log_level: String,
    /// `pooler.lease` and `pooler.takeover_grace`; the defaults where not given.
    pub takeover: Option<(String, String)>,
    /// `audit.loss_window`, where calls are refused that cannot be recorded.
    pub audit_loss_window: Option<String>,
    /// What logins with providers need.
    pub logins: Option<Logins>,
    /// The keys of `[audit]` as they are written; the defaults where not given.
    pub audit: Option<String>,
}

/// What API instances need for logins with providers.
#[derive(Debug, Clone)]
pub struct Logins {
    /// `api.external_url`.
    pub external_url: String,
    /// `api.login_key_file`.
    pub login_key_file: std::path::PathBuf,
    /// The section `[oidc]` as it is written.
    pub oidc: String,
}

/// What one process is told.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Its role.
    pub role: Role,
    /// The file with the config database's URL.
    pub url_file: &'a Path,
    /// Where it listens on 127.0.0.1; a worker does not.
    pub port: u16,
    /// Where it answers Prometheus on 127.0.0.1.
    pub metrics_port: u16,
    /// What it shows to other roles.
    pub certificate: &'a Certificate,
    /// The key that opens passwords; none for the API.
    pub opening_key_file: Option<&'a Path>,
    /// Where files and artifacts are.
    pub storage: &'a Path,
    /// Where it answers browsers on 127.0.0.1; none where nobody logs in with a provider.
    pub http_port: Option<u16>,
}

/// The text of a process's configuration file.
#[must_use]
pub fn of_process(shared: &Shared, own: &Own<'_>) -> String {
    let mut text = String::new();
    let role = own.role;
    section(&mut text, "config_database", &[("url_file", path(own.url_file))]);
    match role {
        Role::Api => {
            let mut keys = vec![
                ("listen", quoted(&format!("127.0.0.1:{}", own.port))),
                ("drain_timeout", quoted("5s")),
                ("access_token_lifetime", quoted("1h")),
                // nginx.
                ("trusted_hops", "1".to_owned()),
                ("trusted_networks", "[\"127.0.0.1\"]".to_owned()),
            ];
            if let (Some(logins), Some(port)) = (&shared.logins, own.http_port) {
                keys.extend([
                    ("http_listen", quoted(&format!("127.0.0.1:{port}"))),
                    ("external_url", quoted(&logins.external_url)),
                    ("login_key_file", path(&logins.login_key_file)),
                ]);
            }
            section(&mut text, "api", &keys);
            if let Some(logins) = &shared.logins {
                text.push_str(&logins.oidc);
                text.push('\n');
            }
        }
        Role::Pooler => {
            let mut keys = vec![
                ("listen", quoted(&format!("127.0.0.1:{}", own.port))),
                ("drain_timeout", quoted("5s")),
            ];
            if let Some((lease, grace)) = &shared.takeover {
                keys.extend([("lease", quoted(lease)), ("takeover_grace", quoted(grace))]);
            }
            section(&mut text, "pooler", &keys);
        }
        Role::Worker => {}
    }
    section(
        &mut text,
        "trust",
        &[("authority", path(&own.certificate.authority))],
    );
    section(
        &mut text,
        &format!("trust.{role}"),
        &[
            ("certificate", path(&own.certificate.certificate)),
            ("key", path(&own.certificate.key)),
        ],
    );
    if let Some(file) = own.opening_key_file {
        section(&mut text, "sealing", &[("opening_key_file", path(file))]);
    }
    if role != Role::Pooler {
        section(&mut text, "storage", &[("directory", path(own.storage))]);
        // The default is one place for the whole machine, which another user may own.
        let scratch = own.storage.with_file_name("scratch");
        section(&mut text, "worker", &[("scratch_directory", path(&scratch))]);
    }
    if let Some(window) = &shared.audit_loss_window {
        let keys = [("when_full", quoted("refuse")), ("loss_window", quoted(window))];
        section(&mut text, "audit", &keys);
    }
    let ports: Vec<String> = shared.loopback_ports.iter().map(u16::to_string).collect();
    let allow: Vec<String> = shared.egress_allow.iter().map(|rule| quoted(rule)).collect();
    section(
        &mut text,
        "egress",
        &[
            ("allow", format!("[{}]", allow.join(", "))),
            ("loopback_ports", format!("[{}]", ports.join(", "))),
        ],
    );
    if let Some(audit) = &shared.audit {
        text += &format!("[audit]\n{audit}\n\n");
    }
    let mut telemetry = vec![
        ("log_format", quoted("json")),
        ("log_level", quoted(&shared.log_level)),
    ];
    if let Some(endpoint) = &shared.otlp_endpoint {
        telemetry.push(("otlp_endpoint", quoted(endpoint)));
    }
    section(&mut text, "telemetry", &telemetry);
    let metrics = quoted(&format!("127.0.0.1:{}", own.metrics_port));
    section(&mut text, "metrics", &[("listen", metrics)]);
    text
}

/// The text of the configuration file of commands that only need the config database.
#[must_use]
pub fn of_commands(url_file: &Path) -> String {
    let mut text = String::new();
    section(&mut text, "config_database", &[("url_file", path(url_file))]);
    text
}

fn section(text: &mut String, name: &str, keys: &[(&str, String)]) {
    writeln!(text, "[{name}]").expect("writing to a String succeeds");
    for (key, value) in keys {
        writeln!(text, "{key} = {value}").expect("writing to a String succeeds");
    }
    text.push('\n');
}

fn path(path: &Path) -> String {
    quoted(path.to_str().expect("paths of a test are UTF-8"))
}

/// A basic string of TOML; nothing here has characters that need more than Rust's escapes.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}
