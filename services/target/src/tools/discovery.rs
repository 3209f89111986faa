//! Which versions of pg_dump and pg_restore are installed, and which one fits a server.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::version::ToolVersion;

/// Longest wait for a program to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Where distributions put a directory per major version.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/local/lib/postgresql", "bin"),
    ("/usr", ""),
    ("/opt/homebrew/opt", "bin"),
];

/// Where programs are looked for.
#[derive(Debug, Clone, Default)]
pub struct ToolboxOptions {
    /// Directories the administrator names; looked at first.
    pub directories: Vec<PathBuf>,
    /// A `PATH` to look along, usually the process's own; none to look at fixed places only.
    pub path: Option<OsString>,
    /// False to leave out the places where distributions install PostgreSQL.
    pub known_places: bool,
}

/// A pg_dump and the pg_restore beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Their directory.
    pub directory: PathBuf,
    /// Their version.
    pub version: ToolVersion,
}

impl Tool {
    /// The path of pg_dump.
    #[must_use]
    pub fn pg_dump(&self) -> PathBuf {
        self.directory.join("pg_dump")
    }

    /// The path of pg_restore.
    #[must_use]
    pub fn pg_restore(&self) -> PathBuf {
        self.directory.join("pg_restore")
    }
}

/// The installed programs. Made once: their versions are not asked for again.
#[derive(Debug, Clone, Default)]
pub struct Toolbox {
    /// One per version, the newest first.
    tools: Vec<Tool>,
}

impl Toolbox {
    /// Looks for programs and asks each for its version. What does not answer properly is left out.
    pub async fn discover(options: &ToolboxOptions) -> Self {
        let mut tools: Vec<Tool> = Vec::new();
        for directory in candidates(options) {
            let Some(version) = version_in(&directory).await else {
                continue;
            };
            if tools.iter().all(|tool| tool.version != version) {
                if version.is_outdated() {
                    tracing::warn!(
                        version = %version,
                        directory = %directory.display(),
                        "pg_dump has known flaws that a hostile server can use; update the PostgreSQL client"
                    );
                }
                tools.push(Tool { directory, version });
            }
        }
        tools.sort_by_key(|tool| std::cmp::Reverse(tool.version));
        Self { tools }
    }

    /// The programs found, the newest first.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The pg_dump for a server: of its major version, else of the next newer one. An older pg_dump refuses the server.
    #[must_use]
    pub fn for_dump(&self, server_major: u32) -> Option<&Tool> {
        let fitting = self
            .tools
            .iter()
            .filter(|tool| tool.version.major >= server_major);
        // Of the same major version the newest minor comes first already.
        fitting.min_by_key(|tool| tool.version.major)
    }

    /// The programs to try for a restore, the best first: of the server's major version, since a newer one speaks to the
    /// server in settings it may not know; then newer ones, which can read every archive; then older ones.
    #[must_use]
    pub fn for_restore(&self, server_major: u32) -> Vec<&Tool> {
        let mut tools: Vec<&Tool> = self.tools.iter().collect();
        tools.sort_by_key(|tool| {
            let major = tool.version.major;
            (major < server_major, major.abs_diff(server_major))
        });
        tools
    }
}

fn candidates(options: &ToolboxOptions) -> Vec<PathBuf> {
    let mut found = options.directories.clone();
    if options.known_places {
        found.extend(
            VERSIONED
                .iter()
                .flat_map(|(root, below)| versioned(Path::new(root), below)),
        );
    }
    if let Some(path) = &options.path {
        found.extend(std::env::split_paths(path).filter(|directory| directory.is_absolute()));
    }
    found
}

/// `{root}/{anything with a major version}/{below}`, such as `/usr/lib/postgresql/17/bin` and `/usr/pgsql-17/bin`.
fn versioned(root: &Path, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let bare = name
                .strip_prefix("pgsql-")
                .or_else(|| name.strip_prefix("postgresql@"))
                .unwrap_or(&name);
            bare.parse::<u32>().ok()?;
            let directory = entry.path();
            Some(if below.is_empty() {
                directory.join("bin")
            } else {
                directory.join(below)
            })
        })
        .collect()
}

/// The version of the two programs in a directory; none where one is missing, or is a wrapper that picks a version by itself
/// (Debian's `/usr/bin/pg_dump`), or they differ.
async fn version_in(directory: &Path) -> Option<ToolVersion> {
    let mut versions = Vec::new();
    for name in ["pg_dump", "pg_restore"] {
        let program = directory.join(name).canonicalize().ok()?;
        let metadata = program.metadata().ok()?;
        let executable = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        if !executable || program.file_name()?.to_str()? != name {
            return None;
        }
        versions.push(version_of(&program).await?);
    }
    (versions[0] == versions[1]).then(|| versions[0])
}

async fn version_of(program: &Path) -> Option<ToolVersion> {
    let child = Command::new(program)
        .arg("--version")
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(VERSION_TIMEOUT, child).await.ok()?.ok()?;
    ToolVersion::parse(&String::from_utf8_lossy(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolbox(versions: &[(u32, u32)]) -> Toolbox {
        let mut tools: Vec<_> = versions
            .iter()
            .map(|&(major, minor)| Tool {
                directory: PathBuf::from(format!("/{major}.{minor}")),
                version: ToolVersion { major, minor },
            })
            .collect();
        tools.sort_by_key(|tool| std::cmp::Reverse(tool.version));
        Toolbox { tools }
    }

    #[test]
    fn dump_is_made_by_the_servers_own_version_or_the_next_newer() {
        let toolbox = toolbox(&[(14, 20), (16, 3), (16, 9), (18, 1)]);
        let chosen = |major| toolbox.for_dump(major).map(|tool| tool.version.to_string());
        assert_eq!(chosen(16).as_deref(), Some("16.9"));
        assert_eq!(chosen(15).as_deref(), Some("16.9"));
        assert_eq!(chosen(17).as_deref(), Some("18.1"));
        assert_eq!(chosen(13).as_deref(), Some("14.20"));
        assert_eq!(chosen(19), None);
    }

    #[test]
    fn restore_is_tried_with_the_servers_own_version_first() {
        let toolbox = toolbox(&[(14, 20), (16, 3), (17, 2), (18, 1)]);
        let order: Vec<_> = toolbox
            .for_restore(16)
            .iter()
            .map(|tool| tool.version.major)
            .collect();
        assert_eq!(order, [16, 17, 18, 14]);
    }
}
