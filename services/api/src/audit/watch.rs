//! WatchAuditRecords.

use std::sync::Arc;
use std::time::Duration;

use ::audit::Filter;
use futures::stream;
use rpc::audit::v1::{WatchAuditRecordsRequest, WatchAuditRecordsResponse};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::upheld::{Entry, Upheld};

/// Silence after which a message says that the watch lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the trail is looked at. Writers write once a second.
const INTERVAL: Duration = Duration::from_millis(500);
/// Records in a message.
const BATCH: u16 = 200;

/// Follows the trail.
pub(super) async fn watch_audit_records(
    api: &Arc<Context>,
    call: Call<WatchAuditRecordsRequest>,
) -> Result<Upheld<WatchAuditRecordsResponse>, Error> {
    let filter = convert::filter(call.message.filter.clone(), &call.caller)?;
    let position = match call.message.after_position {
        Some(position) if position < 0 => {
            return Err(Error::invalid("after_position", "must not be negative"));
        }
        Some(position) => position,
        None => api.store.audit().position().await?,
    };
    let watch = Watch {
        api: api.clone(),
        filter,
        position,
        began: false,
    };
    let messages = stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Upheld::new(api, &call, Entry::Permission, messages))
}

struct Watch {
    api: Arc<Context>,
    filter: Filter,
    /// What the watcher has seen.
    position: i64,
    began: bool,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchAuditRecordsResponse, Status> {
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            let message = self.look().await.map_err(|error| self.api.status(error))?;
            if !self.began || !message.records.is_empty() || Instant::now() >= heartbeat {
                self.began = true;
                return Ok(message);
            }
            tokio::select! {
                () = self.api.drain.cancelled() => return Err(self.api.status(Error::ShuttingDown)),
                () = sleep(INTERVAL) => {}
            }
        }
    }

    /// What came in since the watcher looked last.
    async fn look(&mut self) -> Result<WatchAuditRecordsResponse, Error> {
        let audit = self.api.store.audit();
        // Read before the records: they are at least as new.
        let position = audit.position().await?;
        if position > self.position {
            let records = audit.after(self.position, &self.filter, BATCH).await?;
            let is_all = records.len() < usize::from(BATCH);
            let last = records.last().map_or(self.position, |last| last.position);
            self.position = if is_all { last.max(position) } else { last };
            return Ok(self.message(records.into_iter().map(convert::record).collect()));
        }
        Ok(self.message(Vec::new()))
    }

    fn message(&self, records: Vec<rpc::audit::v1::AuditRecord>) -> WatchAuditRecordsResponse {
        WatchAuditRecordsResponse {
            records,
            position: self.position,
        }
    }
}
