//! Who may only read: decided here, for every session and script that is opened.

use domain::access::Caller;
use domain::session_access::SessionAccess;
use store::servers::Server;

use super::Pooler;

impl Pooler {
    /// What the caller gets on a server who asks for `wish`; for nothing in particular, all that is granted.
    pub(super) fn session_access(
        caller: &Caller,
        server: &Server,
        wish: Option<SessionAccess>,
    ) -> SessionAccess {
        granted(caller, server).limit(wish)
    }
}

/// The most the caller may do there: whoever registered a server gave it the role they want to use.
fn granted(caller: &Caller, server: &Server) -> SessionAccess {
    if server.owner_id == caller.user {
        SessionAccess::ReadWrite
    } else {
        SessionAccess::ReadOnly
    }
}
