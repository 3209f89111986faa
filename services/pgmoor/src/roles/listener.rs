//! Sockets, bound before anything else starts, so that a port that is taken is the first thing said.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use config::problem::variable_of;
use tokio::net::TcpListener;

/// Binds the address that `key` names.
///
/// # Errors
/// When it cannot be bound; a port that is taken is called that, with the key to change.
pub(crate) async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => anyhow!(
                "{address} is taken by another process: stop it, or choose another address with {key} ({})",
                variable_of(key)
            ),
            _ => anyhow::Error::new(error).context(format!("{key} = {address} cannot be listened on")),
        })
}

/// The address a listener got, for port 0.
///
/// # Errors
/// When the operating system cannot tell.
pub(crate) fn address(listener: &TcpListener) -> anyhow::Result<SocketAddr> {
    listener
        .local_addr()
        .context("the listening address cannot be read")
}
