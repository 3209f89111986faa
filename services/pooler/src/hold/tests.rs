use proptest::prelude::*;

use super::*;

const LEAVES: Effects = Effects {
    leaves: true,
    ends: false,
    sticks: false,
    taints: false,
};

fn pins<const N: usize>(pins: [Pin; N]) -> Pins {
    pins.into_iter().collect()
}

#[test]
fn harmless_statement_needs_no_look() {
    let mut hold = Hold::clean();
    hold.runs(Effects::default());
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Holds(Pins::NONE));
    assert!(hold.is_used() && hold.can_be_reset());
}

#[test]
fn look_waits_for_the_end_of_the_transaction() {
    let mut hold = Hold::clean();
    hold.runs(LEAVES);
    assert_eq!(
        hold.ready(TransactionStatus::InTransaction),
        Verdict::Holds(pins([Pin::Transaction]))
    );
    hold.runs(Effects::default());
    assert_eq!(
        hold.ready(TransactionStatus::Failed),
        Verdict::Holds(pins([Pin::Transaction]))
    );
    hold.runs(Effects::default());
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Look);
    hold.found(pins([Pin::Setting]));
    assert_eq!(hold.pins(), pins([Pin::Setting]));
    assert!(!hold.is_used());
}

#[test]
fn suspended_portal_pins_and_nobody_looks_before_it_is_closed() {
    let mut hold = Hold::clean();
    hold.runs(LEAVES);
    hold.portal(true);
    assert_eq!(
        hold.ready(TransactionStatus::Idle),
        Verdict::Holds(pins([Pin::Portal]))
    );
    hold.portal(false);
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Look);
    assert_eq!(hold.pins(), Pins::NONE);
}

#[test]
fn statement_that_may_end_a_state_leads_to_a_look_where_there_is_one() {
    let ends = Effects {
        ends: true,
        ..Effects::default()
    };
    let mut hold = Hold::clean();
    hold.runs(ends);
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Holds(Pins::NONE));
    hold.found(pins([Pin::TempTable]));
    hold.runs(ends);
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Look);
    hold.found(Pins::NONE);
    assert_eq!(hold.pins(), Pins::NONE);
}

#[test]
fn what_no_look_shows_stays() {
    let mut hold = Hold::clean();
    hold.runs(Effects {
        leaves: true,
        sticks: true,
        ..Effects::default()
    });
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Look);
    hold.found(Pins::NONE);
    assert_eq!(hold.pins(), pins([Pin::Sticky]));
    assert!(!hold.can_be_reset());
}

#[test]
fn refused_look_is_taken_for_the_worst() {
    let mut hold = Hold::clean();
    hold.runs(LEAVES);
    hold.ready(TransactionStatus::Idle);
    hold.hidden();
    assert_eq!(
        hold.ready(TransactionStatus::Idle),
        Verdict::Holds(pins([Pin::Sticky]))
    );
    assert!(hold.is_used());
}

#[test]
fn backend_for_life_is_never_looked_at() {
    let mut hold = Hold::for_life();
    hold.runs(LEAVES);
    assert_eq!(
        hold.ready(TransactionStatus::Idle),
        Verdict::Holds(pins([Pin::Mode]))
    );
}

#[test]
fn backend_of_a_script_is_never_looked_at_and_holds_nothing_it_could_state() {
    let mut hold = Hold::once();
    hold.runs(LEAVES);
    assert_eq!(hold.ready(TransactionStatus::Idle), Verdict::Holds(Pins::NONE));
    assert!(hold.can_be_reset());
}

#[derive(Debug, Clone)]
enum Step {
    /// Runs a statement whose text shows `seen` of what it does: leaves or ends a state, sticks.
    Run {
        leaves: bool,
        ends: bool,
        sticks: bool,
        seen: bool,
        transaction: u8,
    },
    /// The backend is asked although nothing said it should be.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1), any::<bool>(), 0..3_u8).prop_map(
            |(leaves, ends, sticks, seen, transaction)| Step::Run { leaves, ends, sticks, seen, transaction }
        ),
        1 => Just(Step::Look),
    ]
}

proptest! {
    /// Against a model that knows what the backend really holds.
    #[test]
    fn nothing_is_called_clean_that_is_not(steps in prop::collection::vec(step(), 0..40)) {
        let mut hold = Hold::clean();
        let (mut state, mut stuck, mut hidden) = (false, false, false);
        let mut transaction = TransactionStatus::Idle;
        for step in steps {
            match step {
                Step::Run { leaves, ends, sticks, seen, transaction: after } => {
                    if ends && transaction == TransactionStatus::Idle {
                        // What ends a state is visible wherever it matters: with a state known, it is looked for.
                        state = false;
                    }
                    state |= leaves;
                    stuck |= sticks && seen;
                    hidden |= leaves && !seen;
                    hold.runs(Effects { leaves: leaves && seen, ends, sticks: sticks && seen, taints: false });
                    transaction = [TransactionStatus::Idle, TransactionStatus::InTransaction,
                        TransactionStatus::Failed][usize::from(after)];
                    if hold.ready(transaction) == Verdict::Look {
                        prop_assert_eq!(transaction, TransactionStatus::Idle);
                        hold.found(if state { Pins::NONE.with(Pin::Setting) } else { Pins::NONE });
                        hidden = false;
                    }
                }
                Step::Look if transaction == TransactionStatus::Idle => {
                    hold.found(if state { Pins::NONE.with(Pin::Setting) } else { Pins::NONE });
                    hidden = false;
                }
                Step::Look => {}
            }
            let held = hold.pins();
            prop_assert_eq!(held.contains(Pin::Transaction), transaction != TransactionStatus::Idle);
            prop_assert_eq!(held.contains(Pin::Sticky), stuck);
            if held.is_empty() {
                // What the text showed was looked for; what it did not show makes a look due before anybody else comes.
                prop_assert!(!state || hidden && hold.is_used());
                prop_assert!(!stuck);
            }
            prop_assert!(hold.can_be_reset() != stuck);
        }
    }
}
