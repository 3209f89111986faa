//! `audit`: who called what, and how it ended.

use std::time::Duration;

use clap::{Args, Subcommand};
use rpc::audit::v1::{
    AuditFilter, AuditRecord, AuditRecordKind, ExportAuditRecordsRequest, ListAuditRecordsRequest,
    WatchAuditRecordsRequest,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;
use tonic::Code;

use super::users;
use crate::connection::Call;
use crate::context::Context;
use crate::error::ClientError;
use crate::globals::Format;
use crate::output::json::JsonMapping;
use crate::output::record::{self, Record, text, time, word};

/// A watch is silent for 15 s at most.
const WATCH_SILENCE: Duration = Duration::from_secs(45);

/// The audit trail.
#[derive(Debug, Clone, Subcommand)]
pub enum Audit {
    /// List records, newest first
    #[command(after_help = "\
Examples:
  pgmoor audit list --outcome PERMISSION_DENIED --since 1day
  pgmoor audit list --resource servers/… --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Most records that are listed
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Follow the trail until interrupted
    Watch {
        #[command(flatten)]
        filter: Filter,
        /// Go on after this position; 0 for everything there is
        #[arg(long, value_name = "POSITION")]
        after_position: Option<i64>,
    },
    /// Print records as JSON lines, oldest first, with what their hashes are made of
    Export {
        #[command(flatten)]
        filter: Filter,
        /// Only what came in after this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after_position: i64,
    },
}

/// Which records.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Not older than this: a time like 2026-01-31T12:00:00Z, or a span like 1h before now
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Older than this
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of this user: a login name, users/{user}, or the id
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Of this method, such as OpenSession
    #[arg(long, value_name = "METHOD", default_value = "")]
    method: String,
    /// That name this resource or one below it
    #[arg(long, value_name = "NAME", default_value = "")]
    resource: String,
    /// Of this session
    #[arg(long, value_name = "NAME", default_value = "")]
    session: String,
    /// That ended so, such as OK or PERMISSION_DENIED
    #[arg(long, value_name = "CODE", default_value = "")]
    outcome: String,
    /// Of this trace
    #[arg(long, value_name = "ID", default_value = "")]
    correlation_id: String,
    /// Of this kind, such as call or execution; again for more
    #[arg(long = "kind", value_name = "KIND", value_parser = parse_kind)]
    kinds: Vec<AuditRecordKind>,
}

fn parse_kind(text: &str) -> Result<AuditRecordKind, String> {
    AuditRecordKind::from_str_name(&format!("AUDIT_RECORD_KIND_{}", text.to_uppercase()))
        .filter(|kind| *kind != AuditRecordKind::Unspecified)
        .ok_or_else(|| format!("there is no kind {text}"))
}

impl Filter {
    async fn wire(self, context: &mut Context) -> Result<AuditFilter, ClientError> {
        let now = context.clock.now();
        let user = users::resolve_given(context, self.user).await?;
        let time = |option, text: Option<String>| text.map(|text| moment(option, &text, now)).transpose();
        Ok(AuditFilter {
            start_time: time("--since", self.since)?,
            end_time: time("--until", self.until)?,
            user,
            method: self.method,
            resource: self.resource,
            session: self.session,
            outcome: self.outcome.to_uppercase(),
            correlation_id: self.correlation_id,
            kinds: self.kinds.into_iter().map(i32::from).collect(),
        })
    }
}

/// A time, or a span before now.
fn moment(
    option: &'static str,
    text: &str,
    now: OffsetDateTime,
) -> Result<prost_types::Timestamp, ClientError> {
    let span = || {
        let span = humantime::parse_duration(text).ok()?;
        now.checked_sub(span.try_into().ok()?)
    };
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(span);
    let time = time.ok_or_else(|| {
        ClientError::usage(format!(
            "{option} must be a time like 2026-01-31T12:00:00Z or a span like 1h"
        ))
    })?;
    Ok(prost_types::Timestamp {
        seconds: time.unix_timestamp(),
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    })
}

impl Audit {
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), ClientError> {
        match self {
            Self::List { filter, limit } => {
                let filter = filter.wire(context).await?;
                list(context, filter, limit).await
            }
            Self::Watch {
                filter,
                after_position,
            } => {
                let filter = filter.wire(context).await?;
                watch(context, filter, after_position).await
            }
            Self::Export {
                filter,
                after_position,
            } => {
                let filter = filter.wire(context).await?;
                export(context, filter, after_position).await
            }
        }
    }
}

async fn list(context: &mut Context, filter: AuditFilter, limit: usize) -> Result<(), ClientError> {
    let client = context.connection()?.audit();
    let page = async |context: &mut Context, page_size, page_token: String| {
        let request = ListAuditRecordsRequest {
            filter: Some(filter.clone()),
            page_size,
            page_token,
        };
        let page = context
            .read(async || client.clone().list_audit_records(request.clone()).await)
            .await?;
        Ok((page.records, page.next_page_token))
    };
    let records = context.pages(Some(limit), page).await?;
    context.show_list(&records).await
}

