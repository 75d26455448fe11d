//! Address prefix lists (RFC 3123): `[!]FAMILY:ADDRESS/PREFIX`.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Cursor;
use crate::lexer::{Fault, Token};

/// One prefix: where it applies, and whether it is taken out of the list.
pub(super) struct Item {
    negated: bool,
    address: IpAddr,
    prefix: u8,
}

/// The list's items; `None` when the octets are no such list or a family is neither 1 nor 2.
pub(super) fn items(mut rest: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(4)?;
        let (negated, len) = (head[3] & 0x80 != 0, usize::from(head[3] & 0x7f));
        let (part, tail) = tail.split_at_checked(len)?;
        // Trailing zeros are left out (RFC 3123, 4).
        if part.last() == Some(&0) {
            return None;
        }
        let address = match [head[0], head[1]] {
            [0, 1] => IpAddr::from(padded::<4>(part)?),
            [0, 2] => IpAddr::from(padded::<16>(part)?),
            _ => return None,
        };
        let item = Item { negated, address, prefix: head[2] };
        if item.prefix > longest(address) {
            return None;
        }
        items.push(item);
        rest = tail;
    }
    Some(items)
}

fn padded<const N: usize>(part: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    octets.get_mut(..part.len())?.copy_from_slice(part);
    Some(octets)
}

fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(super) fn read(words: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    while let Some(token) = words.take() {
        let item = read_item(token).ok_or_else(|| {
            token.fault(format!("`{}` is not a prefix such as 1:192.0.2.0/24 or !2:2001:db8::/32", token.shown()))
        })?;
        let (family, octets) = match item.address {
            IpAddr::V4(address) => (1_u8, address.octets().to_vec()),
            IpAddr::V6(address) => (2, address.octets().to_vec()),
        };
        let len = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        let count = u8::try_from(len).unwrap_or_default();
        out.extend([0, family, item.prefix, count | if item.negated { 0x80 } else { 0 }]);
        out.extend_from_slice(&octets[..len]);
    }
    Ok(())
}

fn read_item(token: &Token<'_>) -> Option<Item> {
    let text = token.ascii()?;
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |text| (true, text));
    let (family, text) = text.split_once(':')?;
    let (address, prefix) = text.split_once('/')?;
    let address = match family {
        "1" => IpAddr::from(address.parse::<Ipv4Addr>().ok()?),
        "2" => IpAddr::from(address.parse::<Ipv6Addr>().ok()?),
        _ => return None,
    };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest(address))?;
    Some(Item { negated, address, prefix })
}

pub(super) fn write(octets: &[u8], out: &mut impl Write) -> fmt::Result {
    for (index, item) in items(octets).unwrap_or_default().into_iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        let negation = if item.negated { "!" } else { "" };
        let family = if item.address.is_ipv4() { 1 } else { 2 };
        write!(out, "{space}{negation}{family}:{}/{}", item.address, item.prefix)?;
    }
    Ok(())
}
