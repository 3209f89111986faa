//! The few backslash commands there are, at the prompt and in files.

use std::path::PathBuf;

/// What the commands are, as `\?` shows them.
pub(super) const HELP: &str = "\
  \\q                quit; Ctrl-D does too
  \\i FILE           run a file
  \\timing [on|off]  show how long each statement takes
  \\conninfo         show the session
  \\?                show this
Statements end with a semicolon. Ctrl-C cancels what runs, or drops what was typed.
";

/// A backslash command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meta {
    Quit,
    Help,
    Timing(Option<bool>),
    Include(PathBuf),
    ConnectionInfo,
    /// `\restrict` and `\unrestrict` of pg_dump: they forbid psql what is not offered here at all.
    Nothing,
    Unknown(String),
}

impl Meta {
    /// Reads a line that begins with a backslash.
    pub(super) fn parse(line: &str) -> Self {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        match (name, argument) {
            ("\\q" | "\\quit", "") => Self::Quit,
            ("\\?", "") => Self::Help,
            ("\\timing", "") => Self::Timing(None),
            ("\\timing", "on") => Self::Timing(Some(true)),
            ("\\timing", "off") => Self::Timing(Some(false)),
            ("\\conninfo", "") => Self::ConnectionInfo,
            ("\\i" | "\\include", file) if !file.is_empty() => Self::Include(unquoted(file).into()),
            ("\\restrict" | "\\unrestrict", _) => Self::Nothing,
            _ => Self::Unknown(line.to_owned()),
        }
    }
}

fn unquoted(file: &str) -> &str {
    file.strip_prefix('\'')
        .and_then(|file| file.strip_suffix('\''))
        .unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_arguments() {
        for (line, meta) in [
            ("\\q", Meta::Quit),
            ("\\q;", Meta::Quit),
            ("  \\timing  ", Meta::Timing(None)),
            ("\\timing off", Meta::Timing(Some(false))),
            ("\\i 'my file.sql'", Meta::Include("my file.sql".into())),
            ("\\restrict abc", Meta::Nothing),
            ("\\i", Meta::Unknown("\\i".into())),
            ("\\dt", Meta::Unknown("\\dt".into())),
            ("\\", Meta::Unknown("\\".into())),
        ] {
            assert_eq!(Meta::parse(line), meta, "{line}");
        }
    }
}
