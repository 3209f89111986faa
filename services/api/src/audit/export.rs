//! ExportAuditRecords.

use std::sync::Arc;

use ::audit::{Filter, json};
use futures::stream;
use rpc::audit::v1::{ExportAuditRecordsRequest, ExportAuditRecordsResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::upheld::{Entry, Upheld};

/// Most records of one export.
const MOST_RECORDS: u32 = 1_000_000;
/// Records in a message. None is larger than some 80 KiB, and few are larger than one.
const BATCH: u16 = 40;

/// Exports records.
pub(super) fn export_audit_records(
    api: &Arc<Context>,
    call: Call<ExportAuditRecordsRequest>,
) -> Result<Upheld<ExportAuditRecordsResponse>, Error> {
    let request = &call.message;
    let filter = convert::filter(request.filter.clone(), &call.caller)?;
    if request.after_position < 0 {
        return Err(Error::invalid("after_position", "must not be negative"));
    }
    let left = match u32::try_from(request.max_records) {
        Ok(0) => MOST_RECORDS,
        Ok(most) => most.min(MOST_RECORDS),
        Err(_) => return Err(Error::invalid("max_records", "must not be negative")),
    };
    let export = Export {
        api: api.clone(),
        filter,
        position: request.after_position,
        left,
    };
    let messages = stream::unfold(Some(export), |export| async {
        let mut export = export?;
        match export.next().await {
            Ok((message, true)) => Some((Ok(message), Some(export))),
            Ok((message, false)) => Some((Ok(message), None)),
            Err(error) => Some((Err(export.api.status(error)), None)),
        }
    });
    Ok(Upheld::new(api, &call, Entry::Permission, messages))
}

struct Export {
    api: Arc<Context>,
    filter: Filter,
    position: i64,
    left: u32,
}

impl Export {
    /// The next piece, and whether another one follows.
    async fn next(&mut self) -> Result<(ExportAuditRecordsResponse, bool), Error> {
        if self.api.drain.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        let most = u16::try_from(self.left).unwrap_or(u16::MAX).min(BATCH);
        let audit = self.api.store.audit();
        let records = audit.after(self.position, &self.filter, most).await?;
        let is_full = records.len() == usize::from(most);
        self.left -= u32::try_from(records.len()).unwrap_or(self.left);
        let mut data = String::new();
        for kept in &records {
            data.push_str(&json::line(kept));
            data.push('\n');
            self.position = kept.position;
        }
        let goes_on = is_full && self.left > 0;
        let message = ExportAuditRecordsResponse {
            data: data.into(),
            next_position: if is_full && !goes_on { self.position } else { 0 },
        };
        Ok((message, goes_on))
    }
}
