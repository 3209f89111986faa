//! `pgmoor check`: tries a configuration out and says, one line each, what works and what to mend.
//!
//! It changes nothing: it connects, reads and compares.

mod certificates;
mod config_database;
mod login_key;
mod opening_key;
mod programs;
mod sealing_key;
mod settings;
mod storage;

use std::fmt;
use std::io::Write;

use anyhow::bail;
use clap::Args;
use config::{Config, Environment, Role};

use crate::admin::issue_certificate::RoleName;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Check what this role needs; without it, what the configuration mentions
    #[arg(long)]
    role: Option<RoleName>,
}

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    subject: String,
    outcome: Outcome,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fine,
    Notice,
    Failed,
}

impl Finding {
    /// It works.
    pub(crate) fn fine(subject: &str, text: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            outcome: Outcome::Fine,
            text: text.into(),
        }
    }

    /// It works, and somebody should know.
    pub(crate) fn notice(subject: &str, text: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            outcome: Outcome::Notice,
            text: text.into(),
        }
    }

    /// It does not work; the text says what to do.
    pub(crate) fn failed(subject: &str, text: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            outcome: Outcome::Failed,
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Fine => "ok",
            Outcome::Notice => "notice",
            Outcome::Failed => "FAILED",
        };
        // One line, whatever a driver has to say.
        write!(
            f,
            "{outcome:6} {}: {}",
            self.subject,
            self.text.replace('\n', "; ")
        )
    }
}

/// Looks at everything the role needs and prints a line for each.
///
/// # Errors
/// When something does not work.
pub(crate) async fn run(
    arguments: &Arguments,
    config: &Config,
    environment: &Environment,
) -> anyhow::Result<()> {
    let role = arguments.role.map(Role::from);
    let mut findings = settings::look(config);
    let (store, found) = config_database::look(config, role).await;
    findings.extend(found);
    findings.extend(certificates::look(config, role));
    if let Some(store) = &store {
        findings.push(sealing_key::look(store).await);
    }
    findings.extend(login_key::look(config, role));
    if role != Some(Role::Pooler) {
        findings.extend(storage::look(config, role));
    }
    if role != Some(Role::Api) {
        findings.extend(opening_key::look(config, role, store.as_ref()).await);
    }
    if role.is_none_or(|role| role == Role::Worker) {
        findings.extend(programs::look(environment).await);
    }
    if let Some(store) = store {
        store.close().await;
    }

    let mut out = std::io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    match findings
        .iter()
        .filter(|finding| finding.outcome == Outcome::Failed)
        .count()
    {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        failed => bail!("{failed} checks failed"),
    }
}
