//! The ordinary OS user that PostgreSQL runs as when pgmoor runs as root: the server refuses to run as root.

use thiserror::Error;

/// Users that distributions have for this, best first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// No user to run PostgreSQL as.
#[derive(Debug, Error)]
#[error(
    "PostgreSQL does not run as root and there is no OS user postgres or nobody; make one, or start pgmoor as an ordinary user"
)]
pub(crate) struct NoOsUser;

/// User and group ids of a process to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OsUser {
    /// User id.
    pub(crate) uid: u32,
    /// Its group id.
    pub(crate) gid: u32,
}

impl OsUser {
    /// Whom to run PostgreSQL as; nothing when this process is an ordinary user itself.
    pub(crate) fn for_postgres() -> Result<Option<Self>, NoOsUser> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        CANDIDATES
            .into_iter()
            .find_map(|name| find(&passwd, name))
            .map(Some)
            .ok_or(NoOsUser)
    }
}

/// `name:password:uid:gid:...`, see passwd(5).
fn find(passwd: &str, name: &str) -> Option<OsUser> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some(OsUser { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_whole_name_and_never_root() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104::/var:/bin/sh\n";
        assert_eq!(find(passwd, "postgres"), Some(OsUser { uid: 101, gid: 104 }));
        assert_eq!(find(passwd, "root"), None);
        assert_eq!(find(passwd, "nobody"), None);
    }
}
