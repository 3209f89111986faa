//! With what and from where a call comes, as far as it can be told.

use store::logins::LoginOrigin;
use tonic::Request;

use crate::audited::CallerAddress;

/// Longest client name that is kept, in characters.
const MAX_CLIENT_NAME_CHARS: usize = 200;

/// The client's name and address. The name is what the client says of itself: shown to its user, believed by nobody.
pub(crate) fn of<T>(request: &Request<T>) -> LoginOrigin {
    let name = request
        .metadata()
        .get("user-agent")
        .and_then(|name| name.to_str().ok());
    let shown = |name: &str| {
        let visible = name.chars().filter(|char| !char.is_control());
        visible.take(MAX_CLIENT_NAME_CHARS).collect::<String>()
    };
    LoginOrigin {
        client_name: name.map(shown).filter(|name| !name.is_empty()),
        address: request
            .extensions()
            .get::<CallerAddress>()
            .map(|address| address.0.clone())
            .filter(|address| !address.is_empty()),
        provider: None,
    }
}
