//! ListAuditRecords.

use ::audit::{Filter, Kind};
use domain::page::PageScope;
use rpc::audit::v1::{ListAuditRecordsRequest, ListAuditRecordsResponse};

use super::convert;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::paging;

/// Lists records, newest first.
pub(super) async fn list_audit_records(
    api: &Context,
    call: Call<ListAuditRecordsRequest>,
) -> Result<ListAuditRecordsResponse, Error> {
    let request = call.message;
    let filter = convert::filter(request.filter, &call.caller)?;
    let scope = scope(&filter);
    let page = paging::request(&scope, request.page_size, &request.page_token)?;
    let page = api.store.audit().list(&filter, &page).await?;
    Ok(ListAuditRecordsResponse {
        next_page_token: paging::next_token(&scope, &page),
        records: page.items.into_iter().map(convert::record).collect(),
    })
}

fn scope(filter: &Filter) -> PageScope {
    let Filter {
        start_time,
        end_time,
        user_id,
        method,
        resource,
        session,
        outcome,
        correlation_id,
        kinds,
    } = filter;
    let time = |time: &Option<time::OffsetDateTime>| {
        time.map_or_else(String::new, |time| time.unix_timestamp_nanos().to_string())
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let kinds: Vec<&str> = kinds.iter().copied().map(Kind::as_str).collect();
    [
        time(start_time),
        time(end_time),
        user_id.map(|id| id.to_string()).unwrap_or_default(),
        text(method),
        text(resource),
        text(session),
        text(outcome),
        text(correlation_id),
        kinds.join(","),
    ]
    .iter()
    .fold(PageScope::new("ListAuditRecords"), |scope, argument| {
        scope.with(argument)
    })
}
