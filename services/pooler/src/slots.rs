//! The ledger for tasks that wait: a claim becomes a [`Slot`], which gives back what it holds when it is dropped.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use domain::id::UserId;
use parking_lot::Mutex;
use std::collections::HashMap;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::ledger::{Budget, Changes, Claim, Claimed, Class, Ledger, PoolNumber, Refused, Ticket, Usage};

/// Holders named in a refusal.
const MOST_HOLDERS: usize = 20;

/// Why no slot was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SlotRefused {
    /// All connections are given out and the wait is over.
    #[error("all {} connections of the budget are in use and the wait of {}ms is over", view.budget.connections,
            waited.as_millis())]
    Exhausted {
        /// How long the caller waited.
        waited: Duration,
        /// The instance as the caller may see it.
        view: Box<View>,
    },
    /// The instance is paused and the wait is over.
    #[error("the instance is paused and the wait of {}ms is over", waited.as_millis())]
    Paused {
        /// How long the caller waited.
        waited: Duration,
    },
    /// The claim is larger than the budget.
    #[error("{wanted} connections were asked for and the budget allows {limit}")]
    TooMany {
        /// How many were asked for.
        wanted: u32,
        /// The most there can be.
        limit: u32,
    },
    /// Too many wait already, or too many of the caller's.
    #[error("{waiting} requests wait for a connection already, and the rest of the queue is kept for others")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
}

/// An instance's budget as one user may see it: counts of everybody, names of what is the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The budget.
    pub budget: Budget,
    /// What is given out.
    pub usage: Usage,
    /// How many claims wait.
    pub waiting: usize,
    /// What holds the user's own connections, at most twenty.
    pub own_holders: Vec<String>,
    /// How many connections the user holds.
    pub own_connections: u32,
}

/// A claim that waits.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// What it asks for.
    pub claim: Claim,
    /// How many come before it.
    pub position: usize,
    /// Since when it waits.
    pub since: Option<Instant>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    wakers: HashMap<Ticket, Waker>,
    /// Under what an absorbing instance counts what is held here.
    heirs: HashMap<Ticket, (Slots, Ticket)>,
    /// How long a claim waits before it may take what is reserved; nothing where it never may.
    reserve_after: Option<Duration>,
    /// Since when claims wait.
    since: HashMap<Ticket, Instant>,
    /// Until when the server is believed to have no more connections for us.
    ceiling_until: Option<Instant>,
    /// It turned out to be another instance, and gives out nothing any more.
    absorbed: bool,
}

/// The slots of one instance. Clones share them.
#[derive(Clone)]
pub struct Slots {
    state: Arc<Mutex<State>>,
    /// Rung when connections are wanted that nobody gives back by himself: somebody waits, or the budget was lowered.
    pressure: Arc<Notify>,
}

impl Slots {
    /// Slots of an instance with nothing given out.
    #[must_use]
    pub fn new(budget: Budget, pressure: Arc<Notify>) -> Self {
        let ledger = Ledger::new(budget);
        Self {
            state: Arc::new(Mutex::new(State {
                ledger,
                wakers: HashMap::new(),
                heirs: HashMap::new(),
                reserve_after: None,
                since: HashMap::new(),
                ceiling_until: None,
                absorbed: false,
            })),
            pressure,
        }
    }

    /// Waits for connections, at most until `deadline`.
    ///
    /// # Errors
    /// [`SlotRefused`]
    pub async fn acquire(&self, claim: Claim, deadline: Instant) -> Result<Slot, SlotRefused> {
        let began = Instant::now();
        let user = claim.user;
        let mut slot = self.claim(claim)?;
        match timeout_at(deadline, slot.granted()).await {
            Ok(Ok(())) => Ok(slot),
            Ok(Err(refused)) => Err(refused),
            Err(_) => Err(self.exhausted(user, began.elapsed())),
        }
    }

