//! Watches what a server asks for before it lets somebody in (PostgreSQL manual, 55.2.1).
//!
//! tokio-postgres answers every request for a password. A stream that passes through here breaks off instead, before the
//! request reaches it, where the request is not SCRAM-SHA-256, or where the server lets us in without it: such a server need
//! not know the password, so it need not be the right one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

const OK: u32 = 0;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// Reads the server's messages up to the one that lets us in.
#[derive(Debug, Default)]
struct Watch {
    /// The first bytes of the message that is being read: type, length, and the request's code.
    head: Vec<u8>,
    /// Bytes of the message still to come, after its head.
    rest: usize,
    proven: bool,
    done: bool,
}

impl Watch {
    fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !self.done && !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            self.check_head()?;
        }
        Ok(())
    }

    fn check_head(&mut self) -> io::Result<()> {
        let [kind, a, b, c, d, code @ ..] = self.head.as_slice() else {
            return Ok(());
        };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if *kind != b'R' {
            // An error, or a word on the protocol's version.
            self.rest = length.saturating_sub(4);
            self.head.clear();
            return Ok(());
        }
        let Ok(code) = <[u8; 4]>::try_from(code) else {
            return Ok(());
        };
        match u32::from_be_bytes(code) {
            OK if self.proven => self.done = true,
            SASL | SASL_CONTINUE => {}
            // Its content proves that the server knows the password; tokio-postgres checks that before it reads on.
            SASL_FINAL => self.proven = true,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the server did not ask for SCRAM-SHA-256",
                ));
            }
        }
        self.rest = length.saturating_sub(8);
        self.head.clear();
        Ok(())
    }
}

/// A stream under watch until the server has let us in.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    watch: Watch,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            watch: Watch::default(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        Poll::Ready(this.watch.check(&buf.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn request(code: u32, rest: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes()[..], rest].concat())
    }

    /// True where the server is let through, however its bytes are cut.
    fn passes(bytes: &[u8]) -> bool {
        let whole = Watch::default().check(bytes).is_ok();
        let mut watch = Watch::default();
        let single = bytes.iter().all(|byte| watch.check(&[*byte]).is_ok());
        assert_eq!(whole, single);
        whole
    }

    #[test]
    fn scram_is_let_through() {
        let scram = [
            message(b'v', &[0; 8]),
            request(SASL, b"SCRAM-SHA-256\0\0"),
            request(SASL_CONTINUE, b"r=,s=,i="),
            request(SASL_FINAL, b"v="),
            request(OK, b""),
            // What comes later is nobody's request.
            message(b'R', &[0, 0, 0, 3]),
        ];
        assert!(passes(&scram.concat()));
        assert!(passes(&message(b'E', b"SFATAL\0\0")));
    }

    #[test]
    fn every_other_request_breaks_off() {
        for code in [2, 3, 5, 6, 7, 8, 9, 13, u32::MAX] {
            assert!(!passes(&request(code, b"salt")), "{code}");
        }
    }

    #[test]
    fn server_that_proves_nothing_is_refused() {
        assert!(!passes(&request(OK, b"")));
        assert!(!passes(
            &[request(SASL, b"SCRAM-SHA-256\0\0"), request(OK, b"")].concat()
        ));
    }
}
