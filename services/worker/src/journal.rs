//! What an operation has to tell: its progress and its log, kept in memory until the keeper writes them down.
//!
//! Invariants: no secret that was announced is in it; it is bounded, whatever a program prints.

use std::collections::VecDeque;

use domain::operation::{OperationPhase, OperationProgress};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

/// Longest line that is kept.
const LINE_BYTES: usize = 4096;
/// Lines of the end that a failure quotes.
const TAIL_LINES: usize = 12;

#[derive(Debug, Default)]
struct State {
    progress: OperationProgress,
    secrets: Vec<SecretString>,
    pending: String,
    /// Bytes the log may still grow by.
    room: usize,
    tail: VecDeque<String>,
}

/// An operation's progress and log.
#[derive(Debug)]
pub(crate) struct Journal(Mutex<State>);

impl Journal {
    /// A journal whose log takes at most `log_bytes`.
    pub(crate) fn new(log_bytes: usize) -> Self {
        Self(Mutex::new(State {
            room: log_bytes,
            ..State::default()
        }))
    }

    /// From here on this text is replaced wherever it would be logged.
    pub(crate) fn hide(&self, secret: &SecretString) {
        if !secret.expose_secret().is_empty() {
            self.0.lock().secrets.push(secret.clone());
        }
    }

    /// A text as it may be shown.
    pub(crate) fn scrub(&self, text: &str) -> String {
        scrub(text, &self.0.lock().secrets)
    }

    /// Adds a line to the log.
    pub(crate) fn line(&self, text: &str) {
        let mut state = self.0.lock();
        let mut line = scrub(text, &state.secrets);
        if line.len() > LINE_BYTES {
            line.truncate(line.floor_char_boundary(LINE_BYTES));
            line.push('…');
        }
        // PostgreSQL's text has no place for it.
        line.retain(|c| c != '\0');
        if state.room > line.len() {
            state.room -= line.len() + 1;
            state.pending.push_str(&line);
            state.pending.push('\n');
        } else if state.room > 0 {
            state.room = 0;
            state
                .pending
                .push_str("(the log is full; what follows is not kept)\n");
        }
        state.tail.push_back(line);
        if state.tail.len() > TAIL_LINES {
            state.tail.pop_front();
        }
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut OperationProgress)) {
        change(&mut self.0.lock().progress);
    }

    pub(crate) fn enter(&self, phase: OperationPhase) {
        self.update(|progress| progress.phase = Some(phase));
    }

    pub(crate) fn progress(&self) -> OperationProgress {
        self.0.lock().progress
    }

    /// What is to be appended to the stored log, at most `limit` bytes.
    pub(crate) fn take_pending(&self, limit: usize) -> String {
        let mut state = self.0.lock();
        let end = state.pending.floor_char_boundary(limit);
        let rest = state.pending.split_off(end);
        std::mem::replace(&mut state.pending, rest)
    }

    /// Puts back what could not be stored.
    pub(crate) fn put_back(&self, text: &str) {
        self.0.lock().pending.insert_str(0, text);
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> String {
        let state = self.0.lock();
        state
            .tail
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn scrub(text: &str, secrets: &[SecretString]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| {
        text.replace(secret.expose_secret(), "********")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_secrets_are_replaced_everywhere() {
        let journal = Journal::new(1000);
        journal.hide(&SecretString::from("s3cret"));
        journal.line("password s3cret refused: s3crets3cret");
        assert_eq!(journal.tail(), "password ******** refused: ****************");
        assert_eq!(
            journal.take_pending(1000),
            "password ******** refused: ****************\n"
        );
        assert_eq!(journal.scrub("s3cret"), "********");
        assert!(!format!("{journal:?}").contains("s3cret"));
    }

    #[test]
    fn log_is_bounded_and_its_end_is_still_quoted() {
        let journal = Journal::new(100);
        for number in 0..1000 {
            journal.line(&format!("line {number}"));
        }
        let log = journal.take_pending(usize::MAX);
        assert!(log.len() < 200 && log.ends_with("not kept)\n"), "{log}");
        assert!(journal.tail().ends_with("line 999"));
        journal.line(&"ü".repeat(100_000));
        assert!(journal.tail().len() < 5000);
    }

    #[test]
    fn pending_text_is_cut_between_characters_and_put_back() {
        let journal = Journal::new(1000);
        journal.line("aüb");
        let first = journal.take_pending(2);
        assert_eq!(first, "a");
        journal.put_back(&first);
        assert_eq!(journal.take_pending(100), "aüb\n");
    }
}
