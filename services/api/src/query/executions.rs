//! GetExecution, ResumeExecution, CancelExecution.

use domain::session::{ExecutionName, SessionName};
use rpc::events::EncodedEvents;
use rpc::query::v1::{
    CancelExecutionRequest, CancelExecutionResponse, GetExecutionRequest, GetExecutionResponse,
    ResumeExecutionRequest,
};
use telemetry::rpc::Id;

use super::sessions::note;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::upheld::Upheld;

/// Reads the name of the execution that the call is about.
pub(super) fn name(field: &str, name: &str) -> Result<ExecutionName, Error> {
    let name: ExecutionName = name.parse().map_err(|error| Error::invalid(field, error))?;
    note(name.session);
    telemetry::rpc::record(Id::Execution, &name.execution);
    Ok(name)
}

/// Reads how an execution stands.
pub(crate) async fn get_execution(
    api: &Context,
    call: Call<GetExecutionRequest>,
) -> Result<GetExecutionResponse, Error> {
    let execution = match call.message.name.strip_suffix("/executions/-") {
        Some(session) => {
            let session: SessionName = session.parse().map_err(|error| Error::invalid("name", error))?;
            note(session);
            api.sessions.get_last_execution(&call.token, session).await?
        }
        None => {
            let name = name("name", &call.message.name)?;
            api.sessions.get_execution(&call.token, name).await?
        }
    };
    Ok(GetExecutionResponse {
        execution: Some(execution),
    })
}

/// Goes on reading what an execution says.
pub(crate) async fn resume_execution(
    api: &Context,
    call: Call<ResumeExecutionRequest>,
) -> Result<Upheld<EncodedEvents>, Error> {
    let name = name("name", &call.message.name)?;
    let after = call.message.after_sequence;
    if after < 0 {
        return Err(Error::invalid("after_sequence", "must not be negative"));
    }
    let events = api.sessions.resume_execution(&call.token, name, after).await?;
    Ok(Upheld::by_pooler(api, &call, events))
}

/// Asks for an execution to be cancelled.
pub(crate) async fn cancel_execution(
    api: &Context,
    call: Call<CancelExecutionRequest>,
) -> Result<CancelExecutionResponse, Error> {
    let name = name("name", &call.message.name)?;
    api.sessions.cancel_execution(&call.token, name).await?;
    Ok(CancelExecutionResponse {})
}
