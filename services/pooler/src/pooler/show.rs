//! What a pooler shows of itself: the rows of SHOW POOLS, CLIENTS, SERVERS and STATS, and of our own lists.
//!
//! Invariant: a member sees what is theirs, and of others numbers only.

mod backends;
mod clients;
mod figures;
mod pools;

use std::collections::HashSet;

use ::sessions::UserToken;
use domain::access::Permission;
use domain::id::{InstanceId, UserId};
use rpc::pool::v1 as proto;
use rpc::pooler::v1::{Section, ShowPoolerResponse};
use store::{PageRequest, PageSize};

pub(crate) use self::figures::{BudgetFigures, Figures, Place, PoolFigures, StatFigures};
use super::Pooler;
use crate::error::PoolerError;
use crate::instances::Instance;
use crate::ledger::Class;
use crate::status::store_error;
use crate::timestamp::timestamp;

/// Who looks.
#[derive(Debug, Clone, Copy)]
enum Viewer {
    /// Somebody who sees everything.
    Everything,
    /// Somebody who sees what is theirs.
    Own(UserId),
}

impl Viewer {
    fn sees(self, owner: UserId) -> bool {
        match self {
            Self::Everything => true,
            Self::Own(user) => user == owner,
        }
    }
}

impl Pooler {
    /// A part of what the caller may see.
    pub(crate) async fn show_section(
        &self,
        token: &UserToken,
        section: Section,
    ) -> Result<ShowPoolerResponse, PoolerError> {
        let caller = self.caller(token, Permission::PoolsRead).await?;
        let everything = caller.may_everywhere(Permission::PoolsRead);
        let viewer = if everything {
            Viewer::Everything
        } else {
            Viewer::Own(caller.user)
        };
        let mut shown = ShowPoolerResponse::default();
        match section {
            Section::Unspecified => {}
            Section::Pools => shown.pools = self.show_pools(viewer),
            Section::Clients => shown.clients = self.show_clients(viewer),
            Section::Backends => shown.backends = self.show_backends(viewer),
            Section::Stats => shown.stats = self.show_stats(viewer),
            Section::Budgets => {
                let own = match viewer {
                    Viewer::Everything => None,
                    Viewer::Own(user) => Some(self.instances_of(user).await?),
                };
                shown.budgets = self.show_budgets(caller.user, own.as_ref());
            }
            Section::Waiters if everything => shown.waiters = self.show_waiters(),
            Section::Pooler if everything => shown.pooler = Some(self.show_pooler()),
            Section::Waiters | Section::Pooler => {}
        }
        Ok(shown)
    }

    /// The instances on which a user has a server.
    async fn instances_of(&self, user: UserId) -> Result<HashSet<InstanceId>, PoolerError> {
        let mut request = PageRequest {
            size: PageSize::new(u32::MAX),
            after: None,
        };
        let mut instances = HashSet::new();
        loop {
            let page = self.0.store.servers().list(user, &request).await;
            let page = page.map_err(store_error)?;
            instances.extend(page.items.iter().map(|server| server.instance_id));
            request.after = page.next;
            if request.after.is_none() {
                return Ok(instances);
            }
        }
    }

    /// The instances this pooler has to do with now, the merged ones under what they turned out to be.
    fn kept(&self) -> impl Iterator<Item = std::sync::Arc<Instance>> {
        let all = self.0.instances.all().into_iter();
        all.filter(|instance| {
            let slots = &instance.slots;
            let in_use = instance.is_ours() || slots.usage().total() > 0 || slots.waiting() > 0;
            in_use && self.0.instances.current(instance.id) == instance.id
        })
    }

    fn show_budgets(&self, user: UserId, own: Option<&HashSet<InstanceId>>) -> Vec<proto::Budget> {
        let visible = self
            .kept()
            .filter(|instance| own.is_none_or(|own| own.contains(&instance.id)));
        let budget = |instance: std::sync::Arc<Instance>| {
            let view = instance.slots.view(user);
            let pause_time = instance.pause_time();
            proto::Budget {
                max_connections: count(view.budget.connections),
                current_connections: count(view.usage.total()),
                paused: pause_time.is_some(),
                instance: format!("instances/{}", instance.id),
                pooler: self.name(),
                reserved_connections: count(view.budget.reserved),
                interactive_connections: count(view.usage.interactive),
                pinned_connections: count(view.usage.pinned),
                worker_connections: count(view.usage.worker),
                monitoring_connections: count(view.usage.monitoring),
                waiting: count(view.waiting),
                own_connections: count(view.own_connections),
                pause_time: pause_time.map(timestamp),
                elsewhere_connections: count(instance.slots.elsewhere()),
            }
        };
        visible.map(budget).collect()
    }

    fn show_waiters(&self) -> Vec<proto::Waiter> {
        let now = self.0.clock.now();
        let mut shown = Vec::new();
        for instance in self.kept() {
            for waiter in instance.slots.waiters() {
                let claim = waiter.claim;
                let server = claim.holder.strip_prefix("servers/");
                let server = server.and_then(|rest| rest.split('/').next());
                let class = match claim.class {
                    Class::Interactive => proto::ConnectionClass::Interactive,
                    Class::Pinned => proto::ConnectionClass::Pinned,
                    Class::Worker => proto::ConnectionClass::Worker,
                    Class::Monitoring => proto::ConnectionClass::Monitoring,
                };
                shown.push(proto::Waiter {
                    instance: format!("instances/{}", instance.id),
                    user: format!("users/{}", claim.user),
                    server: server.map(|id| format!("servers/{id}")).unwrap_or_default(),
                    claimant: claim.holder,
                    connection_class: class.into(),
                    count: count(claim.count),
                    wait_start_time: waiter.since.map(|since| timestamp(now - since.elapsed())),
                    position: count(waiter.position),
                    pooler: self.name(),
                });
            }
        }
        shown
    }

    fn show_pooler(&self) -> proto::Pooler {
        let state = if self.takes_new().is_ok() {
            proto::PoolerState::Serving
        } else {
            proto::PoolerState::Draining
        };
        let owned = self.0.instances.all().into_iter();
        let owned = owned.filter(|instance| instance.is_ours());
        let mut instances: Vec<_> = owned
            .map(|instance| format!("instances/{}", instance.id))
            .collect();
        instances.sort_unstable();
        proto::Pooler {
            name: self.name(),
            incarnation: self.incarnation().to_string(),
            address: self.0.options.address.clone(),
            state: state.into(),
            instances,
            sessions: count(self.session_count()),
            scripts: count(self.0.scripts.len()),
            backends: count(self.0.roster.len()),
            start_time: Some(timestamp(self.0.start_time)),
        }
    }

    fn name(&self) -> String {
        format!("poolers/{}", self.id())
    }

    /// An instance by the name it goes by now.
    fn instance_name(&self, id: InstanceId) -> String {
        format!("instances/{}", self.0.instances.current(id))
    }
}

/// A number as the contract has it.
fn count<N: TryInto<i32>>(number: N) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// A sum as the contract has it.
fn sum(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
