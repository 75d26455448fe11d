//! The name under which an upstream is asked for in TLS: the host of the request, as Kong has it
//! (`proxy_ssl_name $upstream_host`).

/// A host without its port or the brackets of an IPv6 address.
pub(crate) fn bare_host(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    match authority.split_once(':') {
        // More than one colon: an address without brackets.
        Some((host, port)) if !port.contains(':') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_brackets_are_no_part_of_a_name() {
        for (authority, host) in
            [("a.test", "a.test"), ("a.test:8443", "a.test"), ("[::1]:443", "::1"), ("[::1]", "::1"), ("::1", "::1")]
        {
            assert_eq!(bare_host(authority), host);
        }
    }
}
