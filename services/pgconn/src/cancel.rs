//! Cancels what a connection is doing, over a second connection.
//!
//! A CancelRequest may hit whatever the backend runs when it arrives (PostgreSQL manual, "Canceling Requests
//! in Progress"). So sending waits until the server has closed the socket: after `Ok` none is in flight, and
//! the backend may be handed to somebody else once it is quiet.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::config::HostPort;
use crate::encode;
use crate::error::CancelError;
use crate::socket;
use crate::tls::TlsMode;
use crate::transport::Socket;

/// Where the server of a connection is, for cancelling.
#[derive(Debug, Clone)]
pub struct CancelTarget {
    /// The very address the connection went to.
    pub host: HostPort,
    /// Encrypted like the connection, or the secret would leak.
    pub tls: TlsMode,
}

/// What allows cancelling on one backend. The secret is not shown by `Debug`.
#[derive(Clone)]
pub struct CancelKey {
    process_id: i32,
    secret: Bytes,
}

impl CancelKey {
    pub(crate) fn new(process_id: i32, secret: Bytes) -> Self {
        Self { process_id, secret }
    }

    /// Process id of the backend. Behind a pooler it is the pooler's invention.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Asks the server to cancel what the backend runs now and waits until the request has been dealt with.
    ///
    /// `Ok` does not say that anything was cancelled: the statement may have ended before.
    ///
    /// # Errors
    /// [`CancelError`]; after `Timeout { sent: true }` or `Io` the request may still take effect at any
    /// time, so the backend must not be handed to anybody else.
    pub async fn send(&self, target: &CancelTarget, within: Duration) -> Result<(), CancelError> {
        let deadline = Instant::now() + within;
        let mut socket = timeout_at(deadline, socket::open(&target.host, &target.tls))
            .await
            .map_err(|_| CancelError::Timeout { sent: false })?
            .map_err(|error| CancelError::Connect(Box::new(error)))?;
        timeout_at(deadline, self.exchange(&mut socket))
            .await
            .map_err(|_| CancelError::Timeout { sent: true })?
            .map_err(CancelError::Io)
    }

    async fn exchange(&self, socket: &mut Socket) -> io::Result<()> {
        let mut request = BytesMut::new();
        encode::cancel_request(&mut request, self.process_id, &self.secret);
        socket.write_all(&request).await?;
        socket.flush().await?;
        // The server says nothing; it closes when the signal was sent. The deadline ends one that talks.
        let mut answer = [0; 64];
        loop {
            match socket.read(&mut answer).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_in_debug_output() {
        let key = CancelKey::new(7, Bytes::from_static(&[0xab; 4]));
        assert_eq!(format!("{key:?}"), "CancelKey { process_id: 7, .. }");
    }
}
