//! The lists that poolers show as they are.

use rpc::pool::v1::{
    Backend, Client, DatabaseStats, ListBackendsRequest, ListBackendsResponse, ListClientsRequest,
    ListClientsResponse, ListPoolsRequest, ListPoolsResponse, ListStatsRequest, ListStatsResponse,
    ListWaitersRequest, ListWaitersResponse, Pool, Waiter,
};
use rpc::pooler::v1::Section;

use super::page::{Wanted, key};
use super::{administrators_only, names};
use crate::context::{Call, Context};
use crate::error::Error;

/// SHOW POOLS.
pub(super) async fn list_pools(
    api: &Context,
    call: Call<ListPoolsRequest>,
) -> Result<ListPoolsResponse, Error> {
    let wanted = Wanted {
        method: "ListPools",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
        instance: &call.message.instance,
    };
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Pools).await?;
    let all = asked.answers.into_iter().flat_map(|shown| shown.pools).collect();
    let by = |pool: &Pool| {
        key([
            &pool.instance,
            &pool.server,
            &pool.database,
            &pool.user,
            &pool.pooler,
        ])
    };
    let (page, next_page_token) = wanted.cut(&call.caller, all, |pool| &pool.instance, by)?;
    Ok(ListPoolsResponse {
        pools: page,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}

/// SHOW CLIENTS.
pub(super) async fn list_clients(
    api: &Context,
    call: Call<ListClientsRequest>,
) -> Result<ListClientsResponse, Error> {
    let wanted = Wanted {
        method: "ListClients",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
        instance: &call.message.instance,
    };
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Clients).await?;
    let all = asked
        .answers
        .into_iter()
        .flat_map(|shown| shown.clients)
        .collect();
    let by = |client: &Client| key([&client.name, &client.pooler]);
    let (page, next_page_token) = wanted.cut(&call.caller, all, |client| &client.instance, by)?;
    Ok(ListClientsResponse {
        clients: page,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}

/// SHOW SERVERS.
pub(super) async fn list_backends(
    api: &Context,
    call: Call<ListBackendsRequest>,
) -> Result<ListBackendsResponse, Error> {
    let wanted = Wanted {
        method: "ListBackends",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
        instance: &call.message.instance,
    };
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Backends).await?;
    let all = asked
        .answers
        .into_iter()
        .flat_map(|shown| shown.backends)
        .collect();
    let by = |backend: &Backend| {
        // One that is being connected has no process yet.
        let begun = backend.connect_time.unwrap_or_default();
        let begun = format!("{:020}.{:09}", begun.seconds, begun.nanos);
        let process_id = format!("{:010}", backend.remote_pid);
        key([
            &backend.instance,
            &process_id,
            &begun,
            &backend.server,
            &backend.pooler,
        ])
    };
    let (page, next_page_token) = wanted.cut(&call.caller, all, |backend| &backend.instance, by)?;
    Ok(ListBackendsResponse {
        backends: page,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}

/// SHOW STATS.
pub(super) async fn list_stats(
    api: &Context,
    call: Call<ListStatsRequest>,
) -> Result<ListStatsResponse, Error> {
    administrators_only(&call, "to see the statistics of all")?;
    let wanted = Wanted {
        method: "ListStats",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
        instance: &call.message.instance,
    };
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Stats).await?;
    let all = asked.answers.into_iter().flat_map(|shown| shown.stats).collect();
    let by = |stats: &DatabaseStats| key([&stats.instance, &stats.server, &stats.database, &stats.pooler]);
    let (page, next_page_token) = wanted.cut(&call.caller, all, |stats| &stats.instance, by)?;
    Ok(ListStatsResponse {
        stats: page,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}

/// The claims that wait.
pub(super) async fn list_waiters(
    api: &Context,
    call: Call<ListWaitersRequest>,
) -> Result<ListWaitersResponse, Error> {
    administrators_only(&call, "to see who waits")?;
    let wanted = Wanted {
        method: "ListWaiters",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
        instance: &call.message.instance,
    };
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Waiters).await?;
    let all = asked
        .answers
        .into_iter()
        .flat_map(|shown| shown.waiters)
        .collect();
    let by = |waiter: &Waiter| {
        let position = format!("{:010}", waiter.position);
        key([&waiter.instance, &position, &waiter.claimant, &waiter.pooler])
    };
    let (page, next_page_token) = wanted.cut(&call.caller, all, |waiter| &waiter.instance, by)?;
    Ok(ListWaitersResponse {
        waiters: page,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}
