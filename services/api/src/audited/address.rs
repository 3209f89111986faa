//! Where a call came from.
//!
//! Invariant: an entry of `X-Forwarded-For` is believed only where who added it is known to be a proxy: it came from an address
//! in a network that the operator named. Who goes around the proxies, or around some of them, says nothing about itself. What
//! a client puts into the header stands to the left of what the proxies add, and is not looked at.

use std::net::{IpAddr, SocketAddr};

use http::request::Parts;
use ipnet::IpNet;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies in front of an API instance, each of which adds the address it was called from to `X-Forwarded-For`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedHops {
    /// How many there are at most. 0: the header is not read.
    pub count: usize,
    /// Where they are. Nobody else is one.
    pub networks: Vec<IpNet>,
}

/// Where a call came from, for its handler; empty where it came over no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallerAddress(pub(crate) String);

impl TrustedHops {
    /// So many proxies at most, all of them in these networks.
    ///
    /// # Errors
    /// The text that is no network.
    pub fn new(count: usize, networks: &[String]) -> Result<Self, String> {
        let network = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse()).map_err(|_| text.clone())
        };
        Ok(Self {
            count,
            networks: networks.iter().map(network).collect::<Result<_, _>>()?,
        })
    }

    /// The address a request came from; empty where it came over no network.
    pub(crate) fn address(&self, parts: &Parts) -> String {
        let Some(peer) = peer(parts) else {
            return String::new();
        };
        self.walk(peer.ip().to_canonical(), parts).to_string()
    }

    /// From the peer to whom it was called from, and on, as long as the one at hand is a proxy.
    fn walk(&self, peer: IpAddr, parts: &Parts) -> IpAddr {
        let values = parts.headers.get_all(FORWARDED_FOR).iter().rev();
        let from_the_right = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        let mut address = peer;
        for entry in from_the_right.take(self.count) {
            if !self.is_proxy(address) {
                break;
            }
            // What is no address says nothing, and neither does what stands before it.
            let Some(from) = std::str::from_utf8(entry)
                .ok()
                .and_then(|entry| parse(entry.trim()))
            else {
                break;
            };
            address = from;
        }
        address
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// An address, perhaps with a port.
fn parse(entry: &str) -> Option<IpAddr> {
    let unbracketed = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = unbracketed.unwrap_or(entry).parse::<IpAddr>().ok();
    let address = address.or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

fn peer(parts: &Parts) -> Option<SocketAddr> {
    let tcp = parts.extensions.get::<TcpConnectInfo>();
    let tls = parts.extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    tcp.or_else(|| tls.map(TlsConnectInfo::get_ref))
        .and_then(TcpConnectInfo::remote_addr)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    const PROXY: &str = "10.0.0.1";
    const PROXIES: &str = "10.0.0.0/8";

    fn address(hops: usize, networks: &[&str], headers: &[&'static str]) -> String {
        let mut request = Request::new(());
        for value in headers {
            request
                .headers_mut()
                .append(FORWARDED_FOR, HeaderValue::from_static(value));
        }
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(SocketAddr::new(PROXY.parse().unwrap(), 1234)),
        });
        let hops = TrustedHops {
            count: hops,
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        };
        hops.address(&request.into_parts().0)
    }

    #[test]
    fn header_is_not_read_without_trusted_hops() {
        assert_eq!(address(0, &[PROXIES], &["192.0.2.1"]), PROXY);
    }

    #[test]
    fn what_a_client_claims_is_to_the_left_of_what_proxies_add() {
        assert_eq!(address(1, &[PROXIES], &["192.0.2.66, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(address(1, &[PROXIES], &["192.0.2.66", "192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            address(2, &[PROXIES], &["192.0.2.66, 192.0.2.1, 10.0.0.2"]),
            "192.0.2.1"
        );
        // There are no more proxies than are said, whatever their networks.
        assert_eq!(address(1, &[PROXIES], &["192.0.2.66, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn who_goes_around_the_proxies_says_nothing_about_itself() {
        assert_eq!(address(1, &["10.0.0.0/8"], &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(address(1, &["10.1.0.0/16"], &["192.0.2.1"]), PROXY);
        // No network, no proxy.
        assert_eq!(address(1, &[], &["192.0.2.66"]), PROXY);
        assert_eq!(address(2, &[], &["192.0.2.66, 192.0.2.1"]), PROXY);
    }

    #[test]
    fn who_goes_around_the_first_proxy_says_nothing_about_itself() {
        // The last one wrote down whom it was called from, and that is no proxy.
        assert_eq!(address(2, &[PROXIES], &["192.0.2.66, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(
            address(3, &[PROXIES], &["10.0.0.9, 192.0.2.66, 192.0.2.1"]),
            "192.0.2.1"
        );
        assert_eq!(address(2, &[PROXIES], &["192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn entry_that_is_no_address_ends_what_is_believed() {
        assert_eq!(
            address(2, &[PROXIES], &["192.0.2.1, unknown, 10.0.0.2"]),
            "10.0.0.2"
        );
        assert_eq!(address(2, &[PROXIES], &["192.0.2.66, unknown"]), PROXY);
    }

    #[test]
    fn addresses_are_read_in_every_form_proxies_write() {
        for (written, read) in [
            ("192.0.2.1:8080", "192.0.2.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:8080", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("unknown", PROXY),
            ("", PROXY),
            ("<script>", PROXY),
        ] {
            assert_eq!(address(1, &[PROXIES], &[written]), read, "{written}");
        }
    }
}
