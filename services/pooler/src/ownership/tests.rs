//! Several poolers, one instance, one config database: whatever stops, dies, is late or cannot be asked, all of them
//! together never have more connections than the budget.
//!
//! The world of the model is the worst there can be: between two looks at its state a pooler may be stopped for any time,
//! answers of the config database may arrive long after they were given, and a connection that was begun may come about
//! long after its pooler lost the instance.

use std::time::Duration;

use domain::id::UserId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::forerunner::{Forerunner, Heard, MOST_IN_FLIGHT};
use crate::ledger::{Budget, Claim, Claimed, Class, Ledger, Ticket};

const LEASE: Duration = Duration::from_secs(15);
const GRACE: Duration = Duration::from_secs(30);
const POOLERS: usize = 3;
const BUDGET: Budget = Budget {
    connections: 6,
    reserved: 0,
    ..Budget::DEFAULT
};

#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Pass(u64),
    /// Claims the instance; the answer arrives after so many steps of its own.
    Claim(usize),
    /// Takes up an answer to a claim or a renewal.
    Answer(usize),
    Renew(usize),
    /// Wants so many connections, if the ledger and the ownership let it.
    Begin(usize, u32),
    /// So many connections that were begun come about.
    Complete(usize, u32),
    /// The config database learns of so many connections.
    Record(usize, u32),
    /// A connection is closed, and its entry removed.
    Close(usize),
    /// Asks everybody else who left something.
    Ask(usize),
    /// Ends what others left that are over.
    Bury(usize),
    Stop(usize),
    Go(usize),
    Kill(usize),
    GiveBack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..POOLERS;
    prop_oneof![
        3 => (1..25_u64).prop_map(Step::Pass),
        4 => who.clone().prop_map(Step::Claim),
        6 => who.clone().prop_map(Step::Answer),
        2 => who.clone().prop_map(Step::Renew),
        8 => (who.clone(), 1..5_u32).prop_map(|(who, times)| Step::Begin(who, times)),
        8 => (who.clone(), 1..5_u32).prop_map(|(who, times)| Step::Complete(who, times)),
        4 => (who.clone(), 1..5_u32).prop_map(|(who, times)| Step::Record(who, times)),
        2 => who.clone().prop_map(Step::Close),
        3 => who.clone().prop_map(Step::Ask),
        3 => who.clone().prop_map(Step::Bury),
        1 => who.clone().prop_map(Step::Stop),
        2 => who.clone().prop_map(Step::Go),
        1 => who.clone().prop_map(Step::Kill),
        1 => who.prop_map(Step::GiveBack),
    ]
}

/// An answer of the config database on its way.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Claimed { term: u64, sent: Uptime },
    Renewed { term: u64, sent: Uptime },
    Refused { sent: Uptime },
}

/// A pooler process, and what the server has of it.
struct Pooler {
    ownership: Ownership,
    ledger: Ledger,
    known: Vec<(usize, Forerunner)>,
    replies: Vec<Reply>,
    /// Begun, not yet there.
    begun: Vec<Ticket>,
    /// There, and their pooler has not looked yet whether it may have them.
    landed: Vec<Ticket>,
    /// There, not yet recorded.
    unrecorded: Vec<Ticket>,
    /// There and recorded.
    recorded: Vec<Ticket>,
    stopped: bool,
    dead: bool,
}

impl Pooler {
    fn in_flight(&self) -> u32 {
        u32::try_from(self.begun.len() + self.landed.len() + self.unrecorded.len()).unwrap()
    }

    /// Connections the server sees.
    fn real(&self) -> usize {
        self.landed.len() + self.unrecorded.len() + self.recorded.len()
    }
}

/// The config database.
#[derive(Default)]
struct Config {
    owner: Option<(usize, u64, Uptime, bool)>,
    /// Who was taken over from and is not known to be gone.
    predecessors: Vec<usize>,
}

struct World {
    now: Uptime,
    poolers: Vec<Pooler>,
    config: Config,
}

impl World {
    fn new() -> Self {
        let pooler = || Pooler {
            ownership: Ownership::default(),
            ledger: Ledger::new(BUDGET),
            known: Vec::new(),
            replies: Vec::new(),
            begun: Vec::new(),
            landed: Vec::new(),
            unrecorded: Vec::new(),
            recorded: Vec::new(),
            stopped: false,
            dead: false,
        };
        Self {
            now: Duration::from_secs(1000),
            poolers: (0..POOLERS).map(|_| pooler()).collect(),
            config: Config::default(),
        }
    }

    /// Who left something, as the config database has it: who, how many connections, and whether it may open more.
    fn left(&self, by_others_than: usize) -> Vec<(usize, u32, bool)> {
        let others = (0..POOLERS).filter(|who| *who != by_others_than);
        others
            .map(|who| {
                let recorded = u32::try_from(self.poolers[who].recorded.len()).unwrap();
                (who, recorded, self.config.predecessors.contains(&who))
            })
            .filter(|(_, recorded, may_open)| *recorded > 0 || *may_open)
            .collect()
    }

