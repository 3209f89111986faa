//! ListBudgets.

use std::collections::HashSet;

use domain::access::{Caller, Permission};
use rpc::pool::v1::{Budget, ListBudgetsRequest, ListBudgetsResponse};
use rpc::pooler::v1::Section;
use store::instances::{Instance, InstanceScope};
use store::{PageRequest, PageSize, StoreError};

use super::names;
use super::page::{PageOfList as _, key};
use crate::context::{Call, Context};
use crate::duration::timestamp;
use crate::error::Error;

/// The budgets of the instances the caller may see, also of those that no pooler owns.
pub(super) async fn list_budgets(
    api: &Context,
    call: Call<ListBudgetsRequest>,
) -> Result<ListBudgetsResponse, Error> {
    let wanted = call.message.wanted();
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Budgets).await?;
    let mut budgets: Vec<Budget> = asked
        .answers
        .into_iter()
        .flat_map(|shown| shown.budgets)
        .collect();
    let owned: HashSet<String> = budgets.iter().map(|budget| budget.instance.clone()).collect();
    let instances = visible_instances(api, &call.caller).await?;
    let unowned = instances.iter().map(without_owner);
    budgets.extend(unowned.filter(|budget| !owned.contains(&budget.instance)));
    let by = |budget: &Budget| key([&budget.instance, &budget.pooler]);
    let (budgets, next_page_token) = wanted.cut(&call.caller, budgets, |budget| &budget.instance, by)?;
    Ok(ListBudgetsResponse {
        budgets,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}

async fn visible_instances(api: &Context, caller: &Caller) -> Result<Vec<Instance>, StoreError> {
    let scope = if caller.may_everywhere(Permission::PoolsRead) {
        InstanceScope::All
    } else {
        InstanceScope::ServersOf(caller.user)
    };
    let mut request = PageRequest {
        size: PageSize::new(u32::MAX),
        after: None,
    };
    let mut instances = Vec::new();
    loop {
        let page = api.store.instances().list(scope, &request).await?;
        instances.extend(page.items);
        request.after = page.next;
        if request.after.is_none() {
            return Ok(instances);
        }
    }
}

/// The budget of an instance that nobody gives anything out of.
fn without_owner(instance: &Instance) -> Budget {
    Budget {
        max_connections: instance.budget.max_connections.into(),
        reserved_connections: instance.budget.reserved_connections.into(),
        paused: instance.pause_time.is_some(),
        pause_time: instance.pause_time.map(timestamp),
        instance: format!("instances/{}", instance.id),
        ..Budget::default()
    }
}
