//! GetTransactionOutcome.

use domain::access::Permission;
use rpc::query::v1::{GetTransactionOutcomeRequest, GetTransactionOutcomeResponse};

use crate::context::{Call, Context};
use crate::error::Error;
use crate::{access, resource};

/// Asks a server what became of a transaction.
pub(crate) async fn get_transaction_outcome(
    api: &Context,
    call: Call<GetTransactionOutcomeRequest>,
) -> Result<GetTransactionOutcomeResponse, Error> {
    let id = resource::server("server", &call.message.server)?;
    if call.message.transaction.is_none() {
        return Err(Error::invalid("transaction", "must be given"));
    }
    let server = access::server(api, &call.caller, id, Permission::SessionsUse).await?;
    let instance = server.instance_id;
    Ok(api
        .sessions
        .get_transaction_outcome(&call.token, instance, call.message)
        .await?)
}
