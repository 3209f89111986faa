//! The task of a session: does its work on a backend, and holds that as long as it is needed. A PINNED session's task
//! lives as long as the session; an AUTO session's as long as there is something to do or to hold.

use std::sync::Arc;

use domain::id::ExecutionId;
use domain::session::ExecutionName;
use pgconn::{ConnectionError, Event};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::execution::HEARTBEAT;
use super::{Ended, Execution, Identity, LastEvents, Seat, Session, Work};
use crate::backend::{Backend, wake_at};
use crate::error::{Loss, LossCause, PoolerError};
use crate::ledger::Class;
use crate::pooler::{NoBackend, Pooler};

/// Serves a session that keeps its backend, to its end.
pub(crate) async fn run(session: Arc<Session>, mut backend: Backend, pooler: Pooler) {
    let _ended = session.ended.clone().drop_guard();
    // Told also where the work panics: a session that nobody serves must not stay among the living.
    let mut gone = Gone::new(&session, &pooler);
    let loss = loop {
        match serve(&session, &mut backend).await {
            Next::Work(execution, work) => {
                let done = Box::pin(perform(&session, &mut backend, execution, *work)).await;
                session.finish(&done.ended, true);
                done.tell();
            }
            // A session that keeps its backend for life gives it up by ending.
            Next::Discard => {}
            Next::End(loss) => break loss,
            Next::BackendGone => break session.set_end(end_of(&backend)),
        }
    };
    gone.tell(loss);
    backend.close().await;
}

/// Serves a session that shares backends, while there is something to do.
pub(crate) async fn run_shared(session: Arc<Session>, pooler: Pooler) {
    let mut gone = Gone::new(&session, &pooler);
    let mut held: Option<Seat> = None;
    let loss = loop {
        if let Some(seat) = session.take_discarded(&mut held) {
            // It says goodbye, and the server rolls back.
            pooler.close_later(seat.backend);
        }
        if held.is_none() {
            held = session.take_returned();
        }
        let next = match &mut held {
            Some(seat) => serve(&session, &mut seat.backend).await,
            None => match (session.end(), session.take_work()) {
                (Some(loss), _) => Next::End(loss),
                (None, Some((execution, work))) => Next::Work(execution, Box::new(work)),
                (None, None) if session.leave() => {
                    gone.not_now();
                    return;
                }
                (None, None) => continue,
            },
        };
        match next {
            Next::Work(execution, work) => {
                held = Box::pin(work_shared(&session, held, execution, *work, &pooler)).await;
            }
            Next::Discard => {}
            Next::End(loss) => break loss,
            Next::BackendGone => {
                // It was held for its pins.
                let cause = held.as_ref().map(|seat| end_of(&seat.backend));
                let loss = session.set_end(cause.unwrap_or(LossCause::BackendTerminated));
                if let Some(seat) = held.take() {
                    seat.backend.close().await;
                }
                break loss;
            }
        }
    };
    gone.tell(loss);
    pooler.part(&session, held).await;
    session.ended.cancel();
}

/// Does one piece of work, and returns the backend where it is still held.
async fn work_shared(
    session: &Session,
    held: Option<Seat>,
    execution: ExecutionId,
    mut work: Work,
    pooler: &Pooler,
) -> Option<Seat> {
    let mut seat = match held {
        Some(seat) => seat,
        None => match Box::pin(find_backend(session, &mut work, pooler)).await {
            Ok(seat) => seat,
            Err(NoBackend::Failed(PoolerError::Moved { owner })) => {
                session.forget_execution();
                // Nothing was run: whoever owns the instance now gets the session, and then the execution.
                let moved = pooler.move_out(session).await;
                work.fail(moved.err().unwrap_or(PoolerError::Moved { owner }));
                return None;
            }
            Err(why) => {
                refuse(session, work, why);
                return None;
            }
        },
    };
    session.sits_on(&seat.backend);
    let done = perform(session, &mut seat.backend, execution, work).await;
    let is_lost = done.ended.lost.is_some() || done.ended.cancel_in_doubt;
    let stays = !done.ended.pins.is_empty();
    let mut kept = None;
    if is_lost {
        pooler.close_later(seat.backend);
    } else if stays {
        seat.backend.slot().reclassify(Class::Pinned);
        kept = Some(seat);
    } else {
        seat.backend.slot().reclassify(Class::Interactive);
        pooler.check_in(session, seat);
    }
    // Only now: whoever reads the end may come with the next execution at once.
    let told = done.last.as_ref().is_some_and(LastEvents::are_read) || done.reply.is_some();
    session.finish(&done.ended, told);
    if let Some(news) = session.news() {
        pooler.note(news);
    }
    done.tell();
    kept
}

/// Looks for a backend, and has whoever reads hear that it goes on.
async fn find_backend(session: &Session, work: &mut Work, pooler: &Pooler) -> Result<Seat, NoBackend> {
    let mut found = Box::pin(pooler.check_out(session, work.audience()));
    loop {
        match timeout(HEARTBEAT, &mut found).await {
            Ok(found) => return found,
            Err(_) => work.waits(session.queue_position()),
        }
    }
}

