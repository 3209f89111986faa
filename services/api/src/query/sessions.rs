//! GetSession, ListSessions, KeepSessionAlive, CloseSession.

use domain::id::ServerId;
use domain::page::{PageScope, page_size};
use domain::session::SessionName;
use rpc::query::v1::{
    CloseSessionRequest, CloseSessionResponse, GetSessionRequest, GetSessionResponse,
    KeepSessionAliveRequest, KeepSessionAliveResponse, ListSessionsRequest, ListSessionsResponse,
};
use telemetry::rpc::Id;

use crate::context::{Call, Context};
use crate::error::Error;
use crate::resource;

/// Reads the name of the session that the call is about.
pub(super) fn name(field: &str, name: &str) -> Result<SessionName, Error> {
    let name: SessionName = name.parse().map_err(|error| Error::invalid(field, error))?;
    note(name);
    Ok(name)
}

/// Has the call's closing line say which session it was about.
pub(super) fn note(name: SessionName) {
    telemetry::rpc::record(Id::Server, &name.server);
    telemetry::rpc::record(Id::Session, &name.session);
}

/// Reads a session.
pub(crate) async fn get_session(
    api: &Context,
    call: Call<GetSessionRequest>,
) -> Result<GetSessionResponse, Error> {
    let name = name("name", &call.message.name)?;
    let session = api.sessions.get_session(&call.token, name).await?;
    Ok(GetSessionResponse {
        session: Some(session),
    })
}

/// Lists the caller's sessions by name.
pub(crate) async fn list_sessions(
    api: &Context,
    call: Call<ListSessionsRequest>,
) -> Result<ListSessionsResponse, Error> {
    let request = call.message;
    let server: Option<ServerId> = match request.parent.as_str() {
        "servers/-" => None,
        parent => Some(resource::server("parent", parent)?),
    };
    let size = page_size(request.page_size).map_err(|error| Error::invalid("page_size", error))?;
    let scope = PageScope::new("ListSessions")
        .with(&request.parent)
        .with(&call.caller.user.to_string());
    let after = scope.cursor(&request.page_token)?;
    // All of a caller's sessions are few: connections are. The poolers give them whole.
    let mut sessions = api.sessions.list_sessions(&call.token, server).await?;
    sessions.sort_by(|left, right| left.name.cmp(&right.name));
    sessions.retain(|session| after.as_ref().is_none_or(|after| session.name > *after));
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = sessions.len() > size;
    sessions.truncate(size);
    let last = sessions.last().filter(|_| more);
    let next_page_token = last.map(|session| scope.token(&session.name)).unwrap_or_default();
    Ok(ListSessionsResponse {
        sessions,
        next_page_token,
    })
}

/// Puts off a session's idle limit.
pub(crate) async fn keep_session_alive(
    api: &Context,
    call: Call<KeepSessionAliveRequest>,
) -> Result<KeepSessionAliveResponse, Error> {
    let name = name("name", &call.message.name)?;
    let session = api.sessions.keep_session_alive(&call.token, name).await?;
    Ok(KeepSessionAliveResponse {
        session: Some(session),
    })
}

/// Closes a session.
pub(crate) async fn close_session(
    api: &Context,
    call: Call<CloseSessionRequest>,
) -> Result<CloseSessionResponse, Error> {
    let name = name("name", &call.message.name)?;
    api.sessions.close_session(&call.token, name).await?;
    Ok(CloseSessionResponse {})
}
