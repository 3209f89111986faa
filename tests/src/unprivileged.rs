//! Servers that refuse root, or should not have it, run as an ordinary OS user: `postgres`, else `nobody`.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::process::geteuid;

/// An ordinary OS user that a test run by root starts its servers as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsUser {
    /// User id.
    pub uid: u32,
    /// Id of the user's primary group.
    pub gid: u32,
}

/// The user to start servers as; `None` when this process is not root, since its own user is ordinary then.
///
/// # Panics
/// When root finds neither `postgres` nor `nobody` in `/etc/passwd`.
#[must_use]
pub fn os_user() -> Option<OsUser> {
    if !geteuid().is_root() {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
    let user = find(&passwd, "postgres").or_else(|| find(&passwd, "nobody"));
    Some(user.expect("PostgreSQL refuses root: a user `postgres` or `nobody` must exist in /etc/passwd"))
}

impl OsUser {
    /// The words to put before a command line to run it as this user.
    #[must_use]
    pub fn prefix(self) -> Vec<OsString> {
        let (uid, gid) = (format!("--reuid={}", self.uid), format!("--regid={}", self.gid));
        ["setpriv".into(), uid, gid, "--clear-groups".into(), "--".into()]
            .map(OsString::from)
            .to_vec()
    }
}

/// Gives a file or directory to the user servers are started as, and to nobody else.
///
/// # Panics
/// When the owner or the mode cannot be changed.
pub fn hand_over(path: &Path) {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the mode of a test's file");
    if let Some(user) = os_user() {
        chown(path, Some(user.uid), Some(user.gid)).expect("root may give a test's file away");
    }
}

fn find(passwd: &str, name: &str) -> Option<OsUser> {
    let fields: Vec<_> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f[0] == name)?;
    Some(OsUser {
        uid: fields.get(2)?.parse().ok()?,
        gid: fields.get(3)?.parse().ok()?,
    })
}
