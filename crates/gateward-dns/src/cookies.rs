//! DNS cookies (RFC 7873) in the interoperable form of RFC 9018: a client that returns the server's cookie is at the address it says.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// How long a server cookie is good (RFC 9018, 4.3).
const LIFETIME_SECONDS: u32 = 3600;
/// How far the clocks of servers that share a key may differ.
const SKEW_SECONDS: u32 = 300;
const CLIENT: usize = 8;
const SERVER: usize = 16;

/// Secrets that server cookies are made with. Servers behind one address share them.
#[derive(Clone)]
pub struct CookieKeys {
    current: [u8; 16],
    /// Good for what was made with it, until every client has a newer cookie (RFC 9018, 5).
    previous: Option<[u8; 16]>,
}

impl std::fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKeys(..)")
    }
}

/// What a query's cookie option says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// Not of any length that is allowed: FORMERR (RFC 7873, 5.2.2).
    Malformed,
    /// The client's cookie alone, or a server cookie that is not ours or too old; with what goes into the answer.
    New([u8; CLIENT + SERVER]),
    /// A server cookie of ours; with what goes into the answer.
    Valid([u8; CLIENT + SERVER]),
}

impl CookieKeys {
    /// Keys; `previous` is still taken but not used for new cookies.
    #[must_use]
    pub fn new(current: [u8; 16], previous: Option<[u8; 16]>) -> Self {
        CookieKeys { current, previous }
    }

    /// Looks at a cookie option from `client` at `now` (seconds since 1970).
    pub(crate) fn check(&self, option: &[u8], client: IpAddr, now: u64) -> Cookie {
        if option.len() != CLIENT && !(16..=40).contains(&option.len()) {
            return Cookie::Malformed;
        }
        // Timestamps wrap as serial numbers do (RFC 9018, 4.3).
        #[expect(clippy::cast_possible_truncation, reason = "seconds modulo 2^32")]
        let now = now as u32;
        let (from_client, from_server) = option.split_at(CLIENT);
        let mut fresh = [0; CLIENT + SERVER];
        fresh[..CLIENT].copy_from_slice(from_client);
        fresh[CLIENT] = 1;
        fresh[12..16].copy_from_slice(&now.to_be_bytes());
        let hash = hash(&self.current, &fresh[..16], client);
        fresh[16..].copy_from_slice(&hash);
        if self.is_valid(from_client, from_server, client, now) { Cookie::Valid(fresh) } else { Cookie::New(fresh) }
    }

    fn is_valid(&self, from_client: &[u8], from_server: &[u8], client: IpAddr, now: u32) -> bool {
        let Ok(server) = <&[u8; SERVER]>::try_from(from_server) else { return false };
        let made = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        let age = now.wrapping_sub(made);
        // In the past up to the lifetime, or a little in the future.
        if server[0] != 1 || (age > LIFETIME_SECONDS && age < SKEW_SECONDS.wrapping_neg()) {
            return false;
        }
        let mut covered = [0; 16];
        covered[..CLIENT].copy_from_slice(from_client);
        covered[CLIENT..].copy_from_slice(&server[..8]);
        [Some(self.current), self.previous]
            .iter()
            .flatten()
            .any(|key| equal(&hash(key, &covered, client), &server[8..]))
    }
}

fn hash(key: &[u8; 16], covered: &[u8], client: IpAddr) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(covered);
    match client {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.finish().to_le_bytes()
}

/// Compares without telling by its time how much agrees.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    fn keys(text: &str) -> CookieKeys {
        CookieKeys::new(unhex(text).try_into().expect("16 octets"), None)
    }

    /// RFC 9018, appendix A.1: learning a new server cookie.
    #[test]
    fn rfc9018_a1_a_new_cookie() {
        let keys = keys("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let client = "198.51.100.100".parse().expect("address");
        let expected = unhex("2464c4abcf10c957010000005cf79f111f8130c3eee29480");
        let Cookie::New(fresh) = keys.check(&unhex("2464c4abcf10c957"), client, 1_559_731_985) else {
            panic!("not new")
        };
        assert_eq!(fresh[..], expected);
        // The same cookie comes back, and later, and too late.
        assert!(matches!(keys.check(&expected, client, 1_559_731_985), Cookie::Valid(_)));
        assert!(matches!(keys.check(&expected, client, 1_559_731_985 + 3600), Cookie::Valid(_)));
        assert!(matches!(keys.check(&expected, client, 1_559_731_985 + 3601), Cookie::New(_)));
        assert!(matches!(keys.check(&expected, client, 1_559_731_985 - 300), Cookie::Valid(_)));
        assert!(matches!(keys.check(&expected, client, 1_559_731_985 - 301), Cookie::New(_)));
        assert!(matches!(
            keys.check(&expected, "198.51.100.101".parse().expect("address"), 1_559_731_985),
            Cookie::New(_)
        ));
    }

    /// RFC 9018, appendix A.3: another server's cookie with reserved bits set is still good.
    #[test]
    fn rfc9018_a3_reserved_bits() {
        let keys = keys("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let client = "203.0.113.203".parse().expect("address");
        let from = unhex("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5");
        assert!(matches!(keys.check(&from, client, 1_559_727_985), Cookie::Valid(_)));
    }

    /// RFC 9018, appendix A.4: the key of before is still taken.
    #[test]
    fn rfc9018_a4_rolled_key() {
        let old: [u8; 16] = unhex("dd3bdf9344b678b185a6f5cb60fca715").try_into().expect("16 octets");
        let new: [u8; 16] = unhex("445536bcd2513298075a5d379663c962").try_into().expect("16 octets");
        let client = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().expect("address");
        let from = unhex("22681ab97d52c298010000005cf7c57926556bd0934c72f8");
        assert!(matches!(CookieKeys::new(new, Some(old)).check(&from, client, 1_559_741_961), Cookie::Valid(_)));
        assert!(matches!(CookieKeys::new(new, None).check(&from, client, 1_559_741_961), Cookie::New(_)));
    }

    #[test]
    fn rfc7873_5_2_lengths() {
        let keys = CookieKeys::new([7; 16], None);
        for length in [0, 1, 7, 9, 15, 41] {
            assert_eq!(keys.check(&vec![0; length], [192, 0, 2, 1].into(), 0), Cookie::Malformed, "{length}");
        }
        for length in [8, 16, 17, 40] {
            assert!(matches!(keys.check(&vec![0; length], [192, 0, 2, 1].into(), 0), Cookie::New(_)), "{length}");
        }
    }
}
