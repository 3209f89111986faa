//! GetExecution, CancelExecution.

use domain::session::ExecutionName;
use rpc::query::v1::{
    CancelExecutionRequest, CancelExecutionResponse, GetExecutionRequest, GetExecutionResponse,
};
use telemetry::rpc::Id;

use super::sessions::note;
use crate::context::{Call, Context};
use crate::error::Error;

fn name(name: &str) -> Result<ExecutionName, Error> {
    let name: ExecutionName = name.parse().map_err(|error| Error::invalid("name", error))?;
    note(name.session);
    telemetry::rpc::record(Id::Execution, &name.execution);
    Ok(name)
}

/// Reads how an execution stands.
pub(crate) async fn get_execution(
    api: &Context,
    call: Call<GetExecutionRequest>,
) -> Result<GetExecutionResponse, Error> {
    let name = name(&call.message.name)?;
    let execution = api.sessions.get_execution(&call.token, name).await?;
    Ok(GetExecutionResponse {
        execution: Some(execution),
    })
}

/// Asks for an execution to be cancelled.
pub(crate) async fn cancel_execution(
    api: &Context,
    call: Call<CancelExecutionRequest>,
) -> Result<CancelExecutionResponse, Error> {
    let name = name(&call.message.name)?;
    api.sessions.cancel_execution(&call.token, name).await?;
    Ok(CancelExecutionResponse {})
}
