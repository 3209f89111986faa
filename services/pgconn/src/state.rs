//! What is under way on a connection, from the messages that passed.
//!
//! The invariant: a connection is quiet only when the server owes nothing and nothing can still come but
//! asynchronous messages. When that cannot be known, it is never quiet again.

use std::collections::VecDeque;

use crate::error::{ProtocolError, SendError};
use crate::event::{Event, TransactionStatus};

/// A message the server answers with one ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Also the start-up itself.
    Query,
    Sync,
}

/// Who sends COPY data at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// Nobody.
    None,
    /// We send data.
    In,
    /// We said that all data was sent, or that we failed; the server has not answered.
    InEnding,
    /// The server sends data.
    Out,
    /// Both send data (replication).
    Both,
}

#[derive(Debug)]
pub(crate) struct ProtocolState {
    status: TransactionStatus,
    owed: VecDeque<Request>,
    /// Syncs the server may have ignored, see [`ProtocolState::on_event`].
    doubtful: u32,
    /// Extended-protocol messages were sent and no Sync after them.
    unsynced: bool,
    copy: CopyState,
    /// A FATAL error was seen.
    closing: bool,
}

impl ProtocolState {
    /// The state after the start-up message was sent.
    pub(crate) fn starting() -> Self {
        Self {
            status: TransactionStatus::Idle,
            owed: VecDeque::from([Request::Query]),
            doubtful: 0,
            unsynced: false,
            copy: CopyState::None,
            closing: false,
        }
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    pub(crate) fn copy(&self) -> CopyState {
        self.copy
    }

    pub(crate) fn ready_owed(&self) -> usize {
        self.owed.len()
    }

    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.owed.is_empty()
            && self.doubtful == 0
            && !self.unsynced
            && self.copy == CopyState::None
            && !self.closing
    }

    pub(crate) fn may_query(&self) -> Result<(), SendError> {
        if self.unsynced {
            Err(SendError::SyncMissing)
        } else {
            Ok(())
        }
    }

    pub(crate) fn may_copy(&self) -> Result<(), SendError> {
        match self.copy {
            CopyState::In | CopyState::Both => Ok(()),
            CopyState::None | CopyState::InEnding | CopyState::Out => Err(SendError::NotInCopy),
        }
    }

    pub(crate) fn on_query(&mut self) {
        self.owed.push_back(Request::Query);
    }

    pub(crate) fn on_extended(&mut self) {
        self.unsynced = true;
    }

    pub(crate) fn on_sync(&mut self) {
        self.unsynced = false;
        if self.copy == CopyState::In {
            self.doubtful += 1;
        } else {
            self.owed.push_back(Request::Sync);
        }
    }

    pub(crate) fn on_copy_end(&mut self) {
        if self.copy == CopyState::In {
            self.copy = CopyState::InEnding;
        }
    }