    /// Puts a claim in the queue, or gives it its connections at once: see [`Slot::granted`].
    ///
    /// # Errors
    /// [`SlotRefused`], but never for a wait that is over.
    pub fn claim(&self, claim: Claim) -> Result<Slot, SlotRefused> {
        let wanted = claim.count;
        let (claimed, reserve_after) = {
            let mut state = self.state.lock();
            let (claimed, changes) = state.ledger.claim(claim);
            state.wake(changes);
            if let Claimed::Waiting(ticket) = claimed {
                state.since.insert(ticket, Instant::now());
            }
            (claimed, state.reserve_after)
        };
        let promoted = reserve_after.and_then(|wait| Instant::now().checked_add(wait));
        match claimed {
            Claimed::Granted(ticket) => Ok(Slot {
                slots: self.clone(),
                ticket,
                granted: true,
                wanted,
                promoted: None,
                in_flight: None,
                looks: false,
            }),
            Claimed::Waiting(ticket) => {
                self.pressure.notify_one();
                Ok(Slot {
                    slots: self.clone(),
                    ticket,
                    granted: false,
                    wanted,
                    promoted,
                    in_flight: None,
                    looks: false,
                })
            }
            Claimed::Refused(Refused::TooMany { limit }) => Err(SlotRefused::TooMany { wanted, limit }),
            Claimed::Refused(Refused::QueueFull { waiting }) => Err(SlotRefused::QueueFull { waiting }),
        }
    }

    /// Changes the budget.
    pub fn set_budget(&self, budget: Budget) {
        let mut state = self.state.lock();
        if !state.absorbed && state.ledger.budget() != budget {
            let changes = state.ledger.set_budget(budget);
            state.wake(changes);
            self.pressure.notify_one();
        }
    }

    /// Gives nothing out while it is paused.
    pub fn set_paused(&self, paused: bool) {
        let mut state = self.state.lock();
        let changes = state.ledger.set_paused(paused);
        state.wake(changes);
    }

    /// Why a claim of `user` was given nothing when its wait was over.
    #[must_use]
    pub fn exhausted(&self, user: UserId, waited: Duration) -> SlotRefused {
        if self.state.lock().ledger.is_paused() {
            return SlotRefused::Paused { waited };
        }
        let view = Box::new(self.view(user));
        SlotRefused::Exhausted { waited, view }
    }

    /// The claims that wait, with their places in the queue.
    #[must_use]
    pub fn waiters(&self) -> Vec<Waiter> {
        let state = self.state.lock();
        let waiting = state.ledger.waiting_in_order().into_iter();
        let waiters = waiting.map(|(ticket, claim, position)| Waiter {
            claim: claim.clone(),
            position,
            since: state.since.get(&ticket).copied(),
        });
        waiters.collect()
    }

    /// Says how long a claim waits before it may take what is reserved; nothing where it never may. For claims to come.
    pub fn set_reserve_after(&self, wait: Option<Duration>) {
        self.state.lock().reserve_after = wait;
    }

    /// The server has no connections for us beyond those we have, less the one that it just refused: until then nobody is
    /// given another.
    pub fn lower_ceiling(&self, until: Instant) {
        let mut state = self.state.lock();
        state.ceiling_until = Some(until);
        let there = state.ledger.usage().total().saturating_sub(1);
        let changes = state.ledger.set_ceiling(Some(there));
        state.wake(changes);
        drop(state);
        self.pressure.notify_one();
    }

    /// Ends what [`Slots::lower_ceiling`] began, if its time is over.
    pub fn lift_ceiling(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.ceiling_until.is_some_and(|until| until <= now) {
            state.ceiling_until = None;
            let changes = state.ledger.set_ceiling(None);
            state.wake(changes);
        }
    }

    /// Counts so many connections of other poolers from now on.
    pub fn set_elsewhere(&self, connections: u32) {
        let mut state = self.state.lock();
        if state.ledger.elsewhere() != connections {
            let changes = state.ledger.set_elsewhere(connections);
            state.wake(changes);
            self.pressure.notify_one();
        }
    }

