//! What poolers show, and what administrators have them do: the handlers of PoolService.
//!
//! Invariant: every registered pooler is asked with the caller's own token and decides itself what they may see; one that does
//! not answer is named.

mod commands;
mod list_budgets;
mod list_poolers;
mod lists;
mod page;
mod pausing;

use std::sync::Arc;

use domain::session::PoolerId;
use rpc::pool::v1 as proto;
use rpc::pool::v1::pool_service_server::PoolService;

use crate::context::Context;
use crate::rpcs::rpcs;

/// Serves `pgmoor.pool.v1.PoolService`.
#[derive(Debug)]
pub(crate) struct PoolRpcs(pub(crate) Arc<Context>);

rpcs! {
    PoolService for PoolRpcs {
        lists::list_pools(ListPoolsRequest) -> ListPoolsResponse;
        lists::list_clients(ListClientsRequest) -> ListClientsResponse;
        lists::list_backends(ListBackendsRequest) -> ListBackendsResponse;
        lists::list_stats(ListStatsRequest) -> ListStatsResponse;
        lists::list_waiters(ListWaitersRequest) -> ListWaitersResponse;
        list_budgets::list_budgets(ListBudgetsRequest) -> ListBudgetsResponse;
        list_poolers::list_poolers(ListPoolersRequest) -> ListPoolersResponse;
        pausing::pause_instance(PauseInstanceRequest) -> PauseInstanceResponse;
        pausing::resume_instance(ResumeInstanceRequest) -> ResumeInstanceResponse;
        pausing::reconnect_instance(ReconnectInstanceRequest) -> ReconnectInstanceResponse;
        commands::drain_pooler(DrainPoolerRequest) -> DrainPoolerResponse;
        commands::kill_session(KillSessionRequest) -> KillSessionResponse;
        commands::kill_backend(KillBackendRequest) -> KillBackendResponse;
    }
}

/// The names of poolers that did not answer.
fn names(poolers: &[PoolerId]) -> Vec<String> {
    let names = poolers.iter().map(|pooler| format!("poolers/{pooler}"));
    names.collect()
}
