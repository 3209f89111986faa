//! Free loopback ports.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::random;

/// Below the range that Linux hands to outgoing connections (`ip_local_port_range`, from 32768): a port of
/// that range may be taken by somebody's connection between our look and the server's bind.
const LOWEST: u16 = 10_000;
const HIGHEST: u16 = 32_000;

static HANDED_OUT: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port of 127.0.0.1 nobody listens on now, and that this process has not handed out before.
///
/// # Panics
/// When no free port is found.
#[must_use]
pub fn free_port() -> u16 {
    for _ in 0..1_000 {
        let port = random::number(LOWEST, HIGHEST);
        if !HANDED_OUT
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(port)
        {
            continue;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port found on 127.0.0.1 between {LOWEST} and {HIGHEST}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_handed_out_once_and_can_be_bound() {
        let (first, second) = (free_port(), free_port());
        assert_ne!(first, second);
        TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        TcpListener::bind((Ipv4Addr::LOCALHOST, second)).unwrap();
    }
}
