//! GetTransactionOutcome.

use rpc::query::v1::{GetTransactionOutcomeRequest, GetTransactionOutcomeResponse};

use crate::context::{Call, Context};
use crate::error::Error;
use crate::{resource, server};

/// Asks a server of the caller what became of a transaction.
pub(crate) async fn get_transaction_outcome(
    api: &Context,
    call: Call<GetTransactionOutcomeRequest>,
) -> Result<GetTransactionOutcomeResponse, Error> {
    let id = resource::server("server", &call.message.server)?;
    if call.message.transaction.is_none() {
        return Err(Error::invalid("transaction", "must be given"));
    }
    let instance = server::owned(api, &call.caller, id).await?.instance_id;
    Ok(api
        .sessions
        .get_transaction_outcome(&call.token, instance, call.message)
        .await?)
}
