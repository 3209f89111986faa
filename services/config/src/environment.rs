//! The environment variables of a process, read once and handed on as a value.
//!
//! This is the only place of the workspace that reads them, so that everything else is a function of its
//! arguments.

use std::ffi::OsString;

use crate::problem::Problem;

/// What every variable of pgmoor starts with.
pub const PREFIX: &str = "PGMOOR_";

/// Names and values, as the process was given them.
#[derive(Clone, Default)]
pub struct Environment(Vec<(String, OsString)>);

impl Environment {
    /// The variables of this process. Names that are not UTF-8 are left out: none of ours is.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn of_process() -> Self {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Self(std::env::vars_os().filter_map(named).collect())
    }

    /// These variables and no others.
    pub fn from_pairs<N: Into<String>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// One variable's value; an empty one counts as unset, as in a shell's `${NAME:-default}`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&std::ffi::OsStr> {
        let found = self
            .0
            .iter()
            .find(|(other, value)| other == name && !value.is_empty());
        found.map(|(_, value)| value.as_os_str())
    }

    /// Every non-empty variable that starts with [`PREFIX`]: the rest of its name, and its value.
    pub(crate) fn ours(&self) -> Result<Vec<(&str, &str)>, Problem> {
        let ours = self.0.iter().filter(|(_, value)| !value.is_empty());
        let ours = ours.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
        ours.map(|(name, value)| {
            let text = value.to_str().ok_or_else(|| Problem {
                key: format!("{PREFIX}{name}"),
                origin: "environment".to_owned(),
                reason: "is not UTF-8".to_owned(),
            })?;
            Ok((name, text))
        })
        .collect()
    }
}

impl std::fmt::Debug for Environment {
    /// The names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}
