//! Execute: the hot path. It reads no database and forwards the pooler's frames as they are.

use rpc::events::EncodedEvents;
use rpc::query::v1::{ExecuteRequest, OnDisconnect};

use super::script;
use super::sessions::name;
use crate::context::{Call, Context};
use crate::error::Error;
use crate::upheld::Upheld;

/// Runs a script in a session.
pub(crate) async fn execute(
    api: &Context,
    mut call: Call<ExecuteRequest>,
) -> Result<Upheld<EncodedEvents>, Error> {
    let mut request = std::mem::take(&mut call.message);
    let name = name("session", &request.session)?;
    if OnDisconnect::try_from(request.on_disconnect).is_err() {
        return Err(Error::invalid("on_disconnect", "is not a known value"));
    }
    let settings = api.settings.of(call.caller.user).await?;
    request.script = Some(script::fill(request.script.take(), &settings)?);
    let events = api.sessions.execute(&call.token, name, request).await?;
    Ok(Upheld::by_pooler(api, &call, events))
}