    /// As `Instance::count_left`.
    fn count_left(&mut self, who: usize) {
        let left = self.left(who);
        let pooler = &mut self.poolers[who];
        pooler
            .known
            .retain(|(other, _)| left.iter().any(|(left, ..)| left == other));
        let mut counted = 0;
        for (other, recorded, may_open) in left {
            if !pooler.known.iter().any(|(known, _)| *known == other) {
                pooler.known.push((other, Forerunner::unasked(may_open)));
            }
            let known = pooler.known.iter().find(|(known, _)| *known == other).unwrap().1;
            counted += known.counted(recorded);
        }
        pooler.ledger.set_elsewhere(counted);
    }

    fn claim(&mut self, who: usize) {
        let sent = self.now;
        let (owner, term, until, released) = self.config.owner.unwrap_or((who, 0, self.now, true));
        if owner != who && until > self.now && !released {
            return;
        }
        let same = owner == who && !released && term > 0;
        if owner != who && !released && !self.config.predecessors.contains(&owner) {
            self.config.predecessors.push(owner);
        }
        let term = if same { term } else { term + 1 };
        self.config.owner = Some((who, term, self.now + LEASE, false));
        self.poolers[who].replies.push(Reply::Claimed { term, sent });
    }

    fn renew(&mut self, who: usize) {
        let sent = self.now;
        let reply = match &mut self.config.owner {
            Some((owner, term, until, false)) if *owner == who => {
                *until = self.now + LEASE;
                Reply::Renewed { term: *term, sent }
            }
            _ => Reply::Refused { sent },
        };
        self.poolers[who].replies.push(reply);
    }

    fn answer(&mut self, who: usize) {
        if self.poolers[who].replies.is_empty() {
            return;
        }
        let reply = self.poolers[who].replies.remove(0);
        if let Reply::Claimed { .. } = reply {
            self.poolers[who].known.retain(|(_, known)| known.is_gone());
            self.count_left(who);
        }
        let pooler = &mut self.poolers[who];
        pooler.ownership = match reply {
            Reply::Claimed { term, sent } => pooler.ownership.claimed(term, sent, LEASE),
            Reply::Renewed { term, sent } => pooler.ownership.renewed(term, sent, LEASE),
            Reply::Refused { sent } => pooler.ownership.refused(sent, LEASE),
        };
    }

    fn begin(&mut self, who: usize) {
        let now = self.now;
        let pooler = &mut self.poolers[who];
        if pooler.in_flight() >= MOST_IN_FLIGHT || pooler.ownership.standing(now) != Standing::Owner {
            return;
        }
        let claim = Claim {
            user: UserId::from_uuid(Uuid::nil()),
            class: Class::Worker,
            count: 1,
            holder: String::new(),
            pool: None,
        };
        match pooler.ledger.claim(claim).0 {
            Claimed::Granted(ticket) => pooler.begun.push(ticket),
            Claimed::Waiting(ticket) => drop(pooler.ledger.release(ticket)),
            Claimed::Refused(_) => {}
        }
    }

    fn complete(&mut self, who: usize) {
        let pooler = &mut self.poolers[who];
        pooler.landed.extend(pooler.begun.pop());
    }

    /// What comes about is kept by a pooler that owns the instance at that moment, and closed by others. Until then the
    /// server has it.
    fn look_at_what_landed(&mut self) {
        let now = self.now;
        for pooler in &mut self.poolers {
            if pooler.dead || pooler.stopped {
                continue;
            }
            let owns = pooler.ownership.standing(now) == Standing::Owner;
            for ticket in pooler.landed.drain(..) {
                if owns {
                    pooler.unrecorded.push(ticket);
                } else {
                    pooler.ledger.release(ticket);
                }
            }
        }
    }

    fn ask(&mut self, who: usize) {
        let Some((_, term, ..)) = self.config.owner else {
            return;
        };
        if self.poolers[who].ownership.standing(self.now) != Standing::Owner {
            return;
        }
        for (other, ..) in self.left(who) {
            let asked = &mut self.poolers[other];
            let heard = if asked.dead {
                // What it had not recorded is gone with it: the system closed its ends, and nothing runs on any of them.
                asked.landed.clear();
                asked.unrecorded.clear();
                Heard::Gone
            } else if asked.stopped {
                Heard::Silence
            } else {
                asked.ownership = asked.ownership.superseded(term);
                Heard::HandingOver {
                    connections: asked.in_flight() + u32::try_from(asked.recorded.len()).unwrap(),
                }
            };
            let (now, known) = (self.now, &mut self.poolers[who].known);
            if let Some((_, known)) = known.iter_mut().find(|(known, _)| *known == other) {
                *known = known.heard(heard, now);
            }
        }
        self.count_left(who);
    }

    fn bury(&mut self, who: usize) {
        if self.poolers[who].ownership.standing(self.now) != Standing::Owner {
            return;
        }
        for (other, known) in self.poolers[who].known.clone() {
            if !known.is_over(self.now, GRACE) {
                continue;
            }
            let ended = &mut self.poolers[other];
            for ticket in ended.recorded.drain(..) {
                ended.ledger.release(ticket);
            }
            if known.is_gone() {
                self.config
                    .predecessors
                    .retain(|predecessor| *predecessor != other);
            }
        }
        self.count_left(who);
    }

