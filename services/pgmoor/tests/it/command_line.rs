//! Help, mistakes and their exit status.

use crate::command::pgmoor;

#[test]
fn help_lists_the_commands_that_work() {
    let help = pgmoor(&["--help"], &[]).succeeded();
    let commands = help
        .split_once("Commands:\n")
        .unwrap()
        .1
        .split_once("\n\n")
        .unwrap()
        .0;
    let names: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let expected = "login logout logins whoami settings servers instances pools catalog sql backup restore ops files users \
                     groups roles bindings grants elevations explain-access audit token up api \
                    pooler worker migrate check admin help";
    assert_eq!(names.join(" "), expected);
    for name in names {
        pgmoor(&["help", name], &[]).succeeded();
    }
}

#[test]
fn version_is_printed() {
    let text = pgmoor(&["--version"], &[]).succeeded();
    assert_eq!(text, concat!("pgmoor ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn mistakes_on_the_command_line_end_with_64() {
    pgmoor(&[], &[]).failed(64);
    let error = pgmoor(&["apy"], &[]).failed(64);
    assert!(error.contains("apy"), "{error}");
    let error = pgmoor(&["admin", "create-user", "--password", "hunter2"], &[]).failed(64);
    assert!(error.contains("--password"), "{error}");
}

#[test]
fn bad_configuration_ends_with_64_and_names_the_key() {
    let error = pgmoor(&["api"], &[("PGMOOR_API__LISTEN", "nonsense")]).failed(64);
    assert!(error.contains("api.listen (environment)"), "{error}");
    let error = pgmoor(&["api"], &[("PGMOOR_API__LISEN", "x")]).failed(64);
    assert!(error.contains("api.lisen"), "{error}");
    let error = pgmoor(&["--config", "/nonexistent/pgmoor.toml", "api"], &[]).failed(64);
    assert!(error.contains("/nonexistent/pgmoor.toml"), "{error}");
}

#[test]
fn missing_configuration_ends_with_64_and_names_the_key() {
    for command in ["api", "pooler", "migrate"] {
        let error = pgmoor(&[command], &[]).failed(64);
        assert!(error.contains("PGMOOR_"), "{command}: {error}");
    }
    let error = pgmoor(&["migrate"], &[]).failed(64);
    assert!(error.contains("PGMOOR_CONFIG_DATABASE_URL"), "{error}");
}

#[test]
fn wrong_log_level_and_wrong_egress_rule_are_named() {
    let url = ("PGMOOR_CONFIG_DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    let error = pgmoor(&["check"], &[url, ("PGMOOR_TELEMETRY__LOG_LEVEL", "pooler=loud")]);
    assert!(error.stdout.contains("FAILED telemetry.log_level"), "{error:?}");
    let error = pgmoor(&["check"], &[url, ("PGMOOR_EGRESS__ALLOW", "10.0.0.0/99")]);
    assert!(error.stdout.contains("FAILED egress"), "{error:?}");
}
