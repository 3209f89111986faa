//! Versions of PostgreSQL's programs.

use std::fmt;

/// The first minor versions without CVE-2025-8714, CVE-2025-8715 and CVE-2026-6477, by major version: a hostile server can
/// make older programs run its code.
const SAFE_MINORS: [(u32, u32); 5] = [(14, 23), (15, 18), (16, 14), (17, 10), (18, 4)];

/// What a program's `--version` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolVersion {
    /// The major version.
    pub major: u32,
    /// The minor version; 0 for development versions and betas.
    pub minor: u32,
}

impl ToolVersion {
    /// Reads the output of `pg_dump --version`: `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    #[must_use]
    pub fn parse(output: &str) -> Option<Self> {
        let word = output.split("(PostgreSQL) ").nth(1)?.split_whitespace().next()?;
        let digits = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse::<u32>().ok()
        };
        let (major, minor) = word.split_once('.').unwrap_or((word, ""));
        Some(Self {
            major: digits(major)?,
            minor: digits(minor).unwrap_or(0),
        })
    }

    /// True where a hostile server can attack the program through a known flaw.
    #[must_use]
    pub fn is_outdated(self) -> bool {
        SAFE_MINORS
            .iter()
            .find(|(major, _)| *major == self.major)
            .map_or(self.major < SAFE_MINORS[0].0, |(_, minor)| self.minor < *minor)
    }
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_programs_print_them() {
        for (output, expected) in [
            (
                "pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some((15, 18)),
            ),
            ("pg_restore (PostgreSQL) 9.6.24\n", Some((9, 6))),
            ("pg_dump (PostgreSQL) 19devel\n", Some((19, 0))),
            ("pg_dump (PostgreSQL) 18beta2\n", Some((18, 0))),
            ("pg_dump (PostgreSQL) 17.10\n", Some((17, 10))),
            ("pg_dump (EnterpriseDB) 17.10\n", None),
            ("", None),
        ] {
            let version = ToolVersion::parse(output).map(|version| (version.major, version.minor));
            assert_eq!(version, expected, "{output}");
        }
    }

    #[test]
    fn programs_with_known_flaws_are_outdated() {
        for (major, minor, outdated) in [
            (15, 17, true),
            (15, 18, false),
            (13, 22, true),
            (18, 3, true),
            (19, 0, false),
        ] {
            assert_eq!(
                ToolVersion { major, minor }.is_outdated(),
                outdated,
                "{major}.{minor}"
            );
        }
    }
}