    fn give_back(&mut self, who: usize) {
        let pooler = &mut self.poolers[who];
        pooler.ownership = pooler.ownership.leaving();
        // Only with nothing in flight.
        let (Some(term), 0) = (pooler.ownership.term_to_give_back(), pooler.in_flight()) else {
            return;
        };
        if let Some((owner, owned, _, released)) = &mut self.config.owner
            && (*owner, *owned) == (who, term)
        {
            *released = true;
        }
        pooler.ownership = pooler.ownership.given_back();
    }

    fn step(&mut self, step: &Step) {
        let who = match step {
            Step::Pass(seconds) => {
                self.now += Duration::from_secs(*seconds);
                return;
            }
            Step::Claim(who)
            | Step::Answer(who)
            | Step::Renew(who)
            | Step::Begin(who, _)
            | Step::Complete(who, _)
            | Step::Record(who, _)
            | Step::Close(who)
            | Step::Ask(who)
            | Step::Bury(who)
            | Step::Stop(who)
            | Step::Go(who)
            | Step::Kill(who)
            | Step::GiveBack(who) => *who,
        };
        if self.poolers[who].dead {
            return;
        }
        if self.poolers[who].stopped {
            match step {
                Step::Go(_) => self.poolers[who].stopped = false,
                // What was sent is on its way.
                Step::Complete(_, times) => (0..*times).for_each(|_| self.complete(who)),
                _ => {}
            }
            return;
        }
        match step {
            Step::Pass(_) | Step::Go(_) => {}
            Step::Claim(_) => self.claim(who),
            Step::Answer(_) => self.answer(who),
            Step::Renew(_) => self.renew(who),
            Step::Begin(_, times) => (0..*times).for_each(|_| self.begin(who)),
            Step::Complete(_, times) => (0..*times).for_each(|_| self.complete(who)),
            Step::Record(_, times) => {
                let pooler = &mut self.poolers[who];
                for _ in 0..*times {
                    pooler.recorded.extend(pooler.unrecorded.pop());
                }
            }
            Step::Close(_) => {
                let pooler = &mut self.poolers[who];
                if let Some(ticket) = pooler.recorded.pop() {
                    pooler.ledger.release(ticket);
                }
            }
            Step::Ask(_) => self.ask(who),
            Step::Bury(_) => self.bury(who),
            Step::Stop(_) => self.poolers[who].stopped = true,
            Step::Kill(_) => {
                let pooler = &mut self.poolers[who];
                pooler.dead = true;
                // What was begun may still come about; the server closes what is idle, and may not at once.
                let begun = std::mem::take(&mut pooler.begun);
                pooler.landed.extend(begun);
            }
            Step::GiveBack(_) => self.give_back(who),
        }
    }

    fn owners(&self) -> usize {
        let owner = |pooler: &&Pooler| !pooler.dead && pooler.ownership.standing(self.now) == Standing::Owner;
        self.poolers.iter().filter(owner).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn poolers_together_keep_to_the_budget(steps in prop::collection::vec(step(), 0..200)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            prop_assert!(world.owners() <= 1, "{} owners after {step:?}", world.owners());
            let real: usize = world.poolers.iter().map(Pooler::real).sum();
            prop_assert!(real <= 6, "{real} connections after {step:?}");
            world.look_at_what_landed();
        }
    }
}

#[test]
fn lease_is_over_here_before_it_is_there() {
    let sent = Duration::from_secs(100);
    let claimed = Ownership::default().claimed(3, sent, LEASE);
    assert_eq!(
        claimed.standing(sent + LEASE - Duration::from_millis(1)),
        Standing::Owner
    );
    // However long the answer took, and whether or not the machine slept meanwhile.
    assert_eq!(claimed.standing(sent + LEASE), Standing::Lapsed);
    let renewed = claimed.renewed(3, sent + LEASE, LEASE);
    assert_eq!(renewed.standing(sent + LEASE), Standing::Owner);
}

#[test]
fn answers_that_come_too_late_change_nothing() {
    let sent = Duration::from_secs(100);
    let claimed = Ownership::default().claimed(3, sent, LEASE);
    assert_eq!(
        claimed.refused(sent - LEASE, LEASE),
        claimed,
        "refused before it was claimed"
    );
    assert_eq!(claimed.refused(sent, LEASE), Ownership::Superseded { term: 3 });
    let superseded = claimed.superseded(4);
    assert_eq!(superseded.renewed(3, sent + LEASE, LEASE), superseded);
    assert_eq!(superseded.claimed(4, sent, LEASE), superseded);
    let given_back = claimed.leaving().given_back();
    assert_eq!(
        given_back.claimed(3, sent, LEASE),
        given_back,
        "claimed before it was given back"
    );
    assert_eq!(claimed.superseded(3), claimed, "it is its own successor");
    assert_eq!(
        claimed.leaving().claimed(3, sent, LEASE),
        Ownership::Leaving { term: 3 }
    );
}
