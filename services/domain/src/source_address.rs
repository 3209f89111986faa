//! Addresses that calls come from, as they are counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is counted under: itself, or for IPv6 its network of 64 bits, for whoever has one address of that has all 2^64.
/// A text that is no address is counted as it is.
#[must_use]
pub fn block(address: &str) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64 << 64;
            format!("{}/64", Ipv6Addr::from_bits(network))
        }
        Ok(IpAddr::V4(address)) => address.to_string(),
        Err(_) => address.to_owned(),
    }
}

/// The network that an address is in, as one customer has one: 24 bits of IPv4, 48 of IPv6. A text that is no address is a network
/// of its own.
#[must_use]
pub fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 80 << 80;
            format!("{}/48", Ipv6Addr::from_bits(network))
        }
        Ok(IpAddr::V4(address)) => {
            let network = address.to_bits() >> 8 << 8;
            format!("{}/24", Ipv4Addr::from_bits(network))
        }
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_counted_together() {
        assert_eq!(block("2001:db8:0:1::1"), "2001:db8:0:1::/64");
        assert_eq!(block("2001:db8:0:1:ffff::7"), "2001:db8:0:1::/64");
        assert_ne!(block("2001:db8:0:2::1"), block("2001:db8:0:1::1"));
        assert_eq!(block("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(block("192.0.2.1"), "192.0.2.1");
        assert_eq!(block("unknown"), "unknown");
    }

    #[test]
    fn networks_of_one_customer_are_one() {
        assert_eq!(network("192.0.2.1"), "192.0.2.0/24");
        assert_eq!(network("::ffff:192.0.2.200"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:7:1::1"), "2001:db8:7::/48");
        assert_eq!(network("2001:db8:7:ffff::1"), "2001:db8:7::/48");
        assert_ne!(network("2001:db8:8::1"), network("2001:db8:7::1"));
        assert_eq!(network("unknown"), "unknown");
    }
}
