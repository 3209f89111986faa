//! FetchMore: as Execute, it reads no database and forwards the pooler's frames as they are.

use rpc::events::EncodedEvents;
use rpc::query::v1::{FetchMoreRequest, OnDisconnect};

use super::executions;
use super::script::largest_page;
use crate::context::{Call, Context};
use crate::error::{Error, Violations};
use crate::upheld::Upheld;

/// Goes on with a suspended execution.
pub(crate) async fn fetch_more(
    api: &Context,
    mut call: Call<FetchMoreRequest>,
) -> Result<Upheld<EncodedEvents>, Error> {
    let mut request = std::mem::take(&mut call.message);
    let name = executions::name("execution", &request.execution)?;
    let mut violations = Violations::default();
    for (field, limit) in [("max_rows", request.max_rows), ("max_bytes", request.max_bytes)] {
        if limit.is_some_and(|limit| limit < 0) {
            violations.add(field, "must not be negative");
        }
    }
    if request.page_size < 0 {
        violations.add("page_size", "must not be negative");
    }
    if OnDisconnect::try_from(request.on_disconnect).is_err() {
        violations.add("on_disconnect", "is not a known value");
    }
    violations.done()?;
    request.page_size = request.page_size.min(largest_page());
    let events = api.sessions.fetch_more(&call.token, name, request).await?;
    Ok(Upheld::by_pooler(api, &call, events))
}
