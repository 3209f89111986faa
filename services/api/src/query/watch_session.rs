//! WatchSession.

use std::sync::Arc;
use std::time::Duration;

use ::sessions::NotificationStream;
use futures::{StreamExt as _, stream};
use rpc::query::v1::watch_session_response::Kind;
use rpc::query::v1::{WatchHeartbeat, WatchSessionRequest, WatchSessionResponse};
use tokio::time::sleep;
use tonic::Status;

use super::sessions::name;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::upheld::{Entry, Upheld};

/// Silence after which a message says that the watch lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Follows a session's notifications, as long as the caller may.
pub(crate) async fn watch_session(
    api: &Arc<Context>,
    call: Call<WatchSessionRequest>,
) -> Result<Upheld<WatchSessionResponse>, Error> {
    let name = name("session", &call.message.session)?;
    let watch = Watch {
        notifications: api.sessions.watch_session(&call.token, name).await?,
        api: Arc::clone(api),
    };
    let messages = stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await? {
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    });
    // About the session itself the pooler decides, which ends it.
    Ok(Upheld::new(api, &call, Entry::Permission, messages))
}

struct Watch {
    api: Arc<Context>,
    notifications: NotificationStream,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<WatchSessionResponse, Status>> {
        tokio::select! {
            () = self.api.drain.cancelled() => Some(Err(self.api.status(Error::ShuttingDown))),
            message = self.notifications.next() => message,
            () = sleep(HEARTBEAT) => Some(Ok(WatchSessionResponse {
                kind: Some(Kind::Heartbeat(WatchHeartbeat {})),
            })),
        }
    }
}
