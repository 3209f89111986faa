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
    let Some(transaction) = &call.message.transaction else {
        return Err(Error::invalid("transaction", "must be given"));
    };
    let (permission, database) = (Permission::SessionsUse, &transaction.database);
    let server = access::database(api, &call.caller, id, permission, database).await?;
    let instance = server.instance_id;
    Ok(api
        .sessions
        .get_transaction_outcome(&call.token, instance, call.message)
        .await?)
}
