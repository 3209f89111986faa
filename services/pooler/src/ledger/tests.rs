use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const POOL: PoolNumber = PoolNumber(1);

fn user(number: u8) -> UserId {
    UserId::from_uuid(Uuid::from_u128(u128::from(number)))
}

fn claim(number: u8, class: Class, count: u32) -> Claim {
    Claim {
        user: user(number),
        class,
        count,
        holder: format!("{number}"),
        pool: Some(POOL),
    }
}

fn pinned(number: u8) -> Claim {
    claim(number, Class::Pinned, 1)
}

fn ledger(connections: u32, reserved: u32) -> Ledger {
    Ledger::new(Budget {
        connections,
        reserved,
        most_waiting: 100,
        ..Budget::DEFAULT
    })
}

fn granted(ledger: &mut Ledger, wish: Claim) -> Ticket {
    match ledger.claim(wish).0 {
        Claimed::Granted(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

fn waiting(ledger: &mut Ledger, wish: Claim) -> Ticket {
    match ledger.claim(wish).0 {
        Claimed::Waiting(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reserve_is_left_to_workers_and_the_last_of_it_to_looks() {
    let mut ledger = Ledger::new(Budget::DEFAULT);
    for _ in 0..15 {
        granted(&mut ledger, pinned(1));
    }
    waiting(&mut ledger, pinned(1));
    granted(&mut ledger, claim(2, Class::Worker, 4));
    waiting(&mut ledger, claim(3, Class::Worker, 1));
    let look = ledger.look(claim(9, Class::Monitoring, 1), false).unwrap();
    assert_eq!(
        ledger.look(claim(9, Class::Monitoring, 1), true),
        None,
        "one at a time"
    );
    assert_eq!(ledger.usage().total(), 20);
    assert_eq!(ledger.release(look), Changes::default());
}

#[test]
fn connections_of_other_poolers_count() {
    let mut ledger = ledger(6, 2);
    let held = granted(&mut ledger, pinned(1));
    ledger.set_elsewhere(3);
    let first = waiting(&mut ledger, pinned(2));
    let worker = granted(&mut ledger, claim(3, Class::Worker, 1));
    assert!(ledger.look(claim(9, Class::Monitoring, 1), false).is_some());
    assert_eq!(ledger.above(), 0);
    ledger.release(worker);
    assert_eq!(ledger.set_elsewhere(2).granted, [first]);
    // More than was thought: what we have is above the budget then, and nothing is handed on.
    ledger.set_elsewhere(8);
    assert_eq!((ledger.above(), ledger.heir(held, POOL)), (5, None));
}

#[test]
fn look_without_a_reserve_is_taken_on_insistence() {
    let mut ledger = ledger(2, 0);
    ledger.set_elsewhere(2);
    assert_eq!(ledger.look(claim(9, Class::Monitoring, 1), false), None);
    assert!(ledger.look(claim(9, Class::Monitoring, 1), true).is_some());
}

#[test]
fn users_take_turns_whatever_the_length_of_their_queues() {
    let mut ledger = ledger(1, 0);
    let mut holder = granted(&mut ledger, pinned(9));
    let first: Vec<_> = (0..3).map(|_| waiting(&mut ledger, pinned(1))).collect();
    let second = waiting(&mut ledger, pinned(2));
    assert_eq!(ledger.position(second), Some(1));
    assert_eq!(ledger.position(first[2]), Some(3));
    let mut order = Vec::new();
    while order.len() < 4 {
        let changes = ledger.release(holder);
        holder = changes.granted[0];
        order.push(holder);
    }
    assert_eq!(order, [first[0], second, first[1], first[2]]);
}

#[test]
fn large_claim_is_not_passed_by_small_ones() {
    let mut ledger = ledger(3, 0);
    let small: Vec<_> = (0..3).map(|_| granted(&mut ledger, pinned(1))).collect();
    let large = waiting(&mut ledger, claim(2, Class::Worker, 3));
    let later = waiting(&mut ledger, pinned(3));
    assert_eq!(
        (ledger.position(large), ledger.position(later)),
        (Some(0), Some(1))
    );
    assert_eq!(ledger.release(small[0]).granted, []);
    assert_eq!(ledger.release(small[1]).granted, []);
    assert_eq!(ledger.release(small[2]).granted, [large]);
    assert_eq!(ledger.release(large).granted, [later]);
}

#[test]
fn claim_that_can_never_be_met_is_refused() {
    let mut ledger = ledger(5, 2);
    assert_eq!(
        ledger.claim(claim(1, Class::Interactive, 4)).0,
        Claimed::Refused(Refused::TooMany { limit: 3 })
    );
    assert_eq!(
        ledger.claim(claim(1, Class::Worker, 5)).0,
        Claimed::Refused(Refused::TooMany { limit: 4 })
    );
}

#[test]
fn claim_that_fills_a_pool_lets_those_behind_its_first_pass_and_says_so() {
    let mut ledger = Ledger::new(Budget {
        connections: 5,
        reserved: 2,
        most_pinned: 3,
        pool_size: 3,
        ..Budget::DEFAULT
    });
    ledger.set_elsewhere(1);
    waiting(&mut ledger, claim(0, Class::Interactive, 3));
    let small = waiting(&mut ledger, claim(0, Class::Interactive, 1));
    let (claimed, changes) = ledger.claim(claim(0, Class::Worker, 1));
    assert!(matches!(claimed, Claimed::Granted(_)));
    assert_eq!(
        changes.granted,
        [small],
        "the pool has no room for three any more"
    );
}

#[test]
fn waiting_room_is_bounded() {
    let mut ledger = Ledger::new(Budget {
        connections: 1,
        reserved: 0,
        most_waiting: 1,
        ..Budget::DEFAULT
    });
    let held = granted(&mut ledger, pinned(1));
    waiting(&mut ledger, pinned(1));
    assert_eq!(
        ledger.claim(pinned(2)).0,
        Claimed::Refused(Refused::QueueFull { waiting: 1 })
    );
    assert_eq!(ledger.release(held).granted.len(), 1);
}

#[test]
fn one_user_does_not_fill_the_waiting_room() {
    let mut ledger = ledger(1, 0);
    granted(&mut ledger, pinned(1));
    let mut waits = 0;
    while let Claimed::Waiting(_) = ledger.claim(pinned(1)).0 {
        waits += 1;
    }
    assert!((50..60).contains(&waits), "{waits} of 100 places");
    waiting(&mut ledger, pinned(2));
}

#[test]
fn budget_changes_take_effect_at_once_and_take_nothing_away() {
    let mut ledger = ledger(2, 0);
    let first = granted(&mut ledger, pinned(1));
    granted(&mut ledger, pinned(1));
    let worker = waiting(&mut ledger, claim(2, Class::Worker, 2));
    let third = waiting(&mut ledger, pinned(3));
    let shrunk = ledger.set_budget(Budget {
        connections: 1,
        reserved: 0,
        ..Budget::DEFAULT
    });
    assert_eq!(
        shrunk,
        Changes {
            granted: vec![],
            refused: vec![worker]
        }
    );
    assert_eq!(ledger.usage().total(), 2);
    assert_eq!(ledger.release(first).granted, []);
    let grown = ledger.set_budget(Budget {
        connections: 2,
        reserved: 0,
        ..Budget::DEFAULT
    });
    assert_eq!(grown.granted, [third]);
}

#[test]
fn holders_are_told_by_user() {
    let mut ledger = ledger(5, 0);
    granted(&mut ledger, pinned(1));
    granted(&mut ledger, claim(2, Class::Worker, 2));
    let held: Vec<_> = ledger
        .held_by(user(2))
        .map(|claim| (claim.holder.as_str(), claim.count))
        .collect();
    assert_eq!(held, [("2", 2)]);
}

#[test]
fn connection_goes_to_the_same_user_while_shares_are_fair() {
    let mut ledger = ledger(2, 0);
    let shared = |number| claim(number, Class::Interactive, 1);
    let first = granted(&mut ledger, shared(1));
    let second = granted(&mut ledger, shared(2));
    let other = waiting(&mut ledger, shared(2));
    let own = waiting(&mut ledger, shared(1));
    // The other user is next in turn, but has as much as anybody.
    assert_eq!(ledger.heir(first, POOL), Some(own));
    assert_eq!(ledger.heir(second, POOL), Some(other));
    assert_eq!(ledger.heir(first, PoolNumber(2)), None);
    assert_eq!(ledger.hand_over(first, own), Changes::default());
    assert!(ledger.holds(own) && !ledger.holds(first));
    assert_eq!(ledger.usage().total(), 2);
}

#[test]
fn who_holds_more_than_a_share_gives_it_to_the_next_in_turn() {
    let mut ledger = ledger(2, 0);
    let shared = |number| claim(number, Class::Interactive, 1);
    let first = granted(&mut ledger, shared(1));
    granted(&mut ledger, shared(1));
    let other = waiting(&mut ledger, shared(2));
    let own = waiting(&mut ledger, shared(1));
    assert_eq!(ledger.heir(first, POOL), None);
    assert_eq!(ledger.release(first).granted, [other]);
    assert!(ledger.position(own).is_some());
}

#[test]
fn nobody_passes_a_large_claim_by_way_of_its_own_user() {
    let mut ledger = ledger(2, 0);
    let shared = || claim(1, Class::Interactive, 1);
    let first = granted(&mut ledger, shared());
    waiting(&mut ledger, claim(1, Class::Interactive, 2));
    waiting(&mut ledger, shared());
    assert_eq!(ledger.heir(first, POOL), None);
}

#[test]
fn pinned_connection_changes_its_class() {
    let mut ledger = ledger(2, 1);
    let first = granted(&mut ledger, claim(1, Class::Interactive, 1));
    ledger.reclassify(first, Class::Pinned);
    assert_eq!((ledger.usage().interactive, ledger.usage().pinned), (0, 1));
    ledger.release(first);
    assert_eq!(ledger.usage(), Usage::default());
}

#[test]
fn reserve_is_there_for_those_who_waited_long() {
    let mut ledger = ledger(4, 3);
    granted(&mut ledger, pinned(1));
    let (first, second) = (waiting(&mut ledger, pinned(1)), waiting(&mut ledger, pinned(1)));
    let third = waiting(&mut ledger, pinned(1));
    assert_eq!(ledger.promote(second).granted, [second]);
    assert_eq!(ledger.promote(third).granted, [third]);
    assert_eq!(ledger.promote(first), Changes::default());
    assert_eq!(ledger.usage().total(), 3);
    // Aged claims keep their order, and come before those that have just come.
    let late = waiting(&mut ledger, pinned(1));
    assert_eq!(ledger.release(second).granted, [first]);
    assert!(ledger.position(late).is_some());
}

#[test]
fn full_pool_waits_and_lets_others_pass() {
    let mut ledger = Ledger::new(Budget {
        pool_size: 1,
        ..Budget::DEFAULT
    });
    let of_pool = |pool| Claim {
        pool: Some(PoolNumber(pool)),
        ..claim(1, Class::Interactive, 1)
    };
    let held = granted(&mut ledger, of_pool(1));
    let second = waiting(&mut ledger, of_pool(1));
    granted(&mut ledger, of_pool(2));
    assert_eq!((ledger.waiting(), ledger.waiting_for_connections()), (1, 0));
    assert_eq!(ledger.heir(held, PoolNumber(1)), Some(second));
    assert_eq!(ledger.release(held).granted, [second]);
}

#[test]
fn full_pool_of_a_user_with_more_than_a_share_still_serves_its_own() {
    let mut ledger = Ledger::new(Budget {
        pool_size: 2,
        ..Budget::DEFAULT
    });
    for other in 2..9 {
        granted(
            &mut ledger,
            Claim {
                pool: None,
                ..pinned(other)
            },
        );
    }
    granted(
        &mut ledger,
        Claim {
            pool: None,
            ..pinned(1)
        },
    );
    let first = granted(&mut ledger, claim(1, Class::Interactive, 1));
    granted(&mut ledger, claim(1, Class::Interactive, 1));
    let third = waiting(&mut ledger, claim(1, Class::Interactive, 1));
    assert_eq!(ledger.heir(first, POOL), Some(third));
}

#[test]
fn connections_are_handed_on_while_the_reserve_is_in_use() {
    let mut ledger = ledger(2, 1);
    let shared = || claim(1, Class::Interactive, 1);
    let first = granted(&mut ledger, shared());
    let aged = waiting(&mut ledger, shared());
    assert_eq!(ledger.promote(aged).granted, [aged]);
    let next = waiting(&mut ledger, shared());
    assert_eq!(ledger.heir(first, POOL), None);
    ledger.promote(next);
    assert_eq!(ledger.heir(first, POOL), Some(next));
}

#[test]
fn server_that_has_no_more_is_asked_for_no_more() {
    let mut ledger = ledger(5, 0);
    let shared = || claim(1, Class::Interactive, 1);
    let (first, refused) = (granted(&mut ledger, shared()), granted(&mut ledger, shared()));
    ledger.set_ceiling(Some(1));
    assert_eq!(ledger.release(refused), Changes::default());
    let second = waiting(&mut ledger, shared());
    let large = waiting(&mut ledger, claim(2, Class::Worker, 4));
    assert_eq!(ledger.heir(first, POOL), Some(second));
    assert_eq!(ledger.set_ceiling(None).granted, [second]);
    assert_eq!(ledger.release(first).granted, [large]);
}

#[test]
fn paused_ledger_gives_nothing_until_it_is_resumed() {
    let mut ledger = ledger(3, 0);
    let held = granted(&mut ledger, claim(1, Class::Interactive, 1));
    assert_eq!(ledger.set_paused(true), Changes::default());
    let own = waiting(&mut ledger, claim(1, Class::Interactive, 1));
    let worker = waiting(&mut ledger, claim(2, Class::Worker, 1));
    assert_eq!(ledger.heir(held, POOL), None);
    assert_eq!(ledger.release(held), Changes::default());
    assert_eq!(ledger.promote(own), Changes::default());
    assert_eq!(ledger.usage().total(), 0);
    let mut granted = ledger.set_paused(false).granted;
    granted.sort_unstable();
    assert_eq!(granted, [own, worker]);
}

#[test]
fn pinned_sessions_keep_to_their_share() {
    let mut ledger = Ledger::new(Budget {
        most_pinned: 2,
        ..Budget::DEFAULT
    });
    let first = granted(&mut ledger, pinned(1));
    let shared = granted(&mut ledger, claim(1, Class::Interactive, 1));
    ledger.reclassify(shared, Class::Pinned);
    let second = waiting(&mut ledger, pinned(1));
    granted(&mut ledger, claim(1, Class::Interactive, 1));
    assert_eq!(ledger.release(first).granted, [second]);
}

#[derive(Debug, Clone)]
enum Step {
    Promote(prop::sample::Index),
    Sizes { pinned: u32, pool: u32 },
    HandOver(prop::sample::Index),
    Reclassify(prop::sample::Index, bool),
    Claim { user: u8, class: Class, count: u32 },
    Release(prop::sample::Index),
    Withdraw(prop::sample::Index),
    Budget { connections: u32, reserved: u32 },
    Elsewhere(u32),
    Look,
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Interactive), Just(Class::Pinned), Just(Class::Worker),]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..4_u8, class(), 1..4_u32).prop_map(|(user, class, count)| Step::Claim { user, class, count }),
        4 => any::<prop::sample::Index>().prop_map(Step::Release),
        1 => any::<prop::sample::Index>().prop_map(Step::Withdraw),
        3 => any::<prop::sample::Index>().prop_map(Step::HandOver),
        2 => any::<prop::sample::Index>().prop_map(Step::Promote),
        1 => (0..4_u32, 0..4_u32).prop_map(|(pinned, pool)| Step::Sizes { pinned, pool }),
        1 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(index, pinned)| Step::Reclassify(index, pinned)),
        2 => (0..4_u32).prop_map(Step::Elsewhere),
        1 => Just(Step::Look),
        1 => (0..8_u32, 0..4_u32).prop_map(|(connections, reserved)| Step::Budget { connections, reserved }),
    ]
}

/// What the ledger ought to know: who holds, who waits, in the order of arrival.
#[derive(Default)]
struct Model {
    held: Vec<(Ticket, Claim)>,
    waiting: Vec<(Ticket, Claim)>,
    aged: Vec<Ticket>,
    elsewhere: u32,
}

impl Model {
    fn sum(&self, matches: impl Fn(Class) -> bool) -> u32 {
        self.held
            .iter()
            .filter(|(_, claim)| matches(claim.class))
            .map(|(_, claim)| claim.count)
            .sum()
    }

    fn may_take_reserve(&self, ticket: Ticket, claim: &Claim) -> bool {
        claim.class.may_take_reserve() || self.aged.contains(&ticket)
    }

    /// Takes out a claim that is granted. It passes nobody of the same user and kind.
    fn served(&mut self, ticket: Ticket, budget: Budget) -> Result<Claim, TestCaseError> {
        let index = self.waiting.iter().position(|(waiting, _)| *waiting == ticket);
        let index = index.ok_or_else(|| TestCaseError::fail("granted what does not wait"))?;
        let (_, claim) = self.waiting.remove(index);
        let reserve = self.may_take_reserve(ticket, &claim);
        // Where pools or pins are full, those who want more of them, or of them at all, are passed.
        let any = budget.most_pinned == 0 && budget.pool_size == 0;
        let passed = self.waiting[..index].iter().any(|(earlier, other)| {
            other.user == claim.user
                && self.may_take_reserve(*earlier, other) == reserve
                && (any || other.count <= claim.count && other.class == claim.class)
        });
        prop_assert!(!passed, "{ticket:?} passed another claim of its user");
        Ok(claim)
    }

    /// Every grant fits.
    fn grant(&mut self, ticket: Ticket, budget: Budget) -> Result<(), TestCaseError> {
        let claim = self.served(ticket, budget)?;
        let (reserve, class) = (self.may_take_reserve(ticket, &claim), claim.class);
        self.held.push((ticket, claim));
        prop_assert!(self.sum(|_| true) + self.elsewhere <= budget.connections);
        if !reserve {
            let of_sessions = self.sum(|class| !class.may_take_reserve());
            prop_assert!(of_sessions + self.elsewhere <= budget.limit(Class::Interactive));
        }
        if class == Class::Pinned && budget.most_pinned > 0 {
            prop_assert!(self.sum(|class| class == Class::Pinned) <= budget.most_pinned);
        }
        // All claims here are for one pool.
        let of_pool = self.sum(|class| class != Class::Monitoring);
        prop_assert!(budget.pool_size == 0 || of_pool <= budget.pool_size);
        Ok(())
    }

    fn apply(&mut self, changes: &Changes, budget: Budget) -> Result<(), TestCaseError> {
        for ticket in &changes.refused {
            self.waiting.retain(|(waiting, _)| waiting != ticket);
        }
        changes
            .granted
            .iter()
            .try_for_each(|ticket| self.grant(*ticket, budget))
    }
}

proptest! {
    #[test]
    fn ledger_keeps_its_promises(steps in prop::collection::vec(step(), 0..120)) {
        let mut ledger = Ledger::new(Budget { connections: 5, reserved: 1, most_waiting: 20, ..Budget::DEFAULT });
        let mut model = Model::default();
        for step in steps {
            let budget = ledger.budget();
            match step {
                Step::Claim { user, class, count } => {
                    let (claimed, changes) = ledger.claim(claim(user, class, count));
                    match claimed {
                        Claimed::Granted(ticket) => {
                            model.waiting.push((ticket, claim(user, class, count)));
                            model.grant(ticket, budget)?;
                        }
                        Claimed::Waiting(ticket) => model.waiting.push((ticket, claim(user, class, count))),
                        Claimed::Refused(Refused::TooMany { limit }) => prop_assert!(count > limit),
                        Claimed::Refused(Refused::QueueFull { waiting }) => {
                            prop_assert_eq!(waiting, model.waiting.len());
                            let user = self::user(user);
                            let own = model.waiting.iter().filter(|(_, claim)| claim.user == user).count();
                            prop_assert!(waiting == 20 || own > 20 - waiting);
                        }
                    }
                    model.apply(&changes, budget)?;
                }
                Step::Release(index) if !model.held.is_empty() => {
                    let (ticket, _) = model.held.remove(index.index(model.held.len()));
                    model.apply(&ledger.release(ticket), budget)?;
                    prop_assert_eq!(ledger.release(ticket), Changes::default());
                }
                Step::Withdraw(index) if !model.waiting.is_empty() => {
                    let (ticket, _) = model.waiting.remove(index.index(model.waiting.len()));
                    model.apply(&ledger.release(ticket), budget)?;
                }
                Step::Budget { connections, reserved } => {
                    let budget = Budget { connections, reserved, ..budget };
                    model.apply(&ledger.set_budget(budget), budget)?;
                }
                Step::HandOver(index) if !model.held.is_empty() => {
                    let from = index.index(model.held.len());
                    let (ticket, claim) = model.held[from].clone();
                    if let Some(heir) = ledger.heir(ticket, POOL) {
                        let changes = ledger.hand_over(ticket, heir);
                        model.held.remove(from);
                        let to = model.waiting.iter().find(|(waiting, _)| *waiting == heir).unwrap().1.clone();
                        prop_assert_eq!((to.user, to.count, claim.count), (claim.user, 1, 1));
                        let claim = model.served(heir, budget)?;
                        model.held.push((heir, claim));
                        model.apply(&changes, budget)?;
                    }
                }
                Step::Promote(index) if !model.waiting.is_empty() => {
                    let (ticket, _) = model.waiting[index.index(model.waiting.len())];
                    model.aged.push(ticket);
                    model.apply(&ledger.promote(ticket), budget)?;
                }
                Step::Sizes { pinned, pool } => {
                    let budget = Budget { most_pinned: pinned, pool_size: pool, ..budget };
                    model.apply(&ledger.set_budget(budget), budget)?;
                }
                Step::Elsewhere(connections) => {
                    model.elsewhere = connections;
                    model.apply(&ledger.set_elsewhere(connections), budget)?;
                }
                Step::Look => {
                    let look = Claim { pool: None, ..claim(9, Class::Monitoring, 1) };
                    if let Some(ticket) = ledger.look(look.clone(), false) {
                        model.held.push((ticket, look));
                        prop_assert_eq!(model.sum(|class| class == Class::Monitoring), 1);
                        let kept = budget.reserved > 1 && budget.connections > 1;
                        prop_assert!(kept || model.sum(|_| true) + model.elsewhere <= budget.connections);
                    }
                }
                Step::Reclassify(index, pinned) if !model.held.is_empty() => {
                    let index = index.index(model.held.len());
                    let (ticket, claim) = &mut model.held[index];
                    if !claim.class.may_take_reserve() {
                        claim.class = if pinned { Class::Pinned } else { Class::Interactive };
                        let (ticket, class) = (*ticket, claim.class);
                        model.apply(&ledger.reclassify(ticket, class), budget)?;
                    }
                }
                Step::Release(_)
                | Step::Withdraw(_)
                | Step::HandOver(_)
                | Step::Reclassify(..)
                | Step::Promote(_) => {}
            }
            prop_assert_eq!(ledger.usage().total(), model.sum(|_| true));
            prop_assert_eq!(ledger.waiting(), model.waiting.len());
            for (ticket, _, position) in ledger.waiting_in_order() {
                prop_assert_eq!(ledger.position(ticket), Some(position));
            }
            for (ticket, _) in &model.waiting {
                prop_assert!(ledger.position(*ticket).unwrap() < model.waiting.len());
            }
            // Nobody waits for nothing: with everything given back, the next in turn would have been served.
            prop_assert!(model.waiting.is_empty() || !model.held.is_empty() || model.elsewhere > 0);
        }
        model.elsewhere = 0;
        model.apply(&ledger.set_elsewhere(0), ledger.budget())?;
        // Nobody starves: as holders leave, all who wait are served.
        let budget = ledger.budget();
        while let Some((ticket, _)) = model.held.pop() {
            model.apply(&ledger.release(ticket), budget)?;
        }
        prop_assert!(model.waiting.is_empty());
        prop_assert_eq!(ledger.usage(), Usage::default());
    }

    #[test]
    fn waiter_is_served_within_one_turn_of_everybody(queues in prop::collection::vec(1..6_usize, 1..6)) {
        let mut ledger = ledger(1, 0);
        let mut holder = granted(&mut ledger, pinned(255));
        for (index, length) in queues.iter().enumerate() {
            for _ in 0..*length {
                waiting(&mut ledger, pinned(u8::try_from(index).unwrap()));
            }
        }
        let late = waiting(&mut ledger, pinned(200));
        let before = ledger.position(late).unwrap();
        prop_assert_eq!(before, queues.len());
        for _ in 0..before {
            holder = ledger.release(holder).granted[0];
            prop_assert_ne!(holder, late);
        }
        prop_assert_eq!(ledger.release(holder).granted, [late]);
    }
}