    pub(crate) fn on_event(&mut self, event: &Event) -> Result<(), ProtocolError> {
        match event {
            Event::ReadyForQuery(status) => {
                if self.owed.pop_front().is_none() {
                    self.doubtful = self.doubtful.checked_sub(1).ok_or(ProtocolError::Unexpected {
                        message: "ReadyForQuery",
                    })?;
                }
                self.status = *status;
                self.copy = CopyState::None;
            }
            Event::CopyInResponse(_) => {
                self.copy = CopyState::In;
                // While it receives COPY data the server ignores Sync (PostgreSQL manual, "COPY
                // Operations"). One sent ahead is lost if it was read in that mode and counts if the
                // statement failed before: nobody can tell. A simple query has no such problem.
                while self.owed.front() == Some(&Request::Sync) {
                    self.owed.pop_front();
                    self.doubtful += 1;
                }
            }
            Event::CopyOutResponse(_) => self.copy = CopyState::Out,
            Event::CopyBothResponse(_) => self.copy = CopyState::Both,
            Event::CommandComplete(_) => self.copy = CopyState::None,
            Event::Error(error) => {
                self.copy = CopyState::None;
                self.closing |= error.is_fatal();
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CopyFormat, Format};
    use crate::text::ServerText;
    use proptest::prelude::*;

    fn idle() -> ProtocolState {
        let mut state = ProtocolState::starting();
        assert!(!state.is_quiet());
        state
            .on_event(&Event::ReadyForQuery(TransactionStatus::Idle))
            .unwrap();
        assert!(state.is_quiet());
        state
    }

    fn copy_in() -> Event {
        Event::CopyInResponse(CopyFormat {
            overall: Format::Text,
            columns: vec![],
        })
    }

    #[test]
    fn every_query_and_sync_owes_one_ready_for_query() {
        let mut state = idle();
        state.on_query();
        state.on_extended();
        state.on_sync();
        state
            .on_event(&Event::ReadyForQuery(TransactionStatus::Idle))
            .unwrap();
        assert_eq!(state.ready_owed(), 1);
        assert!(!state.is_quiet());
        state
            .on_event(&Event::ReadyForQuery(TransactionStatus::InTransaction))
            .unwrap();
        assert_eq!(state.ready_owed(), 0);
        assert!(!state.is_quiet());
    }

    #[test]
    fn a_ready_for_query_nobody_asked_for_breaks_the_protocol() {
        let ready = Event::ReadyForQuery(TransactionStatus::Idle);
        assert_eq!(
            idle().on_event(&ready),
            Err(ProtocolError::Unexpected {
                message: "ReadyForQuery"
            })
        );
    }

    #[test]
    fn extended_messages_without_sync_are_not_quiet_and_forbid_a_query() {
        let mut state = idle();
        state.on_extended();
        assert!(!state.is_quiet());
        assert_eq!(state.may_query(), Err(SendError::SyncMissing));
    }

    #[test]
    fn a_sync_that_copy_may_have_swallowed_makes_the_connection_never_quiet() {
        let mut state = idle();
        state.on_extended();
        state.on_sync();
        state.on_event(&copy_in()).unwrap();
        state.on_copy_end();
        state.on_sync();
        assert_eq!(state.ready_owed(), 1);
        state
            .on_event(&Event::ReadyForQuery(TransactionStatus::Idle))
            .unwrap();
        assert_eq!(state.ready_owed(), 0);
        assert!(!state.is_quiet());
    }

    #[test]
    fn copy_ends_with_its_command_and_data_is_refused_afterwards() {
        let mut state = idle();
        assert_eq!(state.may_copy(), Err(SendError::NotInCopy));
        state.on_query();
        state.on_event(&copy_in()).unwrap();
        assert_eq!(state.may_copy(), Ok(()));
        state.on_copy_end();
        assert_eq!(state.may_copy(), Err(SendError::NotInCopy));
        state
            .on_event(&Event::CommandComplete(ServerText::from("COPY 0")))
            .unwrap();
        assert_eq!(state.copy(), CopyState::None);
        state
            .on_event(&Event::ReadyForQuery(TransactionStatus::Idle))
            .unwrap();
        assert!(state.is_quiet());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Query,
        Extended,
        Sync,
        Answer(TransactionStatus),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let status = prop_oneof![
            Just(TransactionStatus::Idle),
            Just(TransactionStatus::InTransaction),
            Just(TransactionStatus::Failed),
        ];
        let step = prop_oneof![
            Just(Step::Query),
            Just(Step::Extended),
            Just(Step::Sync),
            status.prop_map(Step::Answer),
        ];
        proptest::collection::vec(step, 0..40)
    }

    proptest! {
        #[test]
        fn quiet_means_that_everything_sent_was_answered_outside_a_transaction(steps in steps()) {
            let mut state = idle();
            let (mut sent, mut answered, mut open, mut status) = (0, 0, false, TransactionStatus::Idle);
            for step in steps {
                match step {
                    Step::Query if state.may_query().is_err() => prop_assert!(open),
                    Step::Query => {
                        state.on_query();
                        sent += 1;
                    }
                    Step::Extended => {
                        state.on_extended();
                        open = true;
                    }
                    Step::Sync => {
                        state.on_sync();
                        (sent, open) = (sent + 1, false);
                    }
                    Step::Answer(next) => {
                        let result = state.on_event(&Event::ReadyForQuery(next));
                        prop_assert_eq!(result.is_ok(), answered < sent);
                        if answered < sent {
                            (answered, status) = (answered + 1, next);
                        }
                    }
                }
                prop_assert_eq!(state.ready_owed(), sent - answered);
                let quiet = sent == answered && !open && status == TransactionStatus::Idle;
                prop_assert_eq!(state.is_quiet(), quiet);
            }
        }
    }
}
