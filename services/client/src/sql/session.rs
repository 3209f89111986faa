//! Opening, finding and closing the session that statements run in.

use std::time::Duration;

use rpc::query::v1::{
    CloseSessionRequest, GetSessionRequest, KeepSessionAliveRequest, OpenSessionRequest, Session,
    SessionAccess, SessionMode,
};
use tonic::{Code, Status};

use crate::commands::token::wire_duration;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::server_name;

/// The API's own default.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How a session is opened.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) mode: SessionMode,
    pub(super) access: SessionAccess,
    pub(super) database: String,
    pub(super) queue_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
}

/// Opens a session.
pub(super) async fn open(
    context: &mut Context,
    server: &str,
    options: &Options,
) -> Result<Session, ClientError> {
    let server = server_name::resolve(context, server).await?;
    open_on(context, server, options).await
}

/// Opens a session on a server by its name.
pub(super) async fn open_on(
    context: &mut Context,
    server: String,
    options: &Options,
) -> Result<Session, ClientError> {
    let request = OpenSessionRequest {
        server,
        mode: options.mode.into(),
        access: options.access.into(),
        database: options.database.clone(),
        queue_timeout: options.queue_timeout.map(wire_duration),
        idle_timeout: options.idle_timeout.map(wire_duration),
        ..OpenSessionRequest::default()
    };
    let connection = context.connection()?;
    let client = connection.queries();
    let call = Call::once(context.patient(options.queue_timeout.unwrap_or(QUEUE_TIMEOUT)));
    let answer = connection
        .call(call, async || client.clone().open_session(request.clone()).await)
        .await?;
    answer.session.ok_or(ClientError::Incomplete { field: "session" })
}

/// A session that somebody opened before.
pub(super) async fn existing(context: &mut Context, name: &str) -> Result<Session, ClientError> {
    let client = context.connection()?.queries();
    let request = GetSessionRequest {
        name: name.to_owned(),
    };
    let answer = context
        .read(async || client.clone().get_session(request.clone()).await)
        .await?;
    answer.session.ok_or(ClientError::Incomplete { field: "session" })
}

/// Puts off the session's idle limit.
pub(super) async fn keep_alive(context: &mut Context, session: &Session) -> Result<(), ClientError> {
    let client = context.connection()?.queries();
    let request = KeepSessionAliveRequest {
        name: session.name.clone(),
    };
    context
        .read(async || client.clone().keep_session_alive(request.clone()).await)
        .await?;
    Ok(())
}

/// Closes a session. One that is gone is closed.
pub(super) async fn close(context: &mut Context, session: &Session) -> Result<(), ClientError> {
    let connection = context.connection()?;
    let client = connection.queries();
    let request = CloseSessionRequest {
        name: session.name.clone(),
    };
    let call = Call::repeatable(CLOSE_DEADLINE);
    match connection
        .call(call, async || client.clone().close_session(request.clone()).await)
        .await
    {
        Err(status) if status.code() != Code::NotFound => Err(status.into()),
        _ => Ok(()),
    }
}

/// True where the session is gone with everything it held.
pub(super) fn is_lost(status: &Status) -> bool {
    status.code() == Code::NotFound
}
