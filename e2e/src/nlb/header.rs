//! PROXY version 2 headers as an NLB writes them: AWS's entry 0xEA, and LOCAL for its own checks.

use std::net::SocketAddr;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Type of AWS's entry, and its only kind: the id of a VPC endpoint.
const AWS: u8 = 0xEA;
const AWS_VPCE_ID: u8 = 0x01;

/// The header of a client's connection from `source` to the balancer's `destination`, which are of one family.
pub(crate) fn proxy(source: SocketAddr, destination: SocketAddr, vpce_id: Option<&str>) -> Vec<u8> {
    let mut rest = Vec::new();
    let family = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            rest.extend_from_slice(&source.ip().octets());
            rest.extend_from_slice(&destination.ip().octets());
            0x11
        }
        (source, destination) => {
            for address in [source, destination] {
                let ip = match address.ip() {
                    std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    std::net::IpAddr::V6(ip) => ip,
                };
                rest.extend_from_slice(&ip.octets());
            }
            0x21
        }
    };
    rest.extend_from_slice(&source.port().to_be_bytes());
    rest.extend_from_slice(&destination.port().to_be_bytes());
    if let Some(id) = vpce_id {
        let length = u16::try_from(1 + id.len()).expect("an endpoint's id is short");
        rest.push(AWS);
        rest.extend_from_slice(&length.to_be_bytes());
        rest.push(AWS_VPCE_ID);
        rest.extend_from_slice(id.as_bytes());
    }
    let length = u16::try_from(rest.len()).expect("addresses and one id are short");
    [SIGNATURE.as_slice(), &[0x21, family], &length.to_be_bytes(), &rest].concat()
}

/// The header of a connection of the balancer's own, such as a health check.
pub(crate) fn local() -> Vec<u8> {
    [SIGNATURE.as_slice(), &[0x20, 0x00, 0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let header = proxy("192.0.2.7:4321".parse().unwrap(), "10.0.0.9:443".parse().unwrap(), Some("vpce-1"));
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
        expected.extend_from_slice(&[0, 22, 192, 0, 2, 7, 10, 0, 0, 9, 0x10, 0xE1, 0x01, 0xBB, 0xEA, 0, 7, 1]);
        expected.extend_from_slice(b"vpce-1");
        assert_eq!(header, expected);
        let header = proxy("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap(), None);
        assert_eq!((header.len(), header[13], header[15]), (16 + 36, 0x21, 36));
        assert_eq!(local().len(), 16);
    }
}
