//! Execute: the hot path. It reads no database and forwards the pooler's frames as they are.

use ::sessions::EventStream;
use rpc::query::v1::{ExecuteRequest, OnDisconnect};

use super::script;
use super::sessions::name;
use crate::context::{Call, Context};
use crate::error::Error;

/// Runs a script in a session.
pub(crate) async fn execute(api: &Context, call: Call<ExecuteRequest>) -> Result<EventStream, Error> {
    let mut request = call.message;
    let name = name("session", &request.session)?;
    if OnDisconnect::try_from(request.on_disconnect).is_err() {
        return Err(Error::invalid("on_disconnect", "is not a known value"));
    }
    let settings = api.settings.of(call.caller.user).await?;
    request.script = Some(script::fill(request.script.take(), &settings)?);
    Ok(api.sessions.execute(&call.token, name, request).await?)
}
