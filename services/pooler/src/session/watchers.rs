//! Those who follow a session's notifications.
//!
//! Each has a queue with a bound. What does not fit is counted, and told in its place.

use parking_lot::Mutex;
use pgconn::ServerText;
use rpc::query::v1::watch_session_response::Kind;
use rpc::query::v1::{Notification, WatchSessionResponse, WatchStarted};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Notifications that may wait for a reader.
const ROOM: usize = 256;

/// All of one session's.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Watcher>>);

#[derive(Debug)]
struct Watcher {
    queue: Sender<WatchSessionResponse>,
    lost: i64,
}

impl Watcher {
    /// False once nobody reads any more.
    fn tell(&mut self, notification: &Notification) -> bool {
        if self.queue.is_closed() {
            return false;
        }
        // A loss is told before what came after it, so both must find room.
        let needed = if self.lost > 0 { 2 } else { 1 };
        if self.queue.capacity() < needed {
            self.lost += 1;
            return true;
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let _ = self.queue.try_send(response(Kind::LostCount(lost)));
        }
        let _ = self
            .queue
            .try_send(response(Kind::Notification(notification.clone())));
        true
    }
}

fn response(kind: Kind) -> WatchSessionResponse {
    WatchSessionResponse { kind: Some(kind) }
}

impl Watchers {
    /// Follows from now on. The queue ends with the session.
    pub(crate) fn watch(&self) -> Receiver<WatchSessionResponse> {
        let (queue, reader) = channel(ROOM);
        let _ = queue.try_send(response(Kind::Started(WatchStarted {})));
        let mut watchers = self.0.lock();
        watchers.retain(|watcher| !watcher.queue.is_closed());
        watchers.push(Watcher { queue, lost: 0 });
        reader
    }

    /// Hands a notification to everybody.
    pub(crate) fn tell(&self, process_id: i32, channel: &ServerText, payload: &ServerText) {
        let mut watchers = self.0.lock();
        if watchers.is_empty() {
            return;
        }
        let notification = Notification {
            channel: channel.to_str_lossy().into_owned(),
            payload: payload.to_str_lossy().into_owned(),
            backend_pid: process_id,
        };
        watchers.retain_mut(|watcher| watcher.tell(&notification));
    }

    /// Ends all queues.
    pub(crate) fn end(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(watchers: &Watchers, payload: usize) {
        watchers.tell(7, &"jobs".into(), &payload.to_string().as_str().into());
    }

    #[tokio::test]
    async fn losses_are_counted_and_told_in_their_place() {
        let watchers = Watchers::default();
        let mut reader = watchers.watch();
        assert!(matches!(
            reader.recv().await.unwrap().kind,
            Some(Kind::Started(_))
        ));
        for payload in 0..ROOM + 5 {
            tell(&watchers, payload);
        }
        for payload in 0..ROOM {
            match reader.recv().await.unwrap().kind {
                Some(Kind::Notification(notification)) => {
                    assert_eq!(notification.payload, payload.to_string())
                }
                other => panic!("{other:?}"),
            }
        }
        tell(&watchers, 9);
        assert_eq!(reader.recv().await.unwrap().kind, Some(Kind::LostCount(5)));
        let last = reader.recv().await.unwrap().kind;
        assert!(matches!(last, Some(Kind::Notification(notification)) if notification.payload == "9"));
        watchers.end();
        assert!(reader.recv().await.is_none());
    }

    #[tokio::test]
    async fn readers_who_leave_are_forgotten() {
        let watchers = Watchers::default();
        drop(watchers.watch());
        tell(&watchers, 1);
        assert!(watchers.0.lock().is_empty());
    }
}
