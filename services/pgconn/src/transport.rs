//! The socket of one connection with its two buffers, driven by polling.
//!
//! Reading and writing make progress in the same poll, so that a server that stops reading until we read
//! (it has errors or rows to deliver while we send COPY data) never deadlocks with us. Nothing is kept in a
//! future: dropping one loses nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use crate::error::{ConnectionError, Poison};
use crate::event::BackendEvent;
use crate::event_decoder::EventDecoder;
use crate::frame::FrameLimits;

/// A write buffer that grew beyond this is given back once it is empty.
const KEPT_WRITE_BUFFER: usize = 256 * 1024;

/// A TCP connection, encrypted or not.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

pub(crate) struct Transport {
    pub(crate) socket: Socket,
    pub(crate) decoder: EventDecoder,
    pub(crate) out: BytesMut,
    /// Bytes that came from the server so far, encryption not counted.
    pub(crate) received: u64,
    /// Bytes that went to the server so far.
    pub(crate) sent: u64,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    /// Writing failed. What the server said before it closed is worth more, so reading goes on.
    write_error: Option<io::Error>,
    poison: Option<Poison>,
}

impl Transport {
    pub(crate) fn new(socket: Socket, limits: FrameLimits) -> Self {
        Self {
            socket,
            decoder: EventDecoder::new(limits),
            out: BytesMut::new(),
            received: 0,
            sent: 0,
            unflushed: false,
            write_error: None,
            poison: None,
        }
    }

    /// Why the connection cannot be used, if so.
    pub(crate) fn poison(&self) -> Option<Poison> {
        self.poison
            .or_else(|| self.write_error.as_ref().map(|error| Poison::Io(error.kind())))
    }

    /// Ends the connection for good.
    pub(crate) fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        if self.poison.is_none() {
            self.poison = match &error {
                ConnectionError::Io(error) => Some(Poison::Io(error.kind())),
                ConnectionError::Protocol(error) => Some(Poison::Protocol(*error)),
                ConnectionError::Closed | ConnectionError::TerminateTimeout => Some(Poison::Closed),
                ConnectionError::Poisoned { cause } => Some(*cause),
            };
        }
        error
    }

    /// True when nothing waits to be sent and nothing received waits to be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty() && !self.unflushed && self.decoder.is_empty()
    }

    /// Sends what is waiting. Ready when all of it left, or when writing failed, which reading will report.
    pub(crate) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.out.is_empty() && !self.unflushed {
            return Poll::Ready(());
        }
        let result = ready!(self.poll_drain(cx));
        if let Err(error) = result {
            tracing::debug!(%error, "writing to the server failed");
            self.out.clear();
            self.unflushed = false;
            self.write_error = Some(error);
        }
        // `capacity` shrinks as bytes leave; only reclaiming tells the size of the allocation.
        if self.out.try_reclaim(KEPT_WRITE_BUFFER + 1) {
            self.out = BytesMut::new();
        }
        Poll::Ready(())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.has_remaining() {
            let written = ready!(poll_write_buf(Pin::new(&mut self.socket), cx, &mut self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written as u64;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// An event that was already received, without touching the socket.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<BackendEvent>, ConnectionError> {
        if let Some(cause) = self.poison {
            return Err(ConnectionError::Poisoned { cause });
        }
        self.decoder.next_event().map_err(|error| self.fail(error.into()))
    }

    /// The next event, reading as needed and sending what is waiting meanwhile.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<BackendEvent, ConnectionError>> {
        // Whether sending is finished does not matter here: its waker is registered with ours.
        let _ = self.poll_write_out(cx);
        loop {
            if let Some(event) = self.next_buffered()? {
                return Poll::Ready(Ok(event));
            }
            let buffer = self.decoder.read_buffer();
            let error = match ready!(poll_read_buf(Pin::new(&mut self.socket), cx, buffer)) {
                Ok(0) => self.closed(),
                // Some servers end TLS without saying so (no close_notify).
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.closed(),
                Err(error) => ConnectionError::Io(error),
                Ok(read) => {
                    self.received += read as u64;
                    continue;
                }
            };
            return Poll::Ready(Err(self.fail(error)));
        }
    }

    fn closed(&mut self) -> ConnectionError {
        match self.write_error.take() {
            // The server closed; that our own write failed is the same fact.
            Some(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                ) =>
            {
                ConnectionError::Closed
            }
            Some(error) => ConnectionError::Io(error),
            None => ConnectionError::Closed,
        }
    }
}
