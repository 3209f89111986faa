//! WatchSession.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::NotificationStream;
use auth::AuthError;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use rpc::query::v1::watch_session_response::Kind;
use rpc::query::v1::{WatchHeartbeat, WatchSessionRequest, WatchSessionResponse};
use tokio::time::sleep;
use tonic::Status;

use super::sessions::name;
use crate::context::{Call, Context};
use crate::error::Error;

/// Silence after which a message says that the watch lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Follows a session's notifications, as long as the caller may.
pub(crate) async fn watch_session(
    api: &Arc<Context>,
    call: Call<WatchSessionRequest>,
) -> Result<NotificationStream, Error> {
    let name = name("session", &call.message.session)?;
    let watch = Watch {
        notifications: api.sessions.watch_session(&call.token, name).await?,
        access: api.verifier.watch(&call.caller).boxed(),
        api: Arc::clone(api),
    };
    let messages = stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await? {
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(messages.boxed())
}

struct Watch {
    api: Arc<Context>,
    notifications: NotificationStream,
    /// Ends when the caller's credential does.
    access: BoxFuture<'static, AuthError>,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchSessionResponse, Status>> {
        tokio::select! {
            () = self.api.drain.cancelled() => Some(Err(self.api.status(Error::ShuttingDown))),
            refusal = &mut self.access => Some(Err(refusal.into())),
            message = self.notifications.next() => message,
            () = sleep(HEARTBEAT) => Some(Ok(WatchSessionResponse {
                kind: Some(Kind::Heartbeat(WatchHeartbeat {})),
            })),
        }
    }
}
