//! Who may have how many of one instance's connections, and who waits for one.
//!
//! A state machine without IO: every transition returns what it changed. Invariants: never more than the budget is
//! given out by a claim; a claim that waits is given its connections as soon as everybody before it was; nothing that
//! was given is lost before it is released.
//!
//! Claims of one user are served in the order they came; between users one connection is given in turn (deficit round
//! robin: M. Shreedhar, G. Varghese, SIGCOMM 1995), so that a user with a hundred claims delays nobody else by more
//! than one. Only a connection that one claim hands over to the next of the same user leaves the turns as they are, and
//! only while that user has no more than a fair share. A claim for several connections, all or none, holds back those after it until they are free.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use domain::id::UserId;

/// What connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A script, or a session that needs no connection of its own.
    Interactive,
    /// A session that keeps its connection.
    Pinned,
    /// Programs of a worker.
    Worker,
    /// Our own questions to the instance.
    Monitoring,
}

impl Class {
    /// True for classes that may also take what is reserved.
    fn may_take_reserve(self) -> bool {
        matches!(self, Self::Worker | Self::Monitoring)
    }
}

/// How many connections an instance may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Connections in all.
    pub connections: u32,
    /// Of these, how many interactive and pinned claims leave to the other classes, until they have waited long.
    pub reserved: u32,
    /// Most that claims of [`Class::Pinned`] take. 0: no limit of their own.
    pub most_pinned: u32,
    /// Most that claims for one pool hold. 0: no limit of its own.
    pub pool_size: u32,
    /// Most claims that wait at a time.
    pub most_waiting: usize,
}

impl Budget {
    /// 15 and a reserve of 5.
    pub const DEFAULT: Self = Self {
        connections: 20,
        reserved: 5,
        most_pinned: 0,
        pool_size: 0,
        most_waiting: 5000,
    };

    /// The most a claim can ever be given.
    fn most(&self, claim: &Claim) -> u32 {
        let limit = self.limit(claim.class);
        match claim.pool {
            Some(_) if self.pool_size > 0 => limit.min(self.pool_size),
            _ => limit,
        }
    }

    /// Where several connections are reserved, the last is kept for a [`Ledger::look`].
    fn kept_for_looks(&self) -> u32 {
        u32::from(self.reserved > 1 && self.connections > 1)
    }

    /// What there is for claims.
    fn claimable(&self) -> u32 {
        self.connections - self.kept_for_looks()
    }

    fn limit(&self, class: Class) -> u32 {
        let shared = self.connections.saturating_sub(self.reserved);
        match class {
            Class::Worker | Class::Monitoring => self.claimable(),
            Class::Pinned if self.most_pinned > 0 => shared.min(self.most_pinned),
            Class::Pinned | Class::Interactive => shared,
        }
    }
}

/// Names a claim from the moment it is made until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A wish for connections, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub user: UserId,
    /// What for.
    pub class: Class,
    /// How many, at least one.
    pub count: u32,
    /// What holds them, for example a session's name. Shown to the same user only.
    pub holder: String,
    /// The pool whose backends would do as they are. Nothing where only a new connection does.
    pub pool: Option<PoolNumber>,
}

/// Names a pool: backends that differ only in what their last session left there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolNumber(pub u64);

/// How many connections are given out, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// For scripts.
    pub interactive: u32,
    /// For sessions.
    pub pinned: u32,
    /// For workers.
    pub worker: u32,
    /// For ourselves.
    pub monitoring: u32,
}

impl Usage {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.interactive + self.pinned + self.worker + self.monitoring
    }

    fn without_reserve(&self) -> u32 {
        self.interactive + self.pinned
    }

    fn of(&mut self, class: Class) -> &mut u32 {
        match class {
            Class::Interactive => &mut self.interactive,
            Class::Pinned => &mut self.pinned,
            Class::Worker => &mut self.worker,
            Class::Monitoring => &mut self.monitoring,
        }
    }
}

/// Why a claim is turned away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// More than the budget will ever hold for this class.
    TooMany {
        /// The most there can be.
        limit: u32,
    },
    /// So many claims wait already.
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It has its connections.
    Granted(Ticket),
    /// It waits.
    Waiting(Ticket),
    /// It was turned away.
    Refused(Refused),
}

/// What a transition changed for claims that waited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// These have their connections now.
    pub granted: Vec<Ticket>,
    /// These were turned away: the budget became too small for them.
    pub refused: Vec<Ticket>,
}

