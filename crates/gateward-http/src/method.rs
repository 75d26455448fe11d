//! Request methods: the registered ones as a small enum, extension methods by their text.

/// A request method (RFC 9110 section 9; RFC 5789 for PATCH).
///
/// Methods are case-sensitive. An extension method is kept as text so that it can be forwarded as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// Transfer a current representation of the target.
    #[default]
    Get,
    /// GET without the content.
    Head,
    /// Process the content as the target sees fit.
    Post,
    /// Replace the target's state.
    Put,
    /// Remove the target.
    Delete,
    /// Establish a tunnel. Refused by the gateway unless allowed.
    Connect,
    /// Describe the communication options.
    Options,
    /// Loop-back test.
    Trace,
    /// Partial change (RFC 5789).
    Patch,
    /// Any other token.
    Other(Box<str>),
}

impl Method {
    /// The method for `text`, which must be a token (RFC 9110 section 5.6.2); `None` when it is not.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ if !text.is_empty() && text.bytes().all(is_token_byte) => Self::Other(text.into()),
            _ => return None,
        })
    }

    /// The method as it stands in a request line.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other(text) => text,
        }
    }

    /// Whether repeating the request has the effect of sending it once (RFC 9110 section 9.2.2).
    ///
    /// Only these may be sent again once bytes of a first try went out. Unknown methods are not idempotent.
    pub fn is_idempotent(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(
            byte as u8,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        ) || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_methods_round_trip_and_unknown_ones_keep_their_text() {
        for text in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PURGE", "get"] {
            assert_eq!(Method::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(Method::parse("get"), Some(Method::Other("get".into())));
    }

    #[test]
    fn a_method_must_be_a_token() {
        for text in ["", "GE T", "G\tT", "G(T", "GÉT"] {
            assert_eq!(Method::parse(text), None, "{text:?}");
        }
    }
}
