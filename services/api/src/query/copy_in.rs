//! CopyIn: the first message says what is copied, the others are its data.

use futures::{StreamExt as _, stream};
use rpc::query::v1::copy_in_request::Kind;
use rpc::query::v1::{CopyInRequest, CopyInResponse};
use tonic::Streaming;

use super::sessions::name;
use crate::context::{Call, Context};
use crate::duration;
use crate::error::Error;

/// Runs one COPY from the stream of its data.
pub(crate) async fn copy_in(
    api: &Context,
    call: Call<Streaming<CopyInRequest>>,
) -> Result<CopyInResponse, Error> {
    let mut data = call.message;
    let Some(CopyInRequest {
        kind: Some(Kind::Start(mut start)),
    }) = data.message().await?
    else {
        return Err(Error::invalid("start", "must be the first message"));
    };
    let name = name("start.session", &start.session)?;
    match start.statement_timeout {
        Some(timeout) => {
            let checked = duration::decode(timeout);
            checked.map_err(|error| Error::invalid("start.statement_timeout", error))?;
        }
        None => {
            let setting = api.settings.of(call.caller.user).await?.statement_timeout();
            start.statement_timeout = Some(duration::encode(setting.unwrap_or_default()));
        }
    }
    let first = CopyInRequest {
        kind: Some(Kind::Start(start)),
    };
    let messages = stream::iter([Ok(first)]).chain(data).boxed();
    Ok(api.sessions.copy_in(&call.token, name, messages).await?)
}