/// Whose turn it is.
enum Turn {
    Of(Ticket),
    /// Of one who waits for several connections, and it takes several turns to tell.
    Unclear,
    /// Nobody waits for a connection.
    Nobodys,
}

/// Claims of one user wait in one queue for each kind of limit.
type QueueKey = (UserId, bool);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Ticket>,
    /// Connections this queue may still take in its turn.
    deficit: u32,
    /// Its turn has begun.
    in_turn: bool,
}

/// The ledger of one instance.
#[derive(Debug)]
pub struct Ledger {
    budget: Budget,
    /// What the server has for us, where that is known to be less.
    ceiling: Option<u32>,
    /// Connections that other poolers have or may have, and that count as ours do.
    elsewhere: u32,
    /// Nothing is given out.
    paused: bool,
    next: u64,
    usage: Usage,
    held: BTreeMap<Ticket, Claim>,
    waiting: HashMap<Ticket, Claim>,
    /// Of those, the ones that have waited so long that they may take what is reserved.
    aged: HashSet<Ticket>,
    queues: HashMap<QueueKey, Queue>,
    /// Whose turn it is, then who follows. Holds the keys of `queues`.
    turns: VecDeque<QueueKey>,
}

impl Ledger {
    /// A ledger with nothing given out. Nobody adds to those who wait who has more waiting than places are left: so one
    /// user alone never fills the queue for the others.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            ceiling: None,
            elsewhere: 0,
            paused: false,
            next: 0,
            usage: Usage::default(),
            held: BTreeMap::new(),
            waiting: HashMap::new(),
            aged: HashSet::new(),
            queues: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Asks for connections. Others may be given theirs by that: a pool that it fills up may be what the first of a queue
    /// waited for, and those after it pass.
    pub fn claim(&mut self, claim: Claim) -> (Claimed, Changes) {
        let limit = self.budget.most(&claim);
        if claim.count > limit || claim.count == 0 {
            return (Claimed::Refused(Refused::TooMany { limit }), Changes::default());
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let key = (claim.user, claim.class.may_take_reserve());
        self.waiting.insert(ticket, claim);
        let queue = self.queues.entry(key).or_default();
        if queue.waiting.is_empty() {
            self.turns.push_back(key);
        }
        queue.waiting.push_back(ticket);
        let mut changes = Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        };
        changes.granted.retain(|granted| *granted != ticket);
        if self.holds(ticket) {
            return (Claimed::Granted(ticket), changes);
        }
        let others = self.waiting.len() - 1;
        let free = self.budget.most_waiting.saturating_sub(others);
        if free == 0 || self.waiting_of(key.0) - 1 > free {
            self.remove_waiting(ticket);
            return (Claimed::Refused(Refused::QueueFull { waiting: others }), changes);
        }
        (Claimed::Waiting(ticket), changes)
    }

    /// Claims of one user that wait.
    fn waiting_of(&self, user: UserId) -> usize {
        let queues = [(user, false), (user, true)].map(|key| self.queues.get(&key));
        queues
            .into_iter()
            .flatten()
            .map(|queue| queue.waiting.len())
            .sum()
    }

