//! What the client takes from the process's environment, read once and handed on.

use std::path::PathBuf;

use secrecy::SecretString;

/// The variables the client knows beside those that stand for options (`PGMOOR_URL`, `PGMOOR_PROFILE`, …).
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The user's home (`HOME`).
    pub home: Option<PathBuf>,
    /// Where configuration is kept (`XDG_CONFIG_HOME`); `~/.config` without it.
    pub config_home: Option<PathBuf>,
    /// Where state is kept (`XDG_STATE_HOME`); `~/.local/state` without it.
    pub state_home: Option<PathBuf>,
    /// An API token to use in place of a login (`PGMOOR_TOKEN`).
    pub token: Option<SecretString>,
    /// Whether there is a screen for a browser (`DISPLAY`, `WAYLAND_DISPLAY`, or a Mac).
    pub has_display: bool,
    /// The trace every call belongs to (`TRACEPARENT`, W3C Trace Context).
    pub traceparent: Option<String>,
}

impl Environment {
    /// Reads the environment of this process.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "the client's one place that reads the environment"
    )]
    pub fn process() -> Self {
        let path = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        // The XDG base directory specification: relative paths are to be ignored.
        let base = |name| path(name).filter(|path| path.is_absolute());
        Self {
            home: path("HOME").or_else(std::env::home_dir),
            config_home: base("XDG_CONFIG_HOME"),
            state_home: base("XDG_STATE_HOME"),
            token: text("PGMOOR_TOKEN").map(SecretString::from),
            has_display: cfg!(target_os = "macos")
                || text("DISPLAY").is_some()
                || text("WAYLAND_DISPLAY").is_some(),
            traceparent: text("TRACEPARENT"),
        }
    }

    /// The directory of the client's configuration; none where there is no home.
    #[must_use]
    pub fn config_directory(&self) -> Option<PathBuf> {
        let base = self
            .config_home
            .clone()
            .or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(base.join("pgmoor"))
    }

    /// The directory of the client's state; none where there is no home.
    #[must_use]
    pub fn state_directory(&self) -> Option<PathBuf> {
        let base = self
            .state_home
            .clone()
            .or_else(|| Some(self.home.as_ref()?.join(".local/state")))?;
        Some(base.join("pgmoor"))
    }
}
