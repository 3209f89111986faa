//! What is wrong with a configuration, in words an operator can act on.

use std::fmt;

use thiserror::Error;

/// One thing that is wrong. It never shows the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as it is written in the file (`api.listen`), or the name of a variable or file.
    pub key: String,
    /// Where its value came from; empty for a value that is missing.
    pub origin: String,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Problem {
    /// A value that was not given and has no default; `what` says what it is for.
    #[must_use]
    pub fn missing(key: &str, what: &str) -> Self {
        let variable = variable_of(key);
        Self {
            key: key.to_owned(),
            origin: String::new(),
            reason: format!("is not set: {what} (in the file as {key}, or in the environment as {variable})"),
        }
    }

    /// A value that was given and cannot be used.
    #[must_use]
    pub fn invalid(key: &str, reason: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            origin: String::new(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin.as_str() {
            "" => write!(f, "{} {}", self.key, self.reason),
            origin => write!(f, "{} ({origin}) {}", self.key, self.reason),
        }
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for InvalidConfig {
    fn from(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }
}

/// Everything that is wrong with a configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", lines(problems))]
pub struct InvalidConfig {
    /// At least one.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The environment variable that sets a key.
#[must_use]
pub fn variable_of(key: &str) -> String {
    match key {
        "config_database.url" => "PGMOOR_CONFIG_DATABASE_URL".to_owned(),
        "config_database.url_file" => "PGMOOR_CONFIG_DATABASE_URL_FILE".to_owned(),
        _ => format!(
            "{}{}",
            crate::environment::PREFIX,
            key.replace('.', "__").to_uppercase()
        ),
    }
}