    /// Lets a claim that waits take what is reserved. It keeps its place among those of its user that may.
    pub fn promote(&mut self, ticket: Ticket) -> Changes {
        let Some(claim) = self.waiting.get(&ticket).cloned() else {
            return Changes::default();
        };
        if claim.class.may_take_reserve() || self.aged.contains(&ticket) {
            return Changes::default();
        }
        self.remove_waiting(ticket);
        let key = (claim.user, true);
        self.waiting.insert(ticket, claim);
        self.aged.insert(ticket);
        let queue = self.queues.entry(key).or_default();
        if queue.waiting.is_empty() {
            self.turns.push_back(key);
        }
        let place = queue.waiting.partition_point(|other| *other < ticket);
        queue.waiting.insert(place, ticket);
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    fn key(&self, ticket: Ticket, claim: &Claim) -> QueueKey {
        (
            claim.user,
            claim.class.may_take_reserve() || self.aged.contains(&ticket),
        )
    }

    /// Gives back what a claim holds, or ends its wait. A ticket that is neither changes nothing.
    pub fn release(&mut self, ticket: Ticket) -> Changes {
        if let Some(claim) = self.held.remove(&ticket) {
            *self.usage.of(claim.class) -= claim.count;
        } else if self.waiting.contains_key(&ticket) {
            self.remove_waiting(ticket);
        } else {
            return Changes::default();
        }
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    /// Counts what a claim holds under another class from now on.
    pub fn reclassify(&mut self, ticket: Ticket, class: Class) -> Changes {
        let Some(claim) = self.held.get_mut(&ticket) else {
            return Changes::default();
        };
        *self.usage.of(claim.class) -= claim.count;
        *self.usage.of(class) += claim.count;
        claim.class = class;
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    /// The claim that may have the connection of `ticket` as it is, with a backend of `pool`: the next in turn, or the
    /// user's own next one where the user holds no more than a fair share. So users who keep to their share are not made
    /// to close and open connections for each other. Nobody where the budget was lowered and must be reached first.
    #[must_use]
    pub fn heir(&self, ticket: Ticket, pool: PoolNumber) -> Option<Ticket> {
        let of_session = |claim: &&Claim| claim.count == 1 && !claim.class.may_take_reserve();
        let holder = self.held.get(&ticket).filter(of_session)?;
        if self.paused || self.above() > 0 {
            return None;
        }
        // While sessions hold what is reserved, only those take over who may.
        let over = self.usage.without_reserve() + self.elsewhere > self.budget.limit(Class::Interactive);
        let fits = |ticket: &Ticket| {
            let claim = self.waiting.get(ticket);
            claim.is_some_and(|claim| {
                claim.user == holder.user
                    && claim.pool == Some(pool)
                    && claim.count == 1
                    && claim.class == Class::Interactive
                    && (!over || self.aged.contains(ticket))
            })
        };
        // Those that have waited long come first.
        let own = [true, false].into_iter().find_map(|reserve| {
            let queue = self.queues.get(&(holder.user, reserve))?;
            let first = queue
                .waiting
                .iter()
                .find(|ticket| fits(ticket) || !self.is_blocked(**ticket));
            first.copied().filter(fits)
        })?;
        let is_next = match self.next_without_one() {
            Turn::Of(next) => next == own,
            // The others wait for a place in a full pool, as this one does.
            Turn::Nobodys => true,
            Turn::Unclear => false,
        };
        (is_next || self.is_within_share(holder.user)).then_some(own)
    }

    /// Gives the connection of `from` to `to`, which waits.
    pub fn hand_over(&mut self, from: Ticket, to: Ticket) -> Changes {
        let Some(claim) = self.waiting.get(&to).cloned() else {
            return Changes::default();
        };
        let Some(before) = self.held.remove(&from) else {
            return Changes::default();
        };
        *self.usage.of(before.class) -= before.count;
        let key = self.key(to, &claim);
        let in_turn = self.turns.front() == Some(&key);
        self.remove_waiting(to);
        if in_turn && self.turns.front() == Some(&key) {
            self.turns.rotate_left(1);
        }
        *self.usage.of(claim.class) += claim.count;
        self.held.insert(to, claim);
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    /// Who would be served if a session gave its connection back.
    fn next_without_one(&self) -> Turn {
        let without_reserve = (self.usage.without_reserve() + self.elsewhere).saturating_sub(1);
        let mut anybody = false;
        for key in &self.turns {
            let (Some((ticket, count, _)), Some(queue)) = (self.head(*key), self.queues.get(key)) else {
                continue;
            };
            anybody = true;
            if !key.1 && without_reserve + count > self.budget.limit(Class::Interactive) {
                continue;
            }
            if queue.deficit + u32::from(!queue.in_turn) >= count {
                return Turn::Of(ticket);
            }
        }
        if anybody { Turn::Unclear } else { Turn::Nobodys }
    }

    /// True where a user holds no more than each user would if all who hold or want connections had as many.
    fn is_within_share(&self, user: UserId) -> bool {
        let of_sessions = |claim: &&Claim| !claim.class.may_take_reserve();
        let holders = self.held.values().filter(of_sessions).map(|claim| claim.user);
        let waiters = self.waiting.values().filter(of_sessions).map(|claim| claim.user);
        let users: HashSet<UserId> = holders.chain(waiters).collect();
        let held: u32 = self
            .held_by(user)
            .filter(of_sessions)
            .map(|claim| claim.count)
            .sum();
        let users = u32::try_from(users.len()).unwrap_or(u32::MAX).max(1);
        held <= self.budget.limit(Class::Interactive).div_ceil(users)
    }

    /// Counts connections that are there already, whatever the budget says.
    pub fn adopt(&mut self, claim: Claim) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        *self.usage.of(claim.class) += claim.count;
        self.held.insert(ticket, claim);
        ticket
    }

    /// Everything that is given out, oldest first.
    pub fn held(&self) -> impl Iterator<Item = (Ticket, &Claim)> {
        self.held.iter().map(|(ticket, claim)| (*ticket, claim))
    }

    /// Changes the budget. What is given out above it stays with its holders until they release it.
    pub fn set_budget(&mut self, budget: Budget) -> Changes {
        self.budget = budget;
        let mut refused: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, claim)| claim.count > budget.most(claim))
            .map(|(ticket, _)| *ticket)
            .collect();
        refused.sort_unstable();
        for ticket in &refused {
            self.remove_waiting(*ticket);
        }
        Changes {
            granted: self.dispatch(),
            refused,
        }
    }

    /// Gives out no more than this many connections for now, whatever the budget says. Who waits goes on waiting.
    pub fn set_ceiling(&mut self, ceiling: Option<u32>) -> Changes {
        self.ceiling = ceiling;
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    /// Counts so many connections of other poolers from now on.
    pub fn set_elsewhere(&mut self, connections: u32) -> Changes {
        self.elsewhere = connections;
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    /// Gives nothing out while it is paused, not even from one claim to the next. Who waits goes on waiting.
    pub fn set_paused(&mut self, paused: bool) -> Changes {
        self.paused = paused;
        Changes {
            granted: self.dispatch(),
            refused: Vec::new(),
        }
    }

    /// Connections of other poolers.
    #[must_use]
    pub fn elsewhere(&self) -> u32 {
        self.elsewhere
    }

    /// How many connections there are beyond the budget.
    #[must_use]
    pub fn above(&self) -> u32 {
        (self.usage.total() + self.elsewhere).saturating_sub(self.budget.connections)
    }

    /// A connection to look after what other poolers left, which is given at once or not at all. Where several are reserved
    /// there is one for it, whatever is counted elsewhere: every owner leaves it free for this. `insist`: where not, what is
    /// counted may be long gone, and only a look tells.
    pub fn look(&mut self, claim: Claim, insist: bool) -> Option<Ticket> {
        let free = self.usage.total() + self.elsewhere < self.budget.connections;
        let looking = self.usage.monitoring > 0;
        let may = !looking && (free || insist || self.budget.kept_for_looks() > 0);
        may.then(|| self.adopt(claim))
    }

    /// True while nothing is given out.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// For whom something is held or waited for.
    #[must_use]
    pub fn claimant(&self, ticket: Ticket) -> Option<UserId> {
        let claim = self.held.get(&ticket).or_else(|| self.waiting.get(&ticket));
        claim.map(|claim| claim.user)
    }

    /// The claims that wait, with how many come before each: see [`Ledger::position`]. First come first.
    #[must_use]
    pub fn waiting_in_order(&self) -> Vec<(Ticket, &Claim, usize)> {
        let lengths: Vec<usize> = self
            .turns
            .iter()
            .map(|key| self.queues.get(key).map_or(0, |queue| queue.waiting.len()))
            .collect();
        let mut all = Vec::with_capacity(self.waiting.len());
        for (turn, key) in self.turns.iter().enumerate() {
            let Some(queue) = self.queues.get(key) else {
                continue;
            };
            for (own, ticket) in queue.waiting.iter().enumerate() {
                let Some(claim) = self.waiting.get(ticket) else {
                    continue;
                };
                let others = lengths.iter().enumerate().filter(|(other, _)| *other != turn);
                let before = others.map(|(other, length)| (*length).min(own + usize::from(other < turn)));
                all.push((*ticket, claim, own + before.sum::<usize>()));
            }
        }
        all.sort_by_key(|(ticket, _, position)| (*position, *ticket));
        all
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// What is given out.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How many claims wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// True where the claim has its connections.
    #[must_use]
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.held.contains_key(&ticket)
    }

    /// What a user's claims hold, oldest first.
    pub fn held_by(&self, user: UserId) -> impl Iterator<Item = &Claim> {
        self.held.values().filter(move |claim| claim.user == user)
    }

    /// How many claims come before a waiting one, counting a claim for several connections as one turn.
    #[must_use]
    pub fn position(&self, ticket: Ticket) -> Option<usize> {
        let key = self.key(ticket, self.waiting.get(&ticket)?);
        let own = self
            .queues
            .get(&key)?
            .waiting
            .iter()
            .position(|waiting| *waiting == ticket)?;
        let turn = self.turns.iter().position(|turn| *turn == key)?;
        let others = self
            .turns
            .iter()
            .enumerate()
            .filter(|(_, other)| **other != key)
            .map(|(index, other)| {
                let rounds = own + usize::from(index < turn);
                self.queues
                    .get(other)
                    .map_or(0, |queue| queue.waiting.len().min(rounds))
            });
        Some(own + others.sum::<usize>())
    }

    /// Gives out what is free, in turn.
    fn dispatch(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        if self.paused {
            return granted;
        }
        // Once a claim waits for what others than workers may take, those after it wait too; workers go on.
        let mut only_reserve = false;
        // Whose claims all wait for something else than a connection.
        let mut blocked: HashSet<QueueKey> = HashSet::new();
        while let Some(index) = self
            .turns
            .iter()
            .position(|key| (key.1 || !only_reserve) && !blocked.contains(key))
        {
            let key = self.turns[index];
            let Some((ticket, count, class)) = self.head(key) else {
                blocked.insert(key);
                continue;
            };
            let connections = self.budget.claimable().min(self.ceiling.unwrap_or(u32::MAX));
            let used = self.used();
            let Some(queue) = self.queues.get_mut(&key) else {
                blocked.insert(key);
                continue;
            };
            if !queue.in_turn {
                queue.in_turn = true;
                queue.deficit += 1;
            }
            if queue.deficit < count {
                queue.in_turn = false;
                self.turns.remove(index);
                self.turns.push_back(key);
                continue;
            }
            if used + self.elsewhere + count > connections {
                break;
            }
            let shared = self.budget.limit(Class::Interactive);
            if !key.1 && self.usage.without_reserve() + self.elsewhere + count > shared {
                only_reserve = true;
                continue;
            }
            queue.deficit -= count;
            queue.waiting.retain(|waiting| *waiting != ticket);
            queue.in_turn = false;
            self.turns.remove(index);
            if queue.waiting.is_empty() {
                self.queues.remove(&key);
            } else {
                self.turns.push_back(key);
            }
            self.aged.remove(&ticket);
            if let Some(claim) = self.waiting.remove(&ticket) {
                *self.usage.of(class) += count;
                self.held.insert(ticket, claim);
                granted.push(ticket);
                // What is given changes what others wait for.
                only_reserve = false;
                blocked.clear();
            }
        }
        granted
    }

    /// What counts against claims: a look does not where a connection is kept for it.
    fn used(&self) -> u32 {
        self.usage.total() - self.usage.monitoring.min(self.budget.kept_for_looks())
    }

    /// The first claim of a queue that waits for nothing but a connection.
    fn head(&self, key: QueueKey) -> Option<(Ticket, u32, Class)> {
        let mut waiting = self.queues.get(&key)?.waiting.iter();
        let ticket = *waiting.find(|ticket| !self.is_blocked(**ticket))?;
        let claim = self.waiting.get(&ticket)?;
        Some((ticket, claim.count, claim.class))
    }

    /// True where a claim waits until its pool, or PINNED sessions, have fewer connections.
    fn is_blocked(&self, ticket: Ticket) -> bool {
        let (pinned, size) = (self.budget.most_pinned, self.budget.pool_size);
        if pinned == 0 && size == 0 {
            return false;
        }
        let Some(claim) = self.waiting.get(&ticket) else {
            return false;
        };
        let too_many_pins =
            pinned > 0 && claim.class == Class::Pinned && self.usage.pinned + claim.count > pinned;
        let pool = claim.pool.filter(|_| size > 0);
        too_many_pins || pool.is_some_and(|pool| self.held_of_pool(pool) + claim.count > size)
    }

    /// How many connections claims for a pool hold.
    #[must_use]
    pub fn held_of_pool(&self, pool: PoolNumber) -> u32 {
        let of_pool = self.held.values().filter(|claim| claim.pool == Some(pool));
        of_pool.map(|claim| claim.count).sum()
    }

    /// How many claims wait for nothing but a connection.
    #[must_use]
    pub fn waiting_for_connections(&self) -> usize {
        if self.budget.most_pinned == 0 && self.budget.pool_size == 0 {
            return self.waiting.len();
        }
        self.waiting
            .keys()
            .filter(|ticket| !self.is_blocked(**ticket))
            .count()
    }

    fn remove_waiting(&mut self, ticket: Ticket) {
        let Some(claim) = self.waiting.remove(&ticket) else {
            return;
        };
        let key = self.key(ticket, &claim);
        self.aged.remove(&ticket);
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        queue.waiting.retain(|waiting| *waiting != ticket);
        if queue.waiting.is_empty() {
            self.queues.remove(&key);
            self.turns.retain(|turn| *turn != key);
        }
    }
}

#[cfg(test)]
mod tests;
