//! Files that hold keys: there wholly or not at all, and never readable by others for a moment.

use std::fs::{DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

/// For its owner only.
pub(crate) const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub(crate) const PUBLIC: u32 = 0o644;

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and writing fails.
    Keep,
    /// It is replaced.
    Replace,
}

/// Writes a file with this mode.
///
/// # Errors
/// When it is there and shall stay, or cannot be written; the message names it.
pub(crate) fn write(path: &Path, contents: &[u8], mode: u32, existing: Existing) -> anyhow::Result<()> {
    let written = || -> std::io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // Made with mode 0600, whatever the umask.
        let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(contents)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        let persisted = match existing {
            Existing::Keep => file.persist_noclobber(path),
            Existing::Replace => file.persist(path),
        };
        persisted.map(drop).map_err(|error| error.error)
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

/// Makes a directory, and those above it, for its owner only. One that is there stays as it is.
///
/// # Errors
/// When it cannot be made; the message names it.
pub(crate) fn create_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("the directory {} cannot be made", path.display()))
}

/// Whether anybody but its owner may read the file.
///
/// # Errors
/// When the file is not there or may not be looked at.
pub(crate) fn is_exposed(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}