/// Gives up work that no backend was found for.
fn refuse(session: &Session, work: Work, why: NoBackend) {
    match why {
        NoBackend::Failed(error) => {
            if let PoolerError::StateLost(loss) = &error {
                session.set_end(loss.cause);
            }
            session.forget_execution();
            work.fail(error);
        }
        NoBackend::Cancelled => {
            let ended = Ended::before_it_began();
            session.set_waits_for(None);
            session.finish(&ended, true);
            work.end_early(ended);
        }
    }
}

/// An execution that has ended, and who is to be told.
struct Done {
    ended: Ended,
    last: Option<LastEvents>,
    reply: Option<oneshot::Sender<Result<Ended, PoolerError>>>,
}

impl Done {
    fn tell(self) {
        if let Some(last) = self.last {
            last.send();
        }
        if let Some(reply) = self.reply {
            // Nobody may wait any more.
            let _ = reply.send(Ok(self.ended));
        }
    }
}

/// Says once that a session has ended, whatever happens.
struct Gone<'a> {
    session: Option<&'a Session>,
    pooler: &'a Pooler,
}

impl<'a> Gone<'a> {
    fn new(session: &'a Session, pooler: &'a Pooler) -> Self {
        let session = Some(session);
        Self { session, pooler }
    }

    fn tell(&mut self, loss: Loss) {
        if let Some(session) = self.session.take() {
            tracing::info!(session.id = %session.facts.name.session, cause = %loss.cause, pins = %loss.pins, "session ended");
            self.pooler.forget(session, loss);
            session.watchers.end();
            // Accepted a moment too late.
            if let Some((_, work)) = session.take_work() {
                work.fail(PoolerError::StateLost(loss));
            }
        }
    }

    /// The session lives on without a task.
    fn not_now(&mut self) {
        self.session = None;
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            let loss = session.set_end(LossCause::BackendTerminated);
            self.tell(loss);
            session.ended.cancel();
        }
    }
}

/// What happened to a session that waited on its backend.
enum Next {
    Work(ExecutionId, Box<Work>),
    /// The backend is to be closed, and the session goes on.
    Discard,
    End(Loss),
    BackendGone,
}

/// Why a session ends whose backend is gone.
fn end_of(backend: &Backend) -> LossCause {
    if backend.is_killed() {
        LossCause::Killed
    } else {
        LossCause::BackendTerminated
    }
}

async fn serve(session: &Session, backend: &mut Backend) -> Next {
    loop {
        if let Some(loss) = session.end() {
            return Next::End(loss);
        }
        if session.must_discard() {
            return Next::Discard;
        }
        if backend.is_killed() {
            return Next::BackendGone;
        }
        if let Some((execution, work)) = session.take_work() {
            return Next::Work(execution, Box::new(work));
        }
        tokio::select! {
            biased;
            // First, or a server that never falls silent would never let them come.
            () = session.control.bell.notified() => {}
            // The task is here: it needs no call.
            () = wake_at(&mut backend.timer, session.idle_deadline()) => { let _ = session.expire(); }
            event = backend.connection.next() => {
                match (event, &mut backend.suspended) {
                    // As where `statement_timeout` was over with its last row: the server says so after that row.
                    (Ok(Event::Error(error)), Some(suspended)) if !error.is_fatal() => suspended.fail(error),
                    (event, _) => {
                        if overheard(session, event).is_err() {
                            return Next::BackendGone;
                        }
                    }
                }
            }
        }
    }
}

/// What the server says outside an execution. Nobody reads it but those who follow the session.
fn overheard(session: &Session, event: Result<Event, ConnectionError>) -> Result<(), ConnectionError> {
    match event? {
        // A fatal error is followed by the end.
        Event::Error(error) => tracing::info!(sqlstate = %error.sqlstate, "the server ends a session"),
        Event::Notification {
            process_id,
            channel,
            payload,
        } => session.watchers.tell(process_id, &channel, &payload),
        _ => {}
    }
    Ok(())
}

async fn perform(session: &Session, backend: &mut Backend, execution: ExecutionId, work: Work) -> Done {
    // It does not change before the execution is over.
    let access = session.facts.rights.access();
    backend.access = access;
    match work {
        Work::Script {
            plan,
            output,
            detaching,
            mut audited,
        } => {
            audited.begin(backend);
            let identity = Identity {
                execution: ExecutionName {
                    session: session.facts.name,
                    execution,
                }
                .to_string(),
                incarnation: session.incarnation(),
            };
            let (ended, last) = Execution::new(backend, &session.control, Some(output), identity)
                .access(access)
                .watched_by(&session.watchers)
                .detaching(detaching)
                .run(plan)
                .await;
            audited.finish(&ended);
            Done {
                ended,
                last,
                reply: None,
            }
        }
        Work::Quiet {
            plan,
            copy,
            reply,
            mut audited,
        } => {
            audited.begin(backend);
            let (ended, last) = Execution::new(backend, &session.control, None, Identity::default())
                .access(access)
                .watched_by(&session.watchers)
                .copy_from(copy)
                .run(plan)
                .await;
            audited.finish(&ended);
            Done {
                ended,
                last,
                reply: Some(reply),
            }
        }
    }
}
