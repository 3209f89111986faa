//! The audit trail of a process: its writer, its figures, and in a worker its retention.

use std::sync::Arc;

use anyhow::anyhow;
use api::{Audit, TrustedHops};
use audit::{AuditLog, LogOptions, WriterRole};
use config::{Config, Problem};
use domain::clock::SystemClock;
use domain::random::SystemRandom;
use store::Store;
use telemetry::metrics::{Family, Kind, Sample, Source};

use crate::lifecycle::Lifecycle;

/// Starts the trail of a role, which is written as long as anything else is served.
pub(crate) fn start(config: &Config, lifecycle: &Lifecycle, role: WriterRole, store: Store) -> AuditLog {
    let section = &config.audit;
    let options = LogOptions {
        capacity: usize::try_from(section.buffer_records).unwrap_or(usize::MAX),
        when_full: match section.when_full {
            config::WhenFull::Refuse => audit::buffer::WhenFull::Refuse,
            config::WhenFull::Count => audit::buffer::WhenFull::Count,
        },
        flush_interval: section.flush_interval,
        loss_window: section.loss_window,
        statement_text: match section.statement_text {
            config::StatementText::Fingerprint => audit::statement::StatementText::Fingerprint,
            config::StatementText::Normalized => audit::statement::StatementText::Normalized,
            config::StatementText::Full => audit::statement::StatementText::Full,
        },
    };
    let (log, writer) = AuditLog::new(role, options, Arc::new(SystemClock), Arc::new(SystemRandom));
    let retire = lifecycle.retiring();
    lifecycle.background("the audit trail", async move {
        writer.run(store, retire).await;
        Ok(())
    });
    log
}

/// Starts to delete what is older than the retention.
pub(crate) fn retain(config: &Config, lifecycle: &Lifecycle, store: Store, log: AuditLog) {
    let (keep, retire) = (config.audit.retention, lifecycle.retiring());
    lifecycle.background("the retention of the audit trail", async move {
        audit::retention::run(store, log, keep, retire).await;
        Ok(())
    });
}

/// Who is believed about where calls come from.
///
/// # Errors
/// Names the network that is none.
pub(crate) fn trusted_hops(config: &Config) -> anyhow::Result<TrustedHops> {
    let section = &config.api;
    let count = usize::from(section.trusted_hops);
    TrustedHops::new(count, &section.trusted_networks).map_err(|network| {
        let reason = format!("has {network:?}, which is no network such as 10.0.0.0/8");
        anyhow!(Problem::invalid("api.trusted_networks", reason))
    })
}

/// The trail as the API uses it.
///
/// # Errors
/// As [`trusted_hops`].
pub(crate) fn of_api(config: &Config, log: AuditLog) -> anyhow::Result<Audit> {
    Ok(Audit {
        log,
        trusted_hops: trusted_hops(config)?,
    })
}

/// What became of a process's records.
#[derive(Debug)]
pub(crate) struct AuditFigures(pub(crate) Vec<(&'static str, AuditLog)>);

impl Source for AuditFigures {
    fn families(&self) -> Vec<Family> {
        let family = |name, help, kind, value: fn(audit::Figures) -> f64| Family {
            name,
            help,
            kind,
            samples: self
                .0
                .iter()
                .map(|(role, log)| Sample {
                    labels: vec![("writer_role", (*role).to_owned())],
                    value: value(log.figures()),
                })
                .collect(),
        };
        vec![
            family(
                "pgmoor_audit_records",
                "Audit records that were written",
                Kind::Counter,
                |figures| figures.written as f64,
            ),
            family(
                "pgmoor_audit_unrecorded",
                "Audit records that found no room and were only counted",
                Kind::Counter,
                |figures| figures.unrecorded as f64,
            ),
            family(
                "pgmoor_audit_suppressed",
                "Refused calls that were only counted, because there were too many from one address",
                Kind::Counter,
                |figures| figures.suppressed as f64,
            ),
            family(
                "pgmoor_audit_buffered_records",
                "Audit records that wait to be written, or whose calls are open",
                Kind::Gauge,
                |figures| figures.buffered as f64,
            ),
            family(
                "pgmoor_audit_oldest_seconds",
                "Age of the oldest audit record that waits to be written",
                Kind::Gauge,
                |figures| figures.oldest.unwrap_or_default().as_secs_f64(),
            ),
        ]
    }
}
