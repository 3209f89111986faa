//! ListPoolers.

use domain::access::Permission;
use rpc::pool::v1::{ListPoolersRequest, ListPoolersResponse, Pooler, PoolerState};
use rpc::pooler::v1::Section;

use super::names;
use super::page::Wanted;
use crate::access;
use crate::context::{Call, Context};
use crate::error::Error;

/// The registered poolers: what each says of itself, and of those that say nothing what the config database does.
pub(super) async fn list_poolers(
    api: &Context,
    call: Call<ListPoolersRequest>,
) -> Result<ListPoolersResponse, Error> {
    // Of no use to those who do not see everybody's.
    access::everywhere(&call.caller, Permission::PoolsRead)?;
    let wanted = Wanted {
        method: "ListPoolers",
        page_size: call.message.page_size,
        page_token: &call.message.page_token,
        instance: "",
    };
    wanted.check()?;
    let asked = api.pools.show(&call.token, Section::Pooler).await?;
    let mut poolers: Vec<Pooler> = asked
        .answers
        .into_iter()
        .filter_map(|shown| shown.pooler)
        .collect();
    if !asked.unreachable.is_empty() {
        let directory = api.store.directory().await?;
        for pooler in directory.poolers {
            if !asked.unreachable.contains(&pooler.id) {
                continue;
            }
            let owned = directory.owners.iter().filter(|(_, owner)| *owner == pooler.id);
            poolers.push(Pooler {
                name: format!("poolers/{}", pooler.id),
                incarnation: pooler.incarnation.to_string(),
                address: pooler.address,
                state: PoolerState::Unreachable.into(),
                instances: owned
                    .map(|(instance, _)| format!("instances/{instance}"))
                    .collect(),
                ..Pooler::default()
            });
        }
    }
    let by = |pooler: &Pooler| {
        let number = pooler.name.strip_prefix("poolers/").unwrap_or_default();
        format!("{number:0>10}")
    };
    let (poolers, next_page_token) = wanted.cut(&call.caller, poolers, |_| "", by)?;
    Ok(ListPoolersResponse {
        poolers,
        next_page_token,
        unreachable_poolers: names(&asked.unreachable),
    })
}
