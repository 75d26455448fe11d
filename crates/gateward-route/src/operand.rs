//! What rules compare requests with: header names and networks.

use crate::Input;
use std::net::{IpAddr, SocketAddr};

/// A header a rule names. Rules do not tell `-` from `_`, as in Kong; where a request has both spellings, the
/// one with underscores counts, as there.
#[derive(Debug)]
pub(crate) struct HeaderName {
    /// In the order they are looked for; the first present counts.
    spellings: Vec<String>,
}

impl HeaderName {
    pub(crate) fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let mut spellings = vec![name.replace('-', "_"), name.replace('_', "-"), name];
        spellings.dedup();
        Self { spellings }
    }

    /// The values of the header, in order.
    pub(crate) fn values<'a>(&'a self, input: &Input<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let headers = input.headers;
        let spelling = self.spellings.iter().find(|name| headers.contains(name.as_str()));
        spelling.into_iter().flat_map(move |name| headers.get_all(name.as_str()))
    }
}

/// The addresses that share a number of leading bits; a single address is a network of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    ip: IpAddr,
    bits: u8,
}

impl Network {
    /// Parse `address` or `address/bits`. Bits of the address behind the network's are ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { ip, bits })
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        match (self.ip, canonical_ip(ip)) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let differs = u32::from(own) ^ u32::from(ip);
                differs.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let differs = u128::from(own) ^ u128::from(ip);
                differs.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// IPv4 clients of a listener for both families come as mapped addresses; rules name them as IPv4.
pub(crate) fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// The address and port of one side, for expressions.
pub(crate) fn ip_of(address: SocketAddr) -> IpAddr {
    canonical_ip(address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, ip, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.9.9.9/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "200.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ] {
            let network_value = Network::parse(network).unwrap();
            assert_eq!(network_value.contains(ip.parse().unwrap()), expected, "{ip} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "x/8"] {
            assert!(Network::parse(text).is_none(), "{text}");
        }
    }
}