    /// A connection for a look, at once or not at all: see [`Ledger::look`].
    #[must_use]
    pub fn look(&self, claim: Claim, insist: bool) -> Option<Slot> {
        let wanted = claim.count;
        let ticket = self.state.lock().ledger.look(claim, insist)?;
        Some(Slot {
            slots: self.clone(),
            ticket,
            granted: true,
            wanted,
            promoted: None,
            in_flight: None,
            looks: true,
        })
    }

    /// Counts connections that are there already, whatever the budget says.
    #[must_use]
    pub fn adopt(&self, claim: Claim) -> Slot {
        let wanted = claim.count;
        Slot {
            slots: self.clone(),
            ticket: self.state.lock().ledger.adopt(claim),
            granted: true,
            wanted,
            promoted: None,
            in_flight: None,
            looks: false,
        }
    }

    /// How many connections claims for a pool hold.
    #[must_use]
    pub fn held_of_pool(&self, pool: PoolNumber) -> u32 {
        self.state.lock().ledger.held_of_pool(pool)
    }

    /// Counts here, too, what `younger` gave out, until it is released there: both turned out to be one instance. `younger`
    /// gives out nothing more, and who waits there is refused. Call it for the older of two only.
    pub fn absorb(&self, younger: &Self) {
        if Arc::ptr_eq(&self.state, &younger.state) {
            return;
        }
        let mut theirs = younger.state.lock();
        theirs.absorbed = true;
        let changes = theirs.ledger.set_budget(Budget {
            connections: 0,
            reserved: 0,
            ..Budget::DEFAULT
        });
        theirs.wake(changes);
        let held: Vec<_> = theirs
            .ledger
            .held()
            .filter(|(ticket, _)| !theirs.heirs.contains_key(ticket))
            .map(|(ticket, claim)| (ticket, claim.clone()))
            .collect();
        // The younger first, always: ages have an order.
        let mut ours = self.state.lock();
        for (ticket, claim) in held {
            let adopted = ours.ledger.adopt(claim);
            theirs.heirs.insert(ticket, (self.clone(), adopted));
        }
    }

    fn release(&self, ticket: Ticket) {
        let heir = {
            let mut state = self.state.lock();
            state.wakers.remove(&ticket);
            state.since.remove(&ticket);
            let changes = state.ledger.release(ticket);
            state.wake(changes);
            state.heirs.remove(&ticket)
        };
        if let Some((slots, ticket)) = heir {
            slots.release(ticket);
        }
    }

