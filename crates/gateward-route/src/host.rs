//! Hosts: as routes name them, and as requests send them.
//!
//! Host names have no case (RFC 9110 section 4.2.3), so both sides are lower-cased here, and a dot at the end
//! (the root label) does not tell names apart. Kong compares the raw texts in this flavour; the guide lists the
//! difference.

/// The longest host handled without allocation: a DNS name has at most 253 characters.
const STACK_LEN: usize = 256;

/// A host of a route: `example.com`, `*.example.com`, `example.*`, each with an optional `:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostRule {
    pub(crate) pattern: HostPattern,
    pub(crate) port: Option<u16>,
}

/// The name part of a [`HostRule`], lower-case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// Every host, and none at all.
    Any,
    /// This host.
    Exact(String),
    /// Hosts that end so.
    Suffix(String),
    /// Hosts that start so.
    Prefix(String),
}

impl HostRule {
    /// The rule every request satisfies: that of a route without hosts.
    pub(crate) const ANY: Self = Self { pattern: HostPattern::Any, port: None };

    /// The rule written `text`. Any text is a rule: what cannot be a host matches none.
    pub(crate) fn parse(text: &str) -> Self {
        let (name, port) = split_port(text);
        let name = name.to_ascii_lowercase();
        let pattern = if let Some(suffix) = name.strip_prefix('*') {
            HostPattern::Suffix(without_root(suffix).to_owned())
        } else if let Some(prefix) = name.strip_suffix('*') {
            HostPattern::Prefix(prefix.to_owned())
        } else {
            HostPattern::Exact(without_root(&name).to_owned())
        };
        Self { pattern, port }
    }
}

/// A request's host in the form rules are compared with: lower-case, without the root label's dot.
///
/// Borrows where nothing has to change, which is nearly always.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack of one look-up")]
pub(crate) enum CanonicalHost<'a> {
    AsSent(&'a str),
    Lowered(StackBytes),
}

impl<'a> CanonicalHost<'a> {
    pub(crate) fn new(host: &'a str) -> Self {
        let host = without_root(host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Self::Lowered(StackBytes::collect(host.len(), host.bytes().map(|byte| byte.to_ascii_lowercase())))
        } else {
            Self::AsSent(host)
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::AsSent(host) => host,
            // Lower-casing ASCII letters keeps UTF-8 what it is.
            Self::Lowered(bytes) => str::from_utf8(bytes.as_slice()).unwrap_or(""),
        }
    }
}

/// Bytes on the stack while they are few.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "being large and on the stack is the purpose")]
pub(crate) enum StackBytes {
    Few([u8; STACK_LEN], usize),
    Many(Vec<u8>),
}

impl StackBytes {
    /// The `len` bytes of `bytes`.
    pub(crate) fn collect(len: usize, bytes: impl Iterator<Item = u8>) -> Self {
        if len > STACK_LEN {
            return Self::Many(bytes.collect());
        }
        let mut few = [0; STACK_LEN];
        few.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte);
        Self::Few(few, len)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Few(bytes, len) => &bytes[..*len],
            Self::Many(bytes) => bytes,
        }
    }
}

fn without_root(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// `host:port` taken apart; a text without a port number is all host. IPv6 addresses stand in brackets.
fn split_port(text: &str) -> (&str, Option<u16>) {
    let colon = if text.starts_with('[') { text.find("]:").map(|at| at + 1) } else { text.find(':') };
    let Some(colon) = colon else { return (text, None) };
    match text[colon + 1..].parse() {
        Ok(port) => (&text[..colon], Some(port)),
        Err(_) => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, pattern: HostPattern, port: Option<u16>) {
        assert_eq!(HostRule::parse(text), HostRule { pattern, port }, "{text}");
    }

    #[test]
    fn rules_are_lower_cased_and_taken_apart() {
        check("Example.COM", HostPattern::Exact("example.com".into()), None);
        check("example.com.", HostPattern::Exact("example.com".into()), None);
        check("example.com:8080", HostPattern::Exact("example.com".into()), Some(8080));
        check("*.Example.com", HostPattern::Suffix(".example.com".into()), None);
        check("*.example.com:1", HostPattern::Suffix(".example.com".into()), Some(1));
        check("Example.*", HostPattern::Prefix("example.".into()), None);
        check("example.*:80", HostPattern::Prefix("example.".into()), Some(80));
        check("[::1]", HostPattern::Exact("[::1]".into()), None);
        check("[::1]:80", HostPattern::Exact("[::1]".into()), Some(80));
        check("example.com:x", HostPattern::Exact("example.com:x".into()), None);
    }

    #[test]
    fn request_hosts_become_canonical() {
        let long = "A".repeat(1000);
        for (host, expected) in [
            ("example.com", "example.com".to_owned()),
            ("Example.Com", "example.com".to_owned()),
            ("EXAMPLE.com.", "example.com".to_owned()),
            ("", String::new()),
            (".", String::new()),
            ("BÜCHER.de", "bÜcher.de".to_owned()),
            (long.as_str(), long.to_lowercase()),
        ] {
            assert_eq!(CanonicalHost::new(host).as_str(), expected, "{host}");
        }
    }
}
