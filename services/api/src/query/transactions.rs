//! BeginTransaction, CommitTransaction, RollbackTransaction.

use rpc::query::v1::{
    BeginTransactionRequest, BeginTransactionResponse, CommitTransactionRequest, CommitTransactionResponse,
    IsolationLevel, RollbackTransactionRequest, RollbackTransactionResponse,
};

use super::sessions::name;
use crate::context::{Call, Context};
use crate::error::Error;

/// Begins a transaction block.
pub(crate) async fn begin_transaction(
    api: &Context,
    call: Call<BeginTransactionRequest>,
) -> Result<BeginTransactionResponse, Error> {
    let name = name("session", &call.message.session)?;
    if IsolationLevel::try_from(call.message.isolation_level).is_err() {
        return Err(Error::invalid("isolation_level", "is not a known value"));
    }
    let session = api
        .sessions
        .begin_transaction(&call.token, name, call.message)
        .await?;
    Ok(BeginTransactionResponse {
        session: Some(session),
    })
}

/// Commits the transaction block.
pub(crate) async fn commit_transaction(
    api: &Context,
    call: Call<CommitTransactionRequest>,
) -> Result<CommitTransactionResponse, Error> {
    let name = name("session", &call.message.session)?;
    Ok(api.sessions.commit_transaction(&call.token, name).await?)
}

/// Rolls the transaction block back.
pub(crate) async fn rollback_transaction(
    api: &Context,
    call: Call<RollbackTransactionRequest>,
) -> Result<RollbackTransactionResponse, Error> {
    let name = name("session", &call.message.session)?;
    let session = api.sessions.rollback_transaction(&call.token, name).await?;
    Ok(RollbackTransactionResponse {
        session: Some(session),
    })
}
