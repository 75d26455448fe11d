//! The fields expressions can name (Kong `kong/router/fields.lua`).

use crate::operand::HeaderName;

/// A field of the request.
#[derive(Debug)]
pub(crate) enum Field {
    Protocol,
    Sni,
    Method,
    Host,
    Path,
    SegmentCount,
    /// The segments of the path from the first to the last of these, counted from 0.
    Segments(usize, usize),
    Header(HeaderName),
    Query(String),
    SourceIp,
    SourcePort,
    SourceEndpoint,
    DestinationIp,
    DestinationPort,
}

impl Field {
    /// The field called `name`, which the schema knows.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "net.protocol" => Self::Protocol,
            "tls.sni" => Self::Sni,
            "http.method" => Self::Method,
            "http.host" => Self::Host,
            "http.path" => Self::Path,
            "http.path.segments.len" => Self::SegmentCount,
            "net.src.ip" => Self::SourceIp,
            "net.src.port" => Self::SourcePort,
            "net.src.vpce_id" => Self::SourceEndpoint,
            "net.dst.ip" => Self::DestinationIp,
            "net.dst.port" | "net.port" => Self::DestinationPort,
            _ => return Self::of_family(name),
        })
    }

    fn of_family(name: &str) -> Result<Self, String> {
        if let Some(header) = name.strip_prefix("http.headers.") {
            return Ok(Self::Header(HeaderName::new(header)));
        }
        if let Some(argument) = name.strip_prefix("http.queries.") {
            return Ok(Self::Query(argument.to_owned()));
        }
        if let Some(range) = name.strip_prefix("http.path.segments.") {
            return parse_segments(range).ok_or_else(|| {
                format!(
                    "`{name}` names no path segments; write http.path.segments.0, ...segments.0_2 or ...segments.len"
                )
            });
        }
        Err(format!("`{name}` is not a field of HTTP requests"))
    }
}

/// `first` or `first_last`, first before last.
fn parse_segments(range: &str) -> Option<Field> {
    match range.split_once('_') {
        None => range.parse().ok().map(|only| Field::Segments(only, only)),
        Some((first, last)) => {
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first < last).then_some(Field::Segments(first, last))
        }
    }
}

/// The segments `first..=last` of a normalised path, joined; `None` when the path has fewer.
///
/// `/a/b/` has two segments: an empty one at the end does not count, as in Kong.
pub(crate) fn segments(path: &str, first: usize, last: usize) -> Option<&str> {
    let path = without_outer_slashes(path)?;
    let start = if first == 0 { 0 } else { path.match_indices('/').nth(first - 1)?.0 + 1 };
    let end = match path[start..].match_indices('/').nth(last - first) {
        Some((end, _)) => start + end,
        None if segment_count_of(&path[start..]) == last - first + 1 => path.len(),
        None => return None,
    };
    Some(&path[start..end])
}

/// How many segments a normalised path has.
pub(crate) fn segment_count(path: &str) -> usize {
    without_outer_slashes(path).map_or(0, segment_count_of)
}

fn segment_count_of(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count() + 1
}

fn without_outer_slashes(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.trim_end_matches('/');
    (!path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_from_zero() {
        for (path, first, last, expected) in [
            ("/a/b/c", 0, 0, Some("a")),
            ("/a/b/c", 2, 2, Some("c")),
            ("/a/b/c/", 2, 2, Some("c")),
            ("/a/b/c", 0, 1, Some("a/b")),
            ("/a/b/c", 1, 2, Some("b/c")),
            ("/a/b/c", 0, 2, Some("a/b/c")),
            ("/a/b/c", 3, 3, None),
            ("/a/b/c", 1, 3, None),
            ("/", 0, 0, None),
            ("", 0, 0, None),
        ] {
            assert_eq!(segments(path, first, last), expected, "{path} {first}_{last}");
        }
        for (path, count) in [("/", 0), ("/a", 1), ("/a/b/c/", 3), ("/a/b/c", 3)] {
            assert_eq!(segment_count(path), count, "{path}");
        }
    }
}
