//! The lists that poolers show as they are.

use domain::access::Permission;
use rpc::pool::v1::{
    Backend, Client, DatabaseStats, ListBackendsRequest, ListBackendsResponse, ListClientsRequest,
    ListClientsResponse, ListPoolsRequest, ListPoolsResponse, ListStatsRequest, ListStatsResponse,
    ListWaitersRequest, ListWaitersResponse, Pool, Waiter,
};
use rpc::pooler::v1::{Section, ShowPoolerResponse};

use super::names;
use super::page::{PageOfList, key};
use crate::access;
use crate::context::{Call, Context};
use crate::error::Error;

/// A page, the token of the next one, and who did not answer.
type Shown<T> = (Vec<T>, String, Vec<String>);

/// The page that a call asks for of what all poolers show in `section`.
async fn shown<R: PageOfList, T>(
    api: &Context,
    call: &Call<R>,
    section: Section,
    entries: fn(ShowPoolerResponse) -> Vec<T>,
    instance: fn(&T) -> &str,
    by: impl Fn(&T) -> String,
) -> Result<Shown<T>, Error> {
    let wanted = call.message.wanted();
    wanted.check()?;
    let asked = api.pools.show(&call.token, section).await?;
    let all = asked.answers.into_iter().flat_map(entries).collect();
    let (page, next) = wanted.cut(&call.caller, all, instance, by)?;
    Ok((page, next, names(&asked.unreachable)))
}

/// SHOW POOLS.
pub(super) async fn list_pools(
    api: &Context,
    call: Call<ListPoolsRequest>,
) -> Result<ListPoolsResponse, Error> {
    let by = |pool: &Pool| {
        key([
            &pool.instance,
            &pool.server,
            &pool.database,
            &pool.user,
            &pool.pooler,
        ])
    };
    let entries = |shown: ShowPoolerResponse| shown.pools;
    let page = shown(api, &call, Section::Pools, entries, |pool| &pool.instance, by);
    let (pools, next_page_token, unreachable_poolers) = page.await?;
    Ok(ListPoolsResponse {
        pools,
        next_page_token,
        unreachable_poolers,
    })
}

/// SHOW CLIENTS.
pub(super) async fn list_clients(
    api: &Context,
    call: Call<ListClientsRequest>,
) -> Result<ListClientsResponse, Error> {
    let by = |client: &Client| key([&client.name, &client.pooler]);
    let entries = |shown: ShowPoolerResponse| shown.clients;
    let page = shown(
        api,
        &call,
        Section::Clients,
        entries,
        |client| &client.instance,
        by,
    );
    let (clients, next_page_token, unreachable_poolers) = page.await?;
    Ok(ListClientsResponse {
        clients,
        next_page_token,
        unreachable_poolers,
    })
}

/// SHOW SERVERS.
pub(super) async fn list_backends(
    api: &Context,
    call: Call<ListBackendsRequest>,
) -> Result<ListBackendsResponse, Error> {
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
    let entries = |shown: ShowPoolerResponse| shown.backends;
    let page = shown(
        api,
        &call,
        Section::Backends,
        entries,
        |backend| &backend.instance,
        by,
    );
    let (backends, next_page_token, unreachable_poolers) = page.await?;
    Ok(ListBackendsResponse {
        backends,
        next_page_token,
        unreachable_poolers,
    })
}

/// SHOW STATS.
pub(super) async fn list_stats(
    api: &Context,
    call: Call<ListStatsRequest>,
) -> Result<ListStatsResponse, Error> {
    // Of no use to those who do not see everybody's.
    access::everywhere(&call.caller, Permission::PoolsRead)?;
    let by = |stats: &DatabaseStats| key([&stats.instance, &stats.server, &stats.database, &stats.pooler]);
    let entries = |shown: ShowPoolerResponse| shown.stats;
    let page = shown(api, &call, Section::Stats, entries, |stats| &stats.instance, by);
    let (stats, next_page_token, unreachable_poolers) = page.await?;
    Ok(ListStatsResponse {
        stats,
        next_page_token,
        unreachable_poolers,
    })
}

/// The claims that wait.
pub(super) async fn list_waiters(
    api: &Context,
    call: Call<ListWaitersRequest>,
) -> Result<ListWaitersResponse, Error> {
    // Of no use to those who do not see everybody's.
    access::everywhere(&call.caller, Permission::PoolsRead)?;
    let by = |waiter: &Waiter| {
        let position = format!("{:010}", waiter.position);
        key([&waiter.instance, &position, &waiter.claimant, &waiter.pooler])
    };
    let entries = |shown: ShowPoolerResponse| shown.waiters;
    let page = shown(
        api,
        &call,
        Section::Waiters,
        entries,
        |waiter| &waiter.instance,
        by,
    );
    let (waiters, next_page_token, unreachable_poolers) = page.await?;
    Ok(ListWaitersResponse {
        waiters,
        next_page_token,
        unreachable_poolers,
    })
}