    /// How many connections somebody waits for, or were given out above the budget. No more than that need be given back.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let state = self.state.lock();
        let above = usize::try_from(state.ledger.above()).unwrap_or(usize::MAX);
        state.ledger.waiting_for_connections() + above
    }

    /// True where there are more connections, here and elsewhere, than the budget has.
    fn is_above(&self) -> bool {
        self.state.lock().ledger.above() > 0
    }

    /// How many claims wait, for a connection or for a place in their pool.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().ledger.waiting()
    }

    /// True where somebody waits for the connection of `slot` as it is, with a backend of `pool`. See [`Ledger::heir`].
    #[must_use]
    pub fn has_heir(&self, slot: &Slot, pool: PoolNumber) -> bool {
        self.state.lock().ledger.heir(slot.ticket, pool).is_some()
    }

    /// Gives the connection of `slot` to whoever waits for it as it is, and names them: `slot` holds nothing any more.
    #[must_use]
    pub fn hand_over(&self, slot: &Slot, pool: PoolNumber) -> Option<Ticket> {
        let mut state = self.state.lock();
        let heir = state.ledger.heir(slot.ticket, pool)?;
        let mut changes = state.ledger.hand_over(slot.ticket, heir);
        changes.granted.push(heir);
        state.wake(changes);
        Some(heir)
    }

    /// As [`Slot::position`].
    pub(crate) fn position(&self, ticket: Ticket) -> Option<usize> {
        self.state.lock().ledger.position(ticket)
    }

    /// Connections of other poolers that count.
    #[must_use]
    pub fn elsewhere(&self) -> u32 {
        self.state.lock().ledger.elsewhere()
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.state.lock().ledger.budget()
    }

    /// What is given out.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.state.lock().ledger.usage()
    }

    /// The budget as `user` may see it.
    #[must_use]
    pub fn view(&self, user: UserId) -> View {
        let state = self.state.lock();
        let ledger = &state.ledger;
        View {
            budget: ledger.budget(),
            usage: ledger.usage(),
            waiting: ledger.waiting(),
            own_holders: ledger
                .held_by(user)
                .take(MOST_HOLDERS)
                .map(|claim| claim.holder.clone())
                .collect(),
            own_connections: ledger.held_by(user).map(|claim| claim.count).sum(),
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl State {
    fn wake(&mut self, changes: Changes) {
        for ticket in changes.granted.into_iter().chain(changes.refused) {
            if let Some(waker) = self.wakers.remove(&ticket) {
                waker.wake();
            }
        }
    }
}

/// A claim on connections: waiting, then holding. Dropping it ends the wait or gives them back.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    ticket: Ticket,
    granted: bool,
    wanted: u32,
    /// When it may take what is reserved.
    promoted: Option<Instant>,
    /// What lets another connection be opened, while this one is not recorded.
    in_flight: Option<OwnedSemaphorePermit>,
    /// It is for a look at what others have, however much that is.
    looks: bool,
}

impl Slot {
    /// Waits until the connections are given. Returns at once where they are already. Cancel-safe.
    ///
    /// # Errors
    /// [`SlotRefused::TooMany`] where the budget became too small meanwhile.
    pub async fn granted(&mut self) -> Result<(), SlotRefused> {
        if self.granted {
            return Ok(());
        }
        if let Some(at) = self.promoted {
            if let Ok(granted) = timeout_at(at, self.poll_granted()).await {
                return granted;
            }
            self.promoted = None;
            let mut state = self.slots.state.lock();
            let changes = state.ledger.promote(self.ticket);
            state.wake(changes);
        }
        self.poll_granted().await
    }

    async fn poll_granted(&mut self) -> Result<(), SlotRefused> {
        let (slots, ticket, wanted) = (&self.slots, self.ticket, self.wanted);
        let granted = poll_fn(|cx| {
            let mut state = slots.state.lock();
            if state.ledger.position(ticket).is_some() {
                state.wakers.insert(ticket, cx.waker().clone());
                return Poll::Pending;
            }
            if state.ledger.holds(ticket) {
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(SlotRefused::TooMany {
                wanted,
                limit: state.ledger.budget().connections,
            }))
        })
        .await;
        self.granted = granted.is_ok();
        granted
    }

    /// True where it is for a look.
    #[must_use]
    pub fn is_look(&self) -> bool {
        self.looks
    }

    /// True where it may not be used any more: connections that others have were found since it was given.
    #[must_use]
    pub fn is_too_many(&self) -> bool {
        !self.looks && self.slots.is_above()
    }

    /// Holds `permit` while what it counts is being opened.
    pub(crate) fn takes_off(&mut self, permit: OwnedSemaphorePermit) {
        self.in_flight = Some(permit);
    }

    /// What it was given by [`Slot::takes_off`].
    pub(crate) fn lands(&mut self) -> Option<OwnedSemaphorePermit> {
        self.in_flight.take()
    }

    /// The claim's name in the ledger.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// For whom it was claimed.
    pub(crate) fn user(&self) -> Option<UserId> {
        self.slots.state.lock().ledger.claimant(self.ticket)
    }

    /// Counts its connections under another class.
    pub fn reclassify(&self, class: Class) {
        let mut state = self.slots.state.lock();
        let changes = state.ledger.reclassify(self.ticket, class);
        state.wake(changes);
    }

    /// How many claims come before this one; nothing once it is given.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.slots.position(self.ticket)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.release(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn claim(count: u32) -> Claim {
        Claim {
            user: UserId::from_uuid(Uuid::nil()),
            class: Class::Pinned,
            count,
            holder: "a session".to_owned(),
            pool: None,
        }
    }

    fn slots() -> Slots {
        let budget = Budget {
            connections: 1,
            reserved: 0,
            ..Budget::DEFAULT
        };
        Slots::new(budget, Arc::default())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[tokio::test]
    async fn dropped_slot_goes_to_the_one_who_waits() {
        let slots = slots();
        let held = slots.acquire(claim(1), soon()).await.unwrap();
        let mut waiting = slots.claim(claim(1)).unwrap();
        assert_eq!(waiting.position(), Some(0));
        let (granted, ()) = tokio::join!(waiting.granted(), async { drop(held) });
        granted.unwrap();
        drop(waiting);
        assert_eq!(slots.usage().total(), 0);
    }

    #[tokio::test]
    async fn wait_that_is_over_names_the_callers_own_holders() {
        let slots = slots();
        let _held = slots.acquire(claim(1), soon()).await.unwrap();
        let refused = slots.acquire(claim(1), soon()).await.unwrap_err();
        let SlotRefused::Exhausted { view, .. } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(
            (view.own_holders, view.own_connections),
            (vec!["a session".to_owned()], 1)
        );
        assert_eq!(
            slots.view(UserId::from_uuid(Uuid::max())).own_holders,
            [] as [&str; 0]
        );
        assert_eq!(slots.view(UserId::from_uuid(Uuid::nil())).waiting, 0);
    }

    #[tokio::test]
    async fn absorbed_connections_count_until_they_are_released() {
        let (older, younger) = (slots(), slots());
        let held = younger.acquire(claim(1), soon()).await.unwrap();
        let mut waiting = younger.claim(claim(1)).unwrap();
        older.absorb(&younger);
        older.absorb(&younger);
        assert_eq!(older.usage().total(), 1);
        assert!(matches!(
            waiting.granted().await,
            Err(SlotRefused::TooMany { .. })
        ));
        older.acquire(claim(1), soon()).await.unwrap_err();
        drop(held);
        assert_eq!((older.usage().total(), younger.usage().total()), (0, 0));
        older.acquire(claim(1), soon()).await.unwrap();
    }

    #[tokio::test]
    async fn connection_is_handed_to_the_one_who_waits_for_it_as_it_is() {
        let slots = slots();
        let pool = PoolNumber(7);
        let of_pool = || Claim {
            pool: Some(pool),
            class: Class::Interactive,
            ..claim(1)
        };
        let held = slots.acquire(of_pool(), soon()).await.unwrap();
        assert_eq!(slots.wanted(), 0);
        let mut waiting = slots.claim(of_pool()).unwrap();
        assert_eq!(slots.wanted(), 1);
        assert_eq!(slots.hand_over(&held, PoolNumber(8)), None);
        assert_eq!(slots.hand_over(&held, pool), Some(waiting.ticket()));
        waiting.granted().await.unwrap();
        drop(held);
        assert_eq!(slots.usage().total(), 1);
        drop(waiting);
        assert_eq!(slots.usage().total(), 0);
    }

    #[tokio::test]
    async fn budget_that_becomes_too_small_ends_the_wait() {
        let budget = Budget {
            connections: 2,
            reserved: 0,
            ..Budget::DEFAULT
        };
        let slots = Slots::new(budget, Arc::default());
        let _held = slots.acquire(claim(1), soon()).await.unwrap();
        let mut waiting = slots.claim(claim(2)).unwrap();
        let (refused, ()) = tokio::join!(waiting.granted(), async {
            slots.set_budget(Budget {
                connections: 1,
                reserved: 0,
                ..Budget::DEFAULT
            });
        });
        assert_eq!(refused, Err(SlotRefused::TooMany { wanted: 2, limit: 1 }));
    }
}
