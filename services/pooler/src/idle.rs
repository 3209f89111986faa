//! The backends of one instance that nobody uses at the moment.
//!
//! A state machine without IO. A backend stays with the session that used it last: that session takes it back as it
//! is. To serve another it is first contested: looked at, and then given back, reset or closed. Invariants: a backend
//! is in one place; only its own session gets a backend that was used since it was reset; while a session's backend is
//! contested, that session waits for the outcome.

use std::collections::HashSet;
use std::hash::Hash;

use domain::id::UserId;
use tokio::time::Instant;

use crate::ledger::PoolNumber;

/// A backend at rest.
#[derive(Debug)]
pub(crate) struct Rested<S, B> {
    pub(crate) backend: B,
    pub(crate) pool: PoolNumber,
    /// Who used it last. Nobody else gets it without a new connection.
    pub(crate) user: UserId,
    /// Whose state it may hold; nothing where it was reset.
    pub(crate) session: Option<S>,
    pub(crate) since: Instant,
}

/// What there is for a session.
#[derive(Debug)]
pub(crate) enum Own<S, B> {
    /// Its backend.
    Backend(Rested<S, B>),
    /// Its backend is being looked at: wait.
    Contested,
    /// Nothing.
    Nothing,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Idle<S, B> {
    /// The one that rested longest comes first.
    rested: Vec<Rested<S, B>>,
    contested: HashSet<S>,
    /// Backends under contest, those without a session among them.
    contests: usize,
}

impl<S: Copy + Eq + Hash, B> Idle<S, B> {
    pub(crate) fn new() -> Self {
        Self {
            rested: Vec::new(),
            contested: HashSet::new(),
            contests: 0,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.rested.len()
    }

    /// How many are contested.
    pub(crate) fn contests(&self) -> usize {
        self.contests
    }

    /// Takes a backend in.
    pub(crate) fn rest(&mut self, rested: Rested<S, B>) {
        self.rested.push(rested);
    }

    /// The session's own backend, and nobody else's any more.
    pub(crate) fn own(&mut self, session: S) -> Own<S, B> {
        if self.contested.contains(&session) {
            return Own::Contested;
        }
        let own = self
            .rested
            .iter()
            .position(|rested| rested.session == Some(session));
        own.map_or(Own::Nothing, |place| Own::Backend(self.rested.remove(place)))
    }

    /// True where the session has a backend here, or it is being looked at.
    pub(crate) fn has(&self, session: S) -> bool {
        self.contested.contains(&session) || self.rested.iter().any(|rested| rested.session == Some(session))
    }

    /// A backend of the pool that was reset after this user's session. The one that was used last: the others may be
    /// closed then.
    pub(crate) fn clean(&mut self, pool: PoolNumber, user: UserId) -> Option<Rested<S, B>> {
        let place = self
            .rested
            .iter()
            .rposition(|rested| rested.session.is_none() && rested.pool == pool && rested.user == user)?;
        Some(self.rested.remove(place))
    }

    /// Takes out a backend to serve somebody else: the first that `preferred` likes, else the first of all. End it with
    /// [`Idle::settle`] and [`Idle::contest_over`].
    pub(crate) fn contest(&mut self, preferred: impl Fn(&Rested<S, B>) -> bool) -> Option<Rested<S, B>> {
        let place = self.rested.iter().position(preferred).unwrap_or_default();
        self.contest_at(place)
    }

    /// Takes out the first backend that `due` likes.
    pub(crate) fn contest_if(&mut self, due: impl Fn(&Rested<S, B>) -> bool) -> Option<Rested<S, B>> {
        let place = self.rested.iter().position(due)?;
        self.contest_at(place)
    }

    fn contest_at(&mut self, place: usize) -> Option<Rested<S, B>> {
        if place >= self.rested.len() {
            return None;
        }
        let rested = self.rested.remove(place);
        self.contests += 1;
        self.contested.extend(rested.session);
        Some(rested)
    }

    /// What a contest means for its session is known: it need not wait any more.
    pub(crate) fn settle(&mut self, session: Option<S>) {
        if let Some(session) = session {
            self.contested.remove(&session);
        }
    }

    /// A contested backend is with somebody, at rest or gone.
    pub(crate) fn contest_over(&mut self) {
        self.contests -= 1;
    }

    /// Takes out those that `unwanted` says it of.
    pub(crate) fn take(&mut self, unwanted: impl FnMut(&mut Rested<S, B>) -> bool) -> Vec<Rested<S, B>> {
        self.rested.extract_if(.., unwanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// A backend with what was left in it.
    #[derive(Debug, PartialEq, Eq)]
    struct Backend {
        number: usize,
        left_by: Option<u8>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Run(u8),
        Rest(prop::sample::Index),
        Contest(u8),
        Settle(prop::sample::Index, Outcome),
    }

    #[derive(Debug, Clone, Copy)]
    enum Outcome {
        GivenBack,
        Reset,
        Closed,
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![
            Just(Outcome::GivenBack),
            Just(Outcome::Reset),
            Just(Outcome::Closed)
        ];
        prop_oneof![
            5 => (0..6_u8).prop_map(Step::Run),
            4 => any::<prop::sample::Index>().prop_map(Step::Rest),
            2 => (0..2_u8).prop_map(Step::Contest),
            2 => (any::<prop::sample::Index>(), outcome).prop_map(|(index, outcome)| Step::Settle(index, outcome)),
        ]
    }

    fn user(session: u8) -> UserId {
        UserId::from_uuid(Uuid::from_u128(u128::from(session % 3)))
    }

    fn pool(session: u8) -> PoolNumber {
        PoolNumber(u64::from(session % 2))
    }

    fn rested(backend: Backend, session: u8, of: Option<u8>) -> Rested<u8, Backend> {
        Rested {
            backend,
            pool: pool(session),
            user: user(session),
            session: of,
            since: Instant::now(),
        }
    }

    proptest! {
        /// Sessions run on backends and leave something there. Nobody ever finds what another left.
        #[test]
        fn nobody_finds_what_another_left(steps in prop::collection::vec(step(), 0..80)) {
            let mut idle: Idle<u8, Backend> = Idle::new();
            let mut running: Vec<(u8, Backend)> = vec![];
            let mut contested: Vec<Rested<u8, Backend>> = vec![];
            let mut made = 0;
            let mut closed = 0;
            for step in steps {
                match step {
                    Step::Run(session) if running.iter().all(|(other, _)| *other != session) => {
                        let own = idle.own(session);
                        let awaited = contested.iter().any(|rested| rested.session == Some(session));
                        prop_assert_eq!(matches!(own, Own::Contested), awaited);
                        let backend = match own {
                            Own::Contested => continue,
                            Own::Backend(rested) => {
                                prop_assert_eq!(rested.backend.left_by, Some(session));
                                rested.backend
                            }
                            Own::Nothing => match idle.clean(pool(session), user(session)) {
                                Some(rested) => {
                                    prop_assert_eq!(rested.backend.left_by, None);
                                    prop_assert_eq!((rested.pool, rested.user), (pool(session), user(session)));
                                    rested.backend
                                }
                                None => {
                                    made += 1;
                                    Backend { number: made, left_by: None }
                                }
                            },
                        };
                        running.push((session, Backend { left_by: Some(session), ..backend }));
                    }
                    Step::Rest(index) if !running.is_empty() => {
                        let (session, backend) = running.swap_remove(index.index(running.len()));
                        idle.rest(rested(backend, session, Some(session)));
                    }
                    Step::Contest(preferred) => {
                        let first = idle.rested.first().map(|rested| rested.backend.number);
                        let liked = idle.rested.iter().any(|rested| rested.pool == pool(preferred));
                        if let Some(rested) = idle.contest(|rested| rested.pool == pool(preferred)) {
                            prop_assert!(rested.pool == pool(preferred) || !liked);
                            prop_assert!(liked || Some(rested.backend.number) == first);
                            contested.push(rested);
                        } else {
                            prop_assert_eq!(idle.len(), 0);
                        }
                    }
                    Step::Settle(index, outcome) if !contested.is_empty() => {
                        let mut rested = contested.swap_remove(index.index(contested.len()));
                        idle.settle(rested.session);
                        idle.contest_over();
                        match (outcome, rested.session) {
                            (Outcome::GivenBack, Some(session)) => running.push((session, rested.backend)),
                            (Outcome::GivenBack | Outcome::Reset, _) => {
                                rested.session = None;
                                rested.backend.left_by = None;
                                idle.rest(rested);
                            }
                            (Outcome::Closed, _) => closed += 1,
                        }
                    }
                    Step::Run(_) | Step::Rest(_) | Step::Settle(..) => {}
                }
                prop_assert_eq!(made, closed + running.len() + contested.len() + idle.len());
                prop_assert_eq!(idle.contests(), contested.len());
                let mut numbers: Vec<usize> = idle.rested.iter().map(|rested| rested.backend.number).collect();
                numbers.extend(running.iter().map(|(_, backend)| backend.number));
                numbers.sort_unstable();
                numbers.dedup();
                prop_assert_eq!(numbers.len(), running.len() + idle.len());
            }
        }
    }
}
