//! What an operator writes, and what comes of it.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;
use crate::{LogFormat, Role};

/// A configuration file with this text, in a directory that is removed with the value.
struct File {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn with(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgmoor.toml");
        std::fs::write(&path, text).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::from_pairs(pairs.iter().copied())
}

fn from_file(text: &str) -> Result<Config, InvalidConfig> {
    Config::load(Some(&File::with(text).path), &Environment::default())
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Config, InvalidConfig> {
    Config::load(None, &environment(pairs))
}

#[track_caller]
fn refused(loaded: Result<Config, InvalidConfig>, key: &str, part: &str) {
    let problems = loaded.expect_err("it is refused").problems;
    let found = problems.iter().find(|problem| problem.key == key);
    let reason = &found
        .unwrap_or_else(|| panic!("no problem of {key}: {problems:?}"))
        .reason;
    assert!(reason.contains(part), "{reason}");
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    let config = from_environment(&[]).unwrap();
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:7700");
    assert_eq!(config.pooler.advertised(), "127.0.0.1:7710");
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
    assert!(config.egress.allow.is_empty());
    assert!(config.config_database.require_url().is_err());
}

#[test]
fn file_sets_every_kind_of_value() {
    let config = from_file(
        r#"
        [config_database]
        url = "postgres://api:x@h1:5432,h2:5432/pgmoor"
        max_connections = 20
        [api]
        listen = "[::1]:1"
        drain_timeout = "1m 30s"
        [egress]
        allow = ["10.0.0.0/8", "*.db.example.com:5432"]
        loopback_ports = [5433]
        [trust]
        authority = "/etc/pgmoor/authority.pem"
        pooler = { certificate = "/c.pem", key = "/k.pem" }
        [telemetry]
        log_format = "json"
        "#,
    )
    .unwrap();
    assert_eq!(config.config_database.max_connections, 20);
    assert_eq!(config.api.drain_timeout, Duration::from_secs(90));
    assert_eq!(config.egress.allow.len(), 2);
    assert_eq!(config.egress.loopback_ports, [5433]);
    assert_eq!(
        config.trust.require_identity(Role::Pooler).unwrap().key,
        Path::new("/k.pem")
    );
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
}

#[test]
fn environment_wins_over_the_file() {
    let file = File::with("[api]\nlisten = '127.0.0.1:1'\ndrain_timeout = '1s'");
    let config = Config::load(
        Some(&file.path),
        &environment(&[("PGMOOR_API__LISTEN", "127.0.0.1:2")]),
    )
    .unwrap();
    assert_eq!(config.api.listen.port(), 2);
    assert_eq!(config.api.drain_timeout, Duration::from_secs(1));
}

#[test]
fn environment_writes_numbers_and_lists_as_text() {
    let config = from_environment(&[
        ("PGMOOR_CONFIG_DATABASE__MAX_CONNECTIONS", "7"),
        ("PGMOOR_EGRESS__ALLOW", "db.example.com, 10.0.0.0/8"),
        ("PGMOOR_EGRESS__LOOPBACK_PORTS", "5432,5433"),
        ("PGMOOR_TRUST__API__CERTIFICATE", "/c"),
        ("PGMOOR_TRUST__API__KEY", "/k"),
    ])
    .unwrap();
    assert_eq!(config.config_database.max_connections, 7);
    assert_eq!(config.egress.allow, ["db.example.com", "10.0.0.0/8"]);
    assert_eq!(config.egress.loopback_ports, [5432, 5433]);
    assert!(config.trust.mentions(Role::Api));
}

#[test]
fn short_name_sets_the_url() {
    let config = from_environment(&[("PGMOOR_CONFIG_DATABASE_URL", "postgres://u:p@h/d")]).unwrap();
    assert_eq!(
        config.config_database.require_url().unwrap().expose_secret(),
        "postgres://u:p@h/d"
    );
}

#[test]
fn secret_is_read_from_its_file() {
    let secret = File::with("postgres://u:p@h/d\n");
    let path = secret.path.to_str().unwrap();
    let config = from_environment(&[("PGMOOR_CONFIG_DATABASE_URL_FILE", path)]).unwrap();
    assert_eq!(
        config.config_database.require_url().unwrap().expose_secret(),
        "postgres://u:p@h/d"
    );
}

#[test]
fn secret_given_twice_is_refused() {
    let pairs = [
        ("PGMOOR_CONFIG_DATABASE_URL", "postgres://h/d"),
        ("PGMOOR_CONFIG_DATABASE_URL_FILE", "/x"),
    ];
    refused(from_environment(&pairs), "config_database.url", "both set");
}

#[test]
fn secret_file_that_is_missing_is_named() {
    let loaded = from_environment(&[("PGMOOR_CONFIG_DATABASE_URL_FILE", "/nonexistent/url")]);
    refused(loaded, "config_database.url_file", "/nonexistent/url");
}

#[test]
fn secret_is_in_no_error_and_no_debug_text() {
    let wrong = from_environment(&[("PGMOOR_CONFIG_DATABASE_URL", "mysql://u:hunter2@h/d")]).unwrap_err();
    assert!(!format!("{wrong} {wrong:?}").contains("hunter2"));
    let pairs = [("PGMOOR_CONFIG_DATABASE_URL", "postgres://u:hunter2@h/d")];
    let config = from_environment(&pairs).unwrap();
    assert!(!format!("{config:?} {:?}", environment(&pairs)).contains("hunter2"));
}

#[test]
fn unknown_keys_are_refused_by_name() {
    refused(
        from_file("[api]\nlisen = 'x'"),
        "api.lisen",
        "expected one of listen",
    );
    refused(from_file("[apy]\nlisten = 'x'"), "apy", "config_database");
    refused(
        from_environment(&[("PGMOOR_API__LISEN", "x")]),
        "api.lisen",
        "expected one of listen",
    );
    refused(
        from_environment(&[("PGMOOR_TRUST__API__CERT", "x")]),
        "trust.api.cert",
        "certificate",
    );
}

#[test]
fn single_underscore_is_pointed_out() {
    let loaded = from_environment(&[("PGMOOR_API_LISTEN", "127.0.0.1:1")]);
    refused(loaded, "PGMOOR_API_LISTEN", "write PGMOOR_API__LISTEN");
}

#[test]
fn variables_of_others_are_left_alone() {
    for name in [
        "PGMOOR_API_PORT",
        "PGMOOR_API_SERVICE_HOST",
        "PGMOOR_PORT_7700_TCP",
        "PGMOOR_PROFILE",
    ] {
        from_environment(&[(name, "tcp://10.0.0.1:7700")]).unwrap();
    }
}

#[test]
fn values_that_cannot_be_used_are_refused_with_their_key() {
    let cases = [
        ("[api]\nlisten = 'localhost'", "api.listen", "address"),
        ("[api]\nlisten = 7700", "api.listen", "address"),
        ("[api]\ndrain_timeout = 30", "api.drain_timeout", "30s"),
        ("[api]\ndrain_timeout = '2h'", "api.drain_timeout", "at most 1h"),
        (
            "[pooler]\ninspection_interval = '1s'",
            "pooler.inspection_interval",
            "1min to 7days",
        ),
        (
            "[api]\naccess_token_lifetime = '1s'",
            "api.access_token_lifetime",
            "from 10s",
        ),
        ("[api]\ntls_key = '/k'", "api.tls_certificate", "belong together"),
        (
            "[pooler]\nlisten = '0.0.0.0:7710'",
            "pooler.advertise",
            "is not set",
        ),
        (
            "[pooler]\nadvertise = 'pooler-1'",
            "pooler.advertise",
            "host:port",
        ),
        (
            "[trust.worker]\nkey = '/k'",
            "trust.worker.certificate",
            "belong together",
        ),
        (
            "[config_database]\nurl = 'mysql://h/d'",
            "config_database.url",
            "postgres://",
        ),
        (
            "[config_database]\nmax_connections = 0",
            "config_database.max_connections",
            "1 to 1000",
        ),
        (
            "[config_database]\nmax_connections = 'ten'",
            "config_database.max_connections",
            "whole number",
        ),
        (
            "[api]\ntrusted_hops = 1",
            "api.trusted_networks",
            "name those of your proxies",
        ),
        ("[egress]\nallow = ['']", "egress.allow", "empty"),
        (
            "[egress]\nloopback_ports = [70000]",
            "egress.loopback_ports",
            "whole numbers",
        ),
        ("[storage]\nquota_bytes = 0", "storage.quota_bytes", "at least 1"),
        (
            "[telemetry]\nlog_format = 'xml'",
            "telemetry.log_format",
            "expected one of text, json",
        ),
        (
            "[telemetry]\notlp_endpoint = 'collector'",
            "telemetry.otlp_endpoint",
            "http://",
        ),
    ];
    for (text, key, part) in cases {
        refused(from_file(text), key, part);
    }
}

#[test]
fn all_problems_of_values_are_reported_at_once() {
    let loaded = from_file("[api]\ndrain_timeout = '2h'\n[pooler]\ndrain_timeout = '2h'");
    assert_eq!(loaded.unwrap_err().problems.len(), 2);
}

#[test]
fn origin_of_a_bad_value_is_named() {
    let file = File::with("[api]\nlisten = 'x'");
    let error = Config::load(Some(&file.path), &Environment::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("pgmoor.toml"), "{error}");
    let error = from_environment(&[("PGMOOR_API__LISTEN", "x")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("(environment)"), "{error}");
}

#[test]
fn file_that_is_missing_or_is_not_toml_is_refused() {
    let error = Config::load(
        Some(Path::new("/nonexistent/pgmoor.toml")),
        &Environment::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("/nonexistent/pgmoor.toml"), "{error}");
    let error = from_file("[api\n").unwrap_err().to_string();
    assert!(error.contains("pgmoor.toml"), "{error}");
}

/// The reference page lists every key, so that none is known to the code only.
#[test]
fn every_key_is_in_the_reference() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (section, fields) in KNOWN_KEYS {
        for field in fields() {
            let key = format!("`{section}.{field}");
            assert!(page.contains(&key), "{key} is not documented");
        }
    }
    let sections: Vec<&str> = KNOWN_KEYS.iter().map(|(section, _)| *section).collect();
    assert_eq!(fields_of::<Config>(), sections);
}

/// A provider with nothing wrong, and what logins with it need.
const PROVIDER: &str = r#"
    [api]
    http_listen = "127.0.0.1:7701"
    external_url = "https://pgmoor.example.com/"
    [[oidc.providers]]
    id = "corp"
    issuer = "https://id.example.com/realms/corp"
    client_id = "pgmoor"
    client_secret = "s3cret"
"#;

#[test]
fn provider_has_defaults_and_its_secret_from_a_file() {
    let secret = File::with("from a file\n");
    let path = format!("client_secret_file = {:?}", secret.path);
    let config = from_file(&PROVIDER.replace("client_secret = \"s3cret\"", &path)).unwrap();
    let [provider] = config.oidc.providers.as_slice() else {
        panic!("one provider");
    };
    assert_eq!(
        provider.client_secret.as_ref().unwrap().expose_secret(),
        "from a file"
    );
    assert_eq!(provider.display_name(), "corp");
    assert_eq!(provider.username_claim(), "preferred_username");
    assert_eq!(provider.scopes(), ["profile", "email", "offline_access"]);
    assert!(!provider.auto_create && !provider.device_flow);
    assert_eq!(config.api.external_origin(), Some("https://pgmoor.example.com"));
}

#[test]
fn provider_that_cannot_be_used_is_named_with_its_key() {
    let with = |from: &str, to: &str| PROVIDER.replace(from, to);
    let more = |line: &str| format!("{PROVIDER}{line}\n");
    let workload = "[[oidc.workloads]]\nissuer = 'https://ci.example.com'\nservice_account = 'ci'\n";
    for (text, key, part) in [
        (
            with("id = \"corp\"", "id = \"Corp!\""),
            "oidc.providers[0].id",
            "lower-case",
        ),
        (
            with("https://id.", "http://id."),
            "oidc.providers[0].issuer",
            "loopback",
        ),
        (
            with("/realms/corp", "/?x=1"),
            "oidc.providers[0].issuer",
            "without a query",
        ),
        (
            with("\"s3cret\"", "\"s3cret\"\nclient_secret_file = '/x'"),
            "oidc.providers[0].client_secret_file",
            "one of them",
        ),
        (
            with("client_secret = \"s3cret\"", ""),
            "oidc.providers[0].client_secret_file",
            "confidential",
        ),
        (
            with("client_secret = \"s3cret\"", "client_secret_file = '/nowhere'"),
            "oidc.providers[0].client_secret_file",
            "cannot be read",
        ),
        (
            with("http_listen = \"127.0.0.1:7701\"", ""),
            "api.http_listen",
            "sends browsers back",
        ),
        (
            with("external_url = \"https://pgmoor.example.com/\"", ""),
            "api.external_url",
            "from outside",
        ),
        (
            with("pgmoor.example.com/\"", "pgmoor.example.com/path\""),
            "api.external_url",
            "nothing behind it",
        ),
        (
            with("https://pgmoor.", "http://pgmoor."),
            "api.external_url",
            "loopback only",
        ),
        (
            more("groups_claim = '/'"),
            "oidc.providers[0].groups_claim",
            "JSON pointer",
        ),
        (
            more("group_rules = [{ value = 'dba', administrator = true }]"),
            "oidc.providers[0].group_rules",
            "groups_claim",
        ),
        (
            more("required_claims = { department = [] }"),
            "oidc.providers[0].required_claims",
            "values",
        ),
        (
            more("verify_tls = false"),
            "oidc.providers.0.verify_tls",
            "is not a key",
        ),
        (
            format!("[oidc]\ncheck_interval = '0s'\n{PROVIDER}"),
            "oidc.check_interval",
            "from 1s",
        ),
        (
            format!("[oidc]\nreauthenticate_after = '1s'\n{PROVIDER}"),
            "oidc.reauthenticate_after",
            "from 1m",
        ),
        (
            format!("[oidc]\nvouch_max_age = '11years'\n{PROVIDER}"),
            "oidc.vouch_max_age",
            "to 3650days",
        ),
        (
            format!(
                "{workload}audience = 'a'\nsubject = 'x'\n{workload}audience = 'a'\nsubject = 'y'\nca_file = '/ca.pem'\n"
            ),
            "oidc.workloads[1].ca_file",
            "all rules of an issuer",
        ),
        (
            format!("{workload}audience = 'pgmoor'\n"),
            "oidc.workloads[0].subject",
            "required_claims",
        ),
        (
            format!("{workload}subject = 'x'\n"),
            "oidc.workloads[0].audience",
            "must be given",
        ),
    ] {
        refused(from_file(&text), key, part);
    }
    let twice = format!(
        "{PROVIDER}{}",
        PROVIDER
            .split_once("[[")
            .map(|(_, rest)| format!("[[{rest}"))
            .unwrap()
    );
    refused(from_file(&twice), "oidc.providers[1].id", "another provider");
}
