//! One connection to a PostgreSQL server: messages go out, events come in.
//!
//! Messages are encoded into a write buffer by plain methods and leave while the connection is driven, by
//! [`Connection::next`] or [`Connection::flush_or_next`]. The invariant: no future holds state, so any of
//! them may be dropped (as `select!` does) and called again; and after the first failure the connection says
//! so for ever.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

use crate::cancel::{CancelKey, CancelTarget};
use crate::config::{ConnectConfig, HostPort};
use crate::error::{ConnectError, ConnectionError, Poison, ProtocolError};
use crate::event::{BackendEvent, Event, TransactionStatus};
use crate::lingering::{FailedConnect, Lingering};
use crate::parameters::Parameters;
use crate::socket;
use crate::startup::{self, Authentication, Started};
use crate::state::{CopyState, ProtocolState};
use crate::transport::Transport;

/// What [`Connection::flush_or_next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Everything encoded so far has left.
    Flushed,
    /// The server said something; there may be more to send.
    Event(Event),
}

/// A connection that has completed start-up. Dropping it closes the socket.
pub struct Connection {
    pub(crate) transport: Transport,
    pub(crate) state: ProtocolState,
    parameters: Parameters,
    cancel_key: Option<CancelKey>,
    cancel_target: CancelTarget,
    authentication: Authentication,
}

impl Connection {
    /// Connects to the first host that answers and logs in.
    ///
    /// # Errors
    /// [`ConnectError`] of the last host tried.
    pub async fn connect(config: &ConnectConfig) -> Result<Self, ConnectError> {
        let connected = Self::connect_or_linger(config).await;
        connected.map_err(|failed| failed.error)
    }

