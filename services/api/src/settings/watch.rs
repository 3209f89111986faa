//! WatchSettings.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use rpc::settings::v1::{WatchSettingsRequest, WatchSettingsResponse};
use store::settings::Layer as LayerName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::{convert, parent};
use crate::context::{Call, Context};
use crate::error::Error;
use crate::upheld::{Entry, Upheld};

/// Silence after which a message says that the watch lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Follows the settings in force seen from a layer.
pub(super) async fn watch_settings(
    api: &Arc<Context>,
    call: Call<WatchSettingsRequest>,
) -> Result<Upheld<WatchSettingsResponse>, Error> {
    let layer = parent::layer(api, &call.caller, "parent", &call.message.parent).await?;
    if call.message.after_revision < 0 {
        return Err(Error::invalid("after_revision", "must not be negative"));
    }
    api.settings.catch_up().await?;
    // Known to the cache from here on, so that every later change of it is seen.
    parent::cached(api, layer).await?;
    let watch = Watch {
        revisions: api.settings.subscribe(),
        api: api.clone(),
        layer,
        after: call.message.after_revision,
        began: false,
    };
    let entry = Entry::Settings(call.message.parent.clone());
    Ok(Upheld::new(api, &call, entry, messages(watch)))
}

struct Watch {
    api: Arc<Context>,
    layer: LayerName,
    /// Goes up with every change of any layer.
    revisions: watch::Receiver<i64>,
    /// The revision the watcher has seen.
    after: i64,
    began: bool,
}

fn messages(watch: Watch) -> impl Stream<Item = Result<WatchSettingsResponse, Status>> {
    stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl Watch {
    async fn next(&mut self) -> Result<WatchSettingsResponse, Status> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            // Looked at before waiting, so that no change falls between two waits.
            self.revisions.mark_unchanged();
            let message = self.changes().await.map_err(|error| self.api.status(error))?;
            if !self.began || !message.settings.is_empty() {
                self.began = true;
                return Ok(message);
            }
            tokio::select! {
                () = self.api.drain.cancelled() => return Err(self.api.status(Error::ShuttingDown)),
                () = sleep_until(heartbeat) => return Ok(message),
                // The sender lives in the cache, which `api` holds.
                _ = self.revisions.changed() => {}
            }
        }
    }

    /// What changed since the watcher looked last; brings the watcher to now.
    async fn changes(&mut self) -> Result<WatchSettingsResponse, Error> {
        // Read before the layers: they are at least as new.
        let revision = self.api.settings.revision();
        let settings = parent::cached(&self.api, self.layer).await?;
        let changed = parent::changed_after(&settings, self.after);
        let settings = changed
            .map(|definition| convert::setting(settings.in_force(definition)))
            .collect();
        self.after = self.after.max(revision);
        Ok(WatchSettingsResponse {
            settings,
            revision: self.after,
        })
    }
}
