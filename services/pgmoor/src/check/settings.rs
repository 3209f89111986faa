//! Values that parse, and what they mean together.

use config::Config;

use super::Finding;
use crate::roles;

/// Looks at what needs no other process.
pub(crate) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::fine(
        "configuration",
        "every key is known and every value can be used",
    )];
    match roles::egress_rules(&config.egress) {
        Ok(rules) if rules.is_empty() => {
            findings.push(Finding::notice(
                "egress",
                "egress.allow is empty: no instance can be registered or reached",
            ));
        }
        Ok(rules) => findings.push(Finding::fine("egress", format!("{} rules", rules.len()))),
        Err(problem) => findings.push(Finding::failed("egress", problem.to_string())),
    }
    let options = telemetry::Options {
        otlp_endpoint: None,
        ..roles::telemetry_options(config, "pgmoor-check")
    };
    match telemetry::build(&options) {
        Ok((_, telemetry)) => telemetry.finish(),
        Err(error) => findings.push(Finding::failed("telemetry.log_level", error.to_string())),
    }
    if config.api.tls().is_none() && !config.api.listen.ip().is_loopback() {
        let text = format!(
            "api.listen is {} without api.tls_certificate: passwords cross the network in clear text \
             unless a load balancer on a private network ends TLS",
            config.api.listen
        );
        findings.push(Finding::notice("api.listen", text));
    }
    findings
}
