//! What may be left of a connection that did not come about.
//!
//! A server makes a process for each connection before it asks who is there, and that process may hang: behind
//! a lock on a catalog, say. It counts towards `max_connections` and does not look at its socket, so closing
//! ours tells it nothing. Whoever counts connections counts it until the server has closed its end.

use std::fmt;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::ConnectError;
use crate::transport::Socket;

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct FailedConnect {
    /// Why, at the last host that was tried.
    #[source]
    pub error: ConnectError,
    /// What may still be there.
    pub lingering: Vec<Lingering>,
}

/// A start-up that was given up, on our side.
pub struct Lingering(Socket);

impl Lingering {
    pub(crate) fn new(socket: Socket) -> Self {
        Self(socket)
    }

    /// Waits until the server has let go, however long that takes. Keepalive ends the wait for a server that is
    /// gone.
    pub async fn gone(mut self) {
        // A server that comes back to its socket finds that nobody is there. If this fails, so will reading.
        let _ = self.0.shutdown().await;
        let mut dropped = vec![0; 1024];
        while let Ok(1..) = self.0.read(&mut dropped).await {}
    }
}

impl fmt::Debug for Lingering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lingering")
    }
}
