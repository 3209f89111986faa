//! A TCP relay in front of a server, which can fall silent: connections stay open and new ones are taken, and nothing passes.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A relay to a port of this machine. Dropping it closes its connections.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    silent: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

impl Relay {
    /// Listens on a port of its own and passes on what comes there.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silent, heard) = watch::channel(false);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, to, heard));
        Self {
            port,
            silent,
            _accepting: accepting,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Keeps back from now on whatever is sent, both ways.
    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// Passes on what was kept back, and what comes.
    pub fn resume(&self) {
        self.silent.send_replace(false);
    }
}

async fn accept(listener: TcpListener, to: u16, silent: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(pass(client, to, silent.clone()));
    }
}

async fn pass(client: TcpStream, to: u16, silent: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pump(from_client, to_server, silent.clone()),
        pump(from_server, to_client, silent),
    );
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut silent: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let is_over = silent.wait_for(|silent| !*silent).await.is_err();
        if is_over || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn silent_relay_keeps_back_what_is_sent_until_it_resumes() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(server.local_addr().unwrap().port()).await;
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port()))
            .await
            .unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut byte = [0];
        client.write_all(b"a").await.unwrap();
        served.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"a");
        relay.fall_silent();
        client.write_all(b"b").await.unwrap();
        let kept = timeout(Duration::from_millis(100), served.read_exact(&mut byte)).await;
        kept.unwrap_err();
        relay.resume();
        served.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"b");
    }
}
