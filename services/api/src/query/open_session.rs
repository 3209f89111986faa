//! OpenSession.

use std::time::Duration;

use domain::access::Permission;
use domain::settings::{Kind, SESSION_IDLE_TIMEOUT};
use rpc::query::v1::{OpenSessionRequest, OpenSessionResponse, SessionAccess, SessionMode};

use super::sessions::note;
use crate::context::{Call, Context};
use crate::database;
use crate::duration;
use crate::error::{Error, Violations};
use crate::{access, resource};

/// How long to wait for a connection within the budget where the request does not say.
const DEFAULT_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest such wait.
const MAX_QUEUE_TIMEOUT: Duration = Duration::from_secs(120);

/// Opens a session on a server that the caller may use.
pub(crate) async fn open_session(
    api: &Context,
    call: Call<OpenSessionRequest>,
) -> Result<OpenSessionResponse, Error> {
    let mut request = call.message;
    let id = resource::server("server", &request.server)?;
    database::check(&request.database)?;
    let mut violations = Violations::default();
    if SessionMode::try_from(request.mode).is_err() {
        violations.add("mode", "is not a known value");
    }
    if SessionAccess::try_from(request.access).is_err() {
        violations.add("access", "is not a known value");
    }
    api.settings.catch_up().await?;
    let settings = api.settings.of(call.caller.user).await?;
    let (shortest, longest) = session_bounds();
    for (field, wish, setting) in [
        (
            "idle_timeout",
            &mut request.idle_timeout,
            settings.session_idle_timeout(),
        ),
        (
            "idle_in_transaction_timeout",
            &mut request.idle_in_transaction_timeout,
            settings.session_idle_in_transaction_timeout(),
        ),
    ] {
        match *wish {
            Some(given) => {
                violations.check(field, duration::decode_within(given, shortest, longest));
            }
            None => *wish = Some(duration::encode(setting)),
        }
    }
    let queue_timeout = violations.check("queue_timeout", queue_timeout(request.queue_timeout));
    violations.done()?;
    request.queue_timeout = queue_timeout.map(duration::encode);
    let permission = Permission::SessionsUse;
    let server = access::database(api, &call.caller, id, permission, &request.database).await?;
    let instance = server.instance_id;
    let session = api.sessions.open_session(&call.token, instance, request).await?;
    if let Ok(name) = session.name.parse() {
        note(name);
    }
    Ok(OpenSessionResponse {
        session: Some(session),
    })
}

/// The wait for a connection that a request asks for.
pub(super) fn queue_timeout(wish: Option<prost_types::Duration>) -> Result<Duration, String> {
    match wish {
        Some(wish) => duration::decode_within(wish, Duration::ZERO, MAX_QUEUE_TIMEOUT),
        None => Ok(DEFAULT_QUEUE_TIMEOUT),
    }
}

/// A request may ask for what a setting may say.
fn session_bounds() -> (Duration, Duration) {
    match SESSION_IDLE_TIMEOUT.kind {
        Kind::Duration { min, max } => (min, max),
        _ => (Duration::ZERO, Duration::MAX),
    }
}
