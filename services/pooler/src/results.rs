//! What executions have said, for readers who come later: while they run, and for a while after.
//!
//! What is complete takes a bounded part of the memory; the oldest is forgotten first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::sessions::EventStream;
use domain::id::ExecutionId;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::PoolerError;
use crate::session::{Numbered, Recording};
use crate::spool::{Spool, SpoolError, SpoolSpace};
use crate::status::internal;

/// How long what is complete is kept.
const MEMORY: Duration = Duration::from_secs(5 * 60);
/// Bytes of what is complete that are kept in all.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// And how many executions.
const MOST_COMPLETE: usize = 10_000;
/// Messages spooled before somebody else may have a turn.
const TURN: usize = 8;

/// What is kept of executions.
#[derive(Debug)]
pub(crate) struct Results {
    by_execution: Mutex<HashMap<ExecutionId, Arc<Kept>>>,
    space: SpoolSpace,
}

/// What is kept of one execution: the last of it in memory, and in a file what did not fit while nobody read.
pub(crate) struct Kept {
    recording: Recording,
    spooled: tokio::sync::Mutex<Spooled>,
    space: SpoolSpace,
}

enum Spooled {
    Nothing,
    Some(Box<Spool>),
    /// It was too much, or the file failed: what is not in memory is lost.
    TooMuch,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Results {
    pub(crate) fn new(space: SpoolSpace) -> Self {
        let by_execution = Mutex::default();
        Self { by_execution, space }
    }

    /// Keeps what an execution says from now on.
    pub(crate) fn keep(&self, execution: ExecutionId, recording: Recording) -> Arc<Kept> {
        let kept = Arc::new(Kept {
            recording,
            spooled: tokio::sync::Mutex::new(Spooled::Nothing),
            space: self.space.clone(),
        });
        self.by_execution.lock().insert(execution, Arc::clone(&kept));
        kept
    }

    /// Reads what an execution says after the event of that number. Whoever read before reads no more.
    pub(crate) async fn attach(
        &self,
        execution: ExecutionId,
        after: i64,
    ) -> Result<EventStream, PoolerError> {
        let kept = self.by_execution.lock().get(&execution).cloned();
        match kept {
            Some(kept) => kept.attach(after).await,
            None => Err(PoolerError::ResultExpired),
        }
    }

    /// Forgets an execution.
    pub(crate) fn forget(&self, execution: ExecutionId) {
        self.by_execution.lock().remove(&execution);
    }

    /// Forgets what has been complete for long, and the oldest where there is too much.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut all = self.by_execution.lock();
        let mut complete: Vec<_> = all
            .iter()
            .filter_map(|(execution, kept)| {
                let (bytes, end_time) = kept.recording.size();
                Some((end_time?, *execution, bytes))
            })
            .collect();
        complete.sort_unstable_by_key(|(end_time, ..)| std::cmp::Reverse(*end_time));
        let (mut count, mut bytes) = (0, 0);
        for (end_time, execution, size) in complete {
            (count, bytes) = (count + 1, bytes + size);
            if now.duration_since(end_time) > MEMORY || bytes > MOST_BYTES || count > MOST_COMPLETE {
                all.remove(&execution);
            }
        }
    }
}

impl Kept {
    async fn attach(&self, after: i64) -> Result<EventStream, PoolerError> {
        let mut spooled = self.spooled.lock().await;
        if let Ok(reader) = self.recording.attach(after) {
            if matches!(*spooled, Spooled::TooMuch) {
                *spooled = Spooled::Nothing;
            }
            return Ok(reader.boxed());
        }
        let Spooled::Some(spool) = &*spooled else {
            return Err(PoolerError::ResultExpired);
        };
        if !spool.covers(after) {
            return Err(PoolerError::ResultExpired);
        }
        let rest = self.recording.attach(spool.last());
        let rest = rest.map_err(|_| PoolerError::ResultExpired)?;
        let mut known = after;
        let written = spool.read(after).filter_map(move |next| {
            let next = match next {
                Ok(next) if next.last <= known => None,
                Ok(next) => Some(next.after(std::mem::take(&mut known))),
                Err(error) => Some(Err(internal(&error).into())),
            };
            std::future::ready(next)
        });
        Ok(written.chain(rest).boxed())
    }

    /// Writes down what nobody reads, until the execution has ended. A result that fits into memory stays there.
    pub(crate) async fn spool(&self) {
        while self.recording.overflows().await {
            let mut spooled = self.spooled.lock().await;
            if let Err(error) = self.spool_some(&mut spooled).await {
                tracing::info!(%error, "what an execution says while nobody reads it is not kept any more");
                *spooled = Spooled::TooMuch;
            }
        }
    }

    async fn spool_some(&self, spooled: &mut Spooled) -> Result<(), SpoolError> {
        // What was read last may not have reached anybody, and is about to leave the memory.
        let known = match &*spooled {
            Spooled::Some(spool) => spool.last(),
            Spooled::Nothing => 0,
            Spooled::TooMuch => i64::MAX,
        };
        for read in self.recording.taken(known) {
            self.append(spooled, &read).await?;
        }
        for _ in 0..TURN {
            let Some(next) = self.recording.take() else { break };
            self.append(spooled, &next).await?;
        }
        Ok(())
    }

    async fn append(&self, spooled: &mut Spooled, next: &Numbered) -> Result<(), SpoolError> {
        let begins_anew = match &*spooled {
            Spooled::TooMuch => return Ok(()),
            // More has been read since than is in memory.
            Spooled::Some(spool) => next.first > spool.last() + 1,
            Spooled::Nothing => true,
        };
        if begins_anew {
            *spooled = Spooled::Some(Box::new(self.space.open().await?));
        }
        match spooled {
            Spooled::Some(spool) if next.last > spool.last() => spool.append(next).await,
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
