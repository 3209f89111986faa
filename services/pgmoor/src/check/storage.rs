//! Whether the directory for files and backups can be written to.

use config::{Config, Role};

use super::Finding;

const SUBJECT: &str = "storage";

/// Makes and removes an empty file, where there is a directory.
pub(crate) fn look(config: &Config, role: Option<Role>) -> Option<Finding> {
    let path = match config.storage.require_directory() {
        Ok(path) => path,
        Err(_) if role.is_none() => return None,
        Err(problem) => return Some(Finding::failed(SUBJECT, problem.to_string())),
    };
    let shown = path.display();
    if !path.exists() {
        return Some(Finding::notice(
            SUBJECT,
            format!("{shown} is not there; the first start makes it"),
        ));
    }
    // Gone again when it is dropped.
    Some(match tempfile::tempfile_in(path) {
        Ok(_) => Finding::fine(SUBJECT, format!("{shown} can be written to")),
        Err(error) => Finding::failed(SUBJECT, format!("{shown} cannot be written to: {error}")),
    })
}