    /// [`Connection::connect`] for callers who count connections: what the server may still hold of a failed
    /// one comes with the error.
    ///
    /// # Errors
    /// [`ConnectError`] of the last host tried, and what lingers at any of them.
    pub async fn connect_or_linger(config: &ConnectConfig) -> Result<Self, FailedConnect> {
        let mut failed = FailedConnect {
            error: ConnectError::Configuration {
                reason: "hosts is empty",
            },
            lingering: Vec::new(),
        };
        // Wrong configuration is said at once, before anybody is contacted.
        if let Err(error) = config.startup() {
            return Err(FailedConnect { error, ..failed });
        }
        let deadline = Instant::now() + config.connect_timeout;
        for (index, host) in config.hosts.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let hosts_left = u32::try_from(config.hosts.len() - index).unwrap_or(u32::MAX);
            // Boxed: it is by far the largest future here, and callers hold ours.
            match Box::pin(Self::open(config, host, left / hosts_left)).await {
                Ok(connection) => return Ok(connection),
                Err((error, lingering)) => {
                    failed.error = error;
                    failed.lingering.extend(lingering);
                }
            }
            if !tries_next_host(&failed.error) {
                break;
            }
        }
        Err(failed)
    }

    async fn open(
        config: &ConnectConfig,
        host: &HostPort,
        within: Duration,
    ) -> Result<Self, (ConnectError, Option<Lingering>)> {
        let addr = host.address;
        let deadline = Instant::now() + within;
        let late = || ConnectError::Timeout { addr, after: within };
        let socket = timeout_at(deadline, socket::open(host, &config.tls)).await;
        let socket = socket
            .unwrap_or_else(|_| Err(late()))
            .map_err(|error| (error, None))?;
        let mut transport = Transport::new(socket, config.limits);
        let started = timeout_at(deadline, startup::run(&mut transport, addr, config)).await;
        let Started {
            state,
            parameters,
            cancel_key,
            authentication,
        } = match started.unwrap_or_else(|_| Err(late())) {
            Ok(started) => started,
            Err(error) => return Err((error, Some(Lingering::new(transport.socket)))),
        };
        let cancel_target = CancelTarget {
            host: host.clone(),
            tls: config.tls.clone(),
        };
        Ok(Self {
            transport,
            state,
            parameters,
            cancel_key,
            cancel_target,
            authentication,
        })
    }

    // Receiving.

    /// The next event, sending what is waiting meanwhile. Cancel-safe.
    ///
    /// # Errors
    /// [`ConnectionError`]; the connection is then poisoned.
    pub async fn next(&mut self) -> Result<Event, ConnectionError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Connection::next`] for hand-written futures.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, ConnectionError>> {
        self.transport.poll_event(cx)?.map(|event| self.accept(event))
    }

    /// An event that has already been received, without a system call: drain these after each
    /// [`Connection::next`] to handle a whole read as one batch.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub fn next_buffered(&mut self) -> Result<Option<Event>, ConnectionError> {
        match self.transport.next_buffered()? {
            Some(event) => self.accept(event).map(Some),
            None => Ok(None),
        }
    }

    /// The next event if one has arrived, without waiting. Ask before reusing an idle connection: a server
    /// that shut down or a notification shows here.
    ///
    /// # Errors
    /// As [`Connection::next`]; [`ConnectionError::Closed`] when the server is gone.
    pub fn try_next(&mut self) -> Result<Option<Event>, ConnectionError> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    fn accept(&mut self, event: BackendEvent) -> Result<Event, ConnectionError> {
        let BackendEvent::Session(event) = event else {
            let error = ProtocolError::Unexpected { message: "start-up" };
            return Err(self.transport.fail(error.into()));
        };
        if let Err(error) = self.state.on_event(&event) {
            return Err(self.transport.fail(error.into()));
        }
        if let Event::ParameterStatus { name, value } = &event {
            self.parameters.set(name, value.clone());
        }
        Ok(event)
    }

    // Sending.

    /// Sends what is waiting, or returns what the server says before that is possible. Cancel-safe.
    ///
    /// This is how COPY data is sent without deadlock: encode some, call this until `Flushed`, and act on the
    /// events it returns (an error ends the COPY).
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub async fn flush_or_next(&mut self) -> Result<Progress, ConnectionError> {
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(event) => Poll::Ready(event.map(Progress::Event)),
            Poll::Pending if self.transport.poison().is_some() => Poll::Pending,
            Poll::Pending => self.transport.poll_write_out(cx).map(|()| Ok(Progress::Flushed)),
        })
        .await
    }

    /// Bytes encoded that have not left yet.
    pub fn pending_out(&self) -> usize {
        self.transport.out.len()
    }

    /// Says goodbye and waits until the server has closed the connection, that is, its slot is free.
    ///
    /// # Errors
    /// [`ConnectionError::TerminateTimeout`] when it has not after `within`; the socket is closed anyway.
    /// `Io` when the connection broke instead.
    pub async fn terminate(mut self, within: Duration) -> Result<(), ConnectionError> {
        if self.transport.poison().is_some() {
            return Ok(());
        }
        frontend::terminate(&mut self.transport.out);
        let deadline = Instant::now() + within;
        match timeout_at(deadline, self.drain()).await {
            Ok(Err(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(ConnectionError::Io(error))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(ConnectionError::TerminateTimeout),
        }
    }

    /// Says goodbye and waits until the server has let go, however long that takes: a backend may be deep in a statement
    /// and not look at its socket. Keepalive ends the wait for a server that is gone.
    pub async fn gone(mut self) {
        // After a broken message the socket is still there, and a backend behind it that goes on.
        if let None | Some(Poison::Protocol(_)) = self.transport.poison() {
            frontend::terminate(&mut self.transport.out);
            if let Err(error) = self.drain().await {
                tracing::debug!(%error, "a connection did not end as it should");
            }
        }
    }

    /// Reads and drops everything up to the end, while what is waiting is sent: a server that is sending
    /// would otherwise never get to our goodbye.
    async fn drain(&mut self) -> io::Result<()> {
        let mut dropped = vec![0; 16 * 1024];
        loop {
            let length = poll_fn(|cx| {
                let _ = self.transport.poll_write_out(cx);
                let mut buffer = ReadBuf::new(&mut dropped);
                ready!(Pin::new(&mut self.transport.socket).poll_read(cx, &mut buffer))?;
                Poll::Ready(io::Result::Ok(buffer.filled().len()))
            })
            .await?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    // State.

    /// Transaction status of the last ReadyForQuery.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.state.status()
    }

    /// Whether and in which direction COPY is under way.
    pub fn copy_state(&self) -> CopyState {
        self.state.copy()
    }

    /// How many ReadyForQuery the server still owes.
    pub fn ready_owed(&self) -> usize {
        self.state.ready_owed()
    }

    /// True while a Sync is to follow what was sent: a portal may be open, and with it an implicit transaction.
    pub fn is_unsynced(&self) -> bool {
        self.state.is_unsynced()
    }

    /// True when the session is outside a transaction, the server owes nothing, and nothing received or to
    /// be sent is waiting. What has arrived at the socket is seen by [`Connection::try_next`] only.
    pub fn is_quiet(&self) -> bool {
        self.transport.poison().is_none() && self.state.is_quiet() && self.transport.is_empty()
    }

    /// Why the connection cannot be used any more; `None` while it can.
    pub fn poison(&self) -> Option<Poison> {
        self.transport.poison()
    }

    /// Settings the server reports.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Process id of the backend, from its cancel key. A pooler in between reports its own number.
    pub fn process_id(&self) -> Option<i32> {
        self.cancel_key.as_ref().map(CancelKey::process_id)
    }

    /// What allows cancelling; `None` when the server gave nothing (some poolers).
    pub fn cancel_key(&self) -> Option<&CancelKey> {
        self.cancel_key.as_ref()
    }

    /// Where a cancel request for this connection has to go.
    pub fn cancel_target(&self) -> &CancelTarget {
        &self.cancel_target
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        self.cancel_target.host.address
    }

    /// Bytes received from the server and sent to it so far, start-up included and encryption not.
    pub fn traffic(&self) -> (u64, u64) {
        (self.transport.received, self.transport.sent)
    }

    /// How the connection was authenticated.
    pub fn authentication(&self) -> Authentication {
        self.authentication
    }

    /// Size of the largest read buffer so far, in bytes.
    pub fn largest_read_buffer(&self) -> usize {
        self.transport.decoder.largest_buffer()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Buffers hold users' data and stay out.
        f.debug_struct("Connection")
            .field("address", &self.address())
            .field("process_id", &self.process_id())
            .field("transaction_status", &self.transaction_status())
            .field("ready_owed", &self.ready_owed())
            .field("poison", &self.poison())
            .finish_non_exhaustive()
    }
}

/// Whether another host may do better. A server that knows who we are and refuses will not be circumvented.
fn tries_next_host(error: &ConnectError) -> bool {
    match error {
        ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } | ConnectError::Lost { .. } => true,
        ConnectError::Server(error) => error.sqlstate == "57P03",
        _ => false,
    }
}