/// Follows the trail until it is interrupted. A watch that breaks off begins again where it was: nothing is missed.
async fn watch(
    context: &mut Context,
    filter: AuditFilter,
    after_position: Option<i64>,
) -> Result<(), ClientError> {
    let connection = context.connection()?;
    let client = connection.audit();
    let mapping = JsonMapping::new()?;
    let mut position = after_position;
    let mut header = true;
    loop {
        let request = WatchAuditRecordsRequest {
            filter: Some(filter.clone()),
            after_position: position,
        };
        let call = Call::repeatable(context.globals.timeout());
        let mut messages = connection
            .call(call, async || {
                client.clone().watch_audit_records(request.clone()).await
            })
            .await?;
        loop {
            let message = match timeout(WATCH_SILENCE, messages.message()).await {
                Ok(Ok(Some(message))) => message,
                // The connection was cut, the server is going down, or the token has ended: begin again.
                Ok(Ok(None)) | Err(_) => break,
                Ok(Err(status))
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::Unauthenticated | Code::Unknown
                    ) =>
                {
                    break;
                }
                Ok(Err(status)) => return Err(status.into()),
            };
            position = Some(message.position);
            if message.records.is_empty() {
                continue;
            }
            let text = records_text(&mapping, &message.records, context.globals.format, &mut header)?;
            context.show_text(&text).await?;
        }
        // A server that ends every watch at once must not be asked as fast as it answers.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn records_text(
    mapping: &JsonMapping,
    records: &[AuditRecord],
    format: Format,
    header: &mut bool,
) -> Result<String, ClientError> {
    let mut lines = String::new();
    match format {
        Format::Json => {
            for record in records {
                lines.push_str(&mapping.json(AuditRecord::MESSAGE, record)?.to_string());
                lines.push('\n');
            }
        }
        Format::Csv => {
            let rows = record::csv_rows(AuditRecord::COLUMNS, records.iter().map(Record::cells));
            let is_first = std::mem::replace(header, false);
            let rest = rows.split_once('\n').map(|(_, rest)| rest).unwrap_or_default();
            lines.push_str(if is_first { &rows } else { rest });
        }
        Format::Table => {
            for record in records {
                let cells: Vec<String> = record.cells().into_iter().flatten().collect();
                lines.push_str(&crate::output::table::printable(&cells.join("  ")));
                lines.push('\n');
            }
        }
    }
    Ok(lines)
}

async fn export(
    context: &mut Context,
    filter: AuditFilter,
    mut after_position: i64,
) -> Result<(), ClientError> {
    let connection = context.connection()?;
    let client = connection.audit();
    loop {
        let request = ExportAuditRecordsRequest {
            filter: Some(filter.clone()),
            after_position,
            max_records: 0,
        };
        let call = Call::repeatable(context.globals.timeout());
        let mut pieces = connection
            .call(call, async || {
                client.clone().export_audit_records(request.clone()).await
            })
            .await?;
        let mut next_position = 0;
        while let Some(piece) = pieces.message().await? {
            next_position = piece.next_position;
            context.show_text(&String::from_utf8_lossy(&piece.data)).await?;
        }
        if next_position == 0 {
            return Ok(());
        }
        after_position = next_position;
    }
}

impl Record for AuditRecord {
    const MESSAGE: &'static str = "pgmoor.audit.v1.AuditRecord";
    const COLUMNS: &'static [&'static str] = &[
        "time",
        "kind",
        "username",
        "address",
        "method",
        "resources",
        "outcome",
        "reason",
    ];

    fn cells(&self) -> Vec<Option<String>> {
        let method = self.method.rsplit('/').next().unwrap_or_default();
        let outcome = [&self.outcome, &self.sqlstate]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>();
        vec![
            time(self.time.as_ref()),
            word(self.kind().as_str_name(), "AUDIT_RECORD_KIND_"),
            text(&self.username),
            text(&self.address),
            text(method),
            text(&self.resources.join(" ")),
            text(&outcome.join(" ")),
            text(&self.reason),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_spans_before_now() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let seconds = |text| moment("--since", text, now).map(|time| time.seconds).ok();
        assert_eq!(seconds("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(seconds("1h"), Some(6400));
        for wrong in ["", "yesterday", "1970-01-01", "10"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn kinds_are_read_in_any_case() {
        assert_eq!(parse_kind("execution"), Ok(AuditRecordKind::Execution));
        assert_eq!(parse_kind("CALL"), Ok(AuditRecordKind::Call));
        assert!(parse_kind("unspecified").is_err() && parse_kind("x").is_err());
    }
}
