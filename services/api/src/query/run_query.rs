//! RunQuery: a script without a session, its results in one message.

use domain::access::Permission;
use domain::settings::Settings;
use futures::StreamExt as _;
use rpc::pooler::v1::RunScriptRequest;
use rpc::query::v1::{OnLimit, ResultFormat, RunQueryRequest, RunQueryResponse, SessionAccess};

use super::open_session::queue_timeout;
use super::result::Collector;
use super::script;
use crate::context::{Call, Context};
use crate::database;
use crate::error::Error;
use crate::{access, resource};

/// Runs a script on a backend of its own.
pub(crate) async fn run_query(api: &Context, call: Call<RunQueryRequest>) -> Result<RunQueryResponse, Error> {
    let request = call.message;
    let id = resource::server("server", &request.server)?;
    database::check(&request.database)?;
    let queue_timeout =
        queue_timeout(request.queue_timeout).map_err(|error| Error::invalid("queue_timeout", error))?;
    // This call reads the config database anyway, so it sees a setting that was just written elsewhere.
    api.settings.catch_up().await?;
    let settings = api.settings.of(call.caller.user).await?;
    let collector = collector(request.format, &settings)?;
    let script = script::fill(request.script, &settings)?;
    if script.on_limit() == OnLimit::Suspend {
        return Err(Error::invalid(
            "script.on_limit",
            "ON_LIMIT_SUSPEND needs a session",
        ));
    }
    if SessionAccess::try_from(request.access).is_err() {
        return Err(Error::invalid("access", "is not a known value"));
    }
    let permission = Permission::SessionsUse;
    let server = access::database(api, &call.caller, id, permission, &request.database).await?;
    let instance = server.instance_id;
    let run = RunScriptRequest {
        server: request.server,
        database: request.database,
        script: Some(script),
        queue_timeout_ms: i64::try_from(queue_timeout.as_millis()).unwrap_or(i64::MAX),
        access: request.access,
    };
    let mut events = api.sessions.run_script(&call.token, instance, run).await?;
    let mut collector = collector;
    while let Some(encoded) = events.next().await {
        let fault = |source| Error::Fault {
            context: "decoding a pooler's events",
            source,
        };
        for event in encoded?.events().map_err(|error| fault(error.into()))? {
            collector.take(event);
        }
    }
    collector.finish().ok_or_else(|| Error::Fault {
        context: "reading a pooler's events",
        source: "the stream ended before the execution".into(),
    })
}

fn collector(format: i32, settings: &Settings) -> Result<Collector, Error> {
    match ResultFormat::try_from(format) {
        Ok(ResultFormat::Unspecified | ResultFormat::Rows) => Ok(Collector::rows()),
        Ok(ResultFormat::Csv) => Ok(Collector::csv(settings.csv_format())),
        Err(_) => Err(Error::invalid("format", "is not a known value")),
    }
}
