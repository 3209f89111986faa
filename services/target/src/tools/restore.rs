//! pg_restore's command line.

use std::path::Path;

/// How an archive is restored. Always without owners and privileges, and not beyond the first error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreOptions {
    /// True to drop the objects before they are made again.
    pub clean: bool,
    /// True for one transaction: all of it or nothing.
    pub single_transaction: bool,
}

impl RestoreOptions {
    /// The arguments, but for the database. `archive` is an absolute path of our own making.
    #[must_use]
    pub fn arguments(&self, archive: &Path) -> Vec<String> {
        let mut arguments: Vec<String> = [
            "--format=custom",
            "--no-owner",
            "--no-privileges",
            "--no-password",
            "--exit-on-error",
            "--verbose",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.clean {
            arguments.extend(["--clean", "--if-exists"].map(str::to_owned));
        }
        if self.single_transaction {
            arguments.push("--single-transaction".to_owned());
        }
        arguments.push(archive.display().to_string());
        arguments
    }
}

/// The arguments to print the table of contents of what is restored of an archive: without owners and privileges, and without
/// what is about the database itself. It reads no more of the archive and connects nowhere.
#[must_use]
pub fn list_arguments(archive: &Path) -> Vec<String> {
    [
        "--format=custom".to_owned(),
        "--no-owner".to_owned(),
        "--no-privileges".to_owned(),
        "--list".to_owned(),
        archive.display().to_string(),
    ]
    .to_vec()
}

/// The arguments to read an archive from beginning to end, data included, and write nothing and connect nowhere: whether it
/// is whole shows in the exit status.
#[must_use]
pub fn read_through_arguments(archive: &Path) -> Vec<String> {
    [
        "--format=custom".to_owned(),
        "--file=/dev/null".to_owned(),
        archive.display().to_string(),
    ]
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_arguments_one_by_one() {
        let archive = Path::new("/scratch/archive");
        let arguments = |clean, single_transaction| {
            RestoreOptions {
                clean,
                single_transaction,
            }
            .arguments(archive)
            .join(" ")
        };
        assert!(!arguments(false, false).contains("--clean"));
        assert!(arguments(true, false).contains("--clean --if-exists"));
        assert!(arguments(false, true).ends_with("--single-transaction /scratch/archive"));
    }
}
