//! The path a request has upstream: the service's path joined with the request's.
//!
//! Kong's `v0` rules (`kong/router/utils.lua`, `get_upstream_uri_v0`), the only ones of the two flavours served
//! here. Escaping is the caller's (`gateward_http::uri::escape_path`).

/// Write the path of the upstream request into `out` (cleared first).
///
/// - `service_path`: the service's `path`; none is `/`.
/// - `strip`: the route's `strip_path`.
/// - `path`: the request's normalised path.
/// - `matched`: how many bytes the route's rule matched, from the front: the length of the prefix or of the
///   regular expression's match. 0 stands for a rule that does not look at the path, which strips the first
///   slash. Not read unless `strip`.
pub fn upstream_path(service_path: Option<&str>, strip: bool, path: &str, matched: usize, out: &mut String) {
    let base = service_path.filter(|path| !path.is_empty()).unwrap_or("/");
    out.clear();
    out.push_str(base);
    if strip {
        join_stripped(path, rest_of(path, matched.max(1)), out);
    } else if base.ends_with('/') {
        out.push_str(path.strip_prefix('/').unwrap_or(path));
    } else if path != "/" {
        out.push_str(path);
    }
}

/// Join the base in `out` with what is left of `path`, with exactly one slash between.
fn join_stripped(path: &str, rest: &str, out: &mut String) {
    match (out.ends_with('/'), rest.starts_with('/')) {
        // Nothing left: whether the result ends in a slash is the request's choice, not the service's.
        (true, _) if rest.is_empty() => {
            if out.len() > 1 && !path.ends_with('/') {
                out.pop();
            }
        }
        (false, _) if rest.is_empty() => {
            if path.len() > 1 && path.ends_with('/') {
                out.push('/');
            }
        }
        (true, true) => out.push_str(&rest[1..]),
        (false, false) => {
            out.push('/');
            out.push_str(rest);
        }
        _ => out.push_str(rest),
    }
}

/// What is left of `path` after `matched` bytes. A prefix may end inside a segment, and what is left of the
/// segment can be `.` or `..` although the path was normalised: that must not climb out of the service's path.
fn rest_of(path: &str, matched: usize) -> &str {
    let mut start = matched.min(path.len());
    while !path.is_char_boundary(start) {
        start += 1;
    }
    let rest = &path[start..];
    match rest {
        "." | ".." => "",
        _ => rest.strip_prefix("./").or_else(|| rest.strip_prefix("../")).unwrap_or(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(service: &str, strip: bool, path: &str, matched: usize, expected: &str) {
        let mut out = "left over".to_owned();
        upstream_path(Some(service), strip, path, matched, &mut out);
        assert_eq!(out, expected, "service {service:?}, strip {strip}, path {path:?}, matched {matched}");
    }

    /// Kong's documented combinations: service path x route path x request path, stripped and not.
    #[test]
    fn kongs_table() {
        // (service path, route path, request path, stripped, not stripped)
        let table = [
            ("/", "/", "/", "/", "/"),
            ("/", "/", "/foo", "/foo", "/foo"),
            ("/", "/", "/foo/", "/foo/", "/foo/"),
            ("/", "/foo", "/foo", "/", "/foo"),
            ("/", "/foo", "/foo/", "/", "/foo/"),
            ("/", "/foo", "/foo/bar", "/bar", "/foo/bar"),
            ("/", "/foo", "/foobar", "/bar", "/foobar"),
            ("/", "/foo/", "/foo/", "/", "/foo/"),
            ("/", "/foo/", "/foo/bar", "/bar", "/foo/bar"),
            ("/srv", "/", "/", "/srv", "/srv"),
            ("/srv", "/", "/foo", "/srv/foo", "/srv/foo"),
            ("/srv", "/", "/foo/", "/srv/foo/", "/srv/foo/"),
            ("/srv", "/foo", "/foo", "/srv", "/srv/foo"),
            ("/srv", "/foo", "/foo/", "/srv/", "/srv/foo/"),
            ("/srv", "/foo", "/foo/bar", "/srv/bar", "/srv/foo/bar"),
            ("/srv", "/foo", "/foobar", "/srv/bar", "/srv/foobar"),
            ("/srv", "/foo", "/foobar/", "/srv/bar/", "/srv/foobar/"),
            ("/srv", "/foo/", "/foo/", "/srv/", "/srv/foo/"),
            ("/srv", "/foo/", "/foo/bar", "/srv/bar", "/srv/foo/bar"),
            ("/srv/", "/", "/", "/srv/", "/srv/"),
            ("/srv/", "/", "/foo", "/srv/foo", "/srv/foo"),
            ("/srv/", "/", "/foo/", "/srv/foo/", "/srv/foo/"),
            ("/srv/", "/foo", "/foo", "/srv", "/srv/foo"),
            ("/srv/", "/foo", "/foo/", "/srv/", "/srv/foo/"),
            ("/srv/", "/foo", "/foo/bar", "/srv/bar", "/srv/foo/bar"),
            ("/srv/", "/foo", "/foobar", "/srv/bar", "/srv/foobar"),
            ("/srv/", "/foo/", "/foo/", "/srv/", "/srv/foo/"),
            ("/srv/", "/foo/", "/foo/bar", "/srv/bar", "/srv/foo/bar"),
        ];
        for (service, route, path, stripped, kept) in table {
            assert!(path.starts_with(route));
            check(service, true, path, route.len(), stripped);
            check(service, false, path, route.len(), kept);
        }
    }

    #[test]
    fn a_rule_without_path_strips_the_slash_only() {
        check("/", true, "/", 0, "/");
        check("/", true, "/foo", 0, "/foo");
        check("/srv", true, "/", 0, "/srv");
        check("/srv", true, "/foo/", 0, "/srv/foo/");
        check("/srv/", true, "/", 0, "/srv/");
    }

    #[test]
    fn no_service_path_is_the_root() {
        for (strip, expected) in [(true, "/bar"), (false, "/foo/bar")] {
            let mut out = String::new();
            upstream_path(None, strip, "/foo/bar", 4, &mut out);
            assert_eq!(out, expected);
            check("", strip, "/foo/bar", 4, expected);
        }
    }

    #[test]
    fn what_is_left_cannot_climb() {
        check("/srv", true, "/foo..", 4, "/srv");
        check("/srv", true, "/foo.", 4, "/srv");
        check("/srv", true, "/foo../bar", 4, "/srv/bar");
        check("/srv/", true, "/foo./bar", 4, "/srv/bar");
        check("/srv", true, "/foo.../bar", 4, "/srv/.../bar");
        check("/srv", true, "/foo..bar", 4, "/srv/..bar");
    }

    #[test]
    fn odd_lengths_do_not_panic() {
        check("/srv", true, "/é", 2, "/srv");
        check("/srv", true, "/foo", 99, "/srv");
        check("/srv", true, "", 0, "/srv");
        check("/srv", false, "", 0, "/srv");
    }
}
