//! Query strings and form bodies: reading and removing arguments without taking the text apart for good.
//!
//! Names and values are compared decoded (`%XX`, `+`); what is not touched keeps the bytes it came with. An
//! argument without `=` has no value, which Kong's Lua sees as `true`.

use std::borrow::Cow;

/// The arguments of `query` in order, raw: name and, when there is a `=`, value.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, Option<&str>)> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (pair, None),
    })
}

/// What is known of one argument.
#[derive(Debug, PartialEq, Eq)]
pub enum Argument<'a> {
    /// Not there.
    Absent,
    /// There, once, without `=`.
    Bare,
    /// There once, decoded.
    Once(Cow<'a, str>),
    /// There more than once.
    Repeated,
}

/// Looks `name` up in `query`. Does not allocate unless the value is escaped.
pub fn argument<'a>(query: &'a str, name: &str) -> Argument<'a> {
    let mut found = pairs(query).filter(|(raw, _)| is_named(raw, name)).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (None, _) => Argument::Absent,
        (Some(_), Some(_)) => Argument::Repeated,
        (Some(None), None) => Argument::Bare,
        (Some(Some(value)), None) => Argument::Once(decode(value)),
    }
}

/// `query` without the arguments called `name`; `None` when there are none of these.
pub fn without(query: &str, name: &str) -> Option<String> {
    if !pairs(query).any(|(raw, _)| is_named(raw, name)) {
        return None;
    }
    let mut rest = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let raw = pair.split_once('=').map_or(pair, |(raw, _)| raw);
        if !is_named(raw, name) {
            if !rest.is_empty() {
                rest.push('&');
            }
            rest.push_str(pair);
        }
    }
    Some(rest)
}

fn is_named(raw: &str, name: &str) -> bool {
    raw == name || (needs_decoding(raw) && decode(raw) == name)
}

fn needs_decoding(raw: &str) -> bool {
    raw.bytes().any(|byte| byte == b'%' || byte == b'+')
}

/// `raw` with `+` as space and `%XX` as bytes; a `%` that starts no escape stands for itself, bytes that are no
/// UTF-8 become U+FFFD.
pub fn decode(raw: &str) -> Cow<'_, str> {
    if !needs_decoding(raw) {
        return Cow::Borrowed(raw);
    }
    let decoded = decode_bytes(raw.as_bytes());
    Cow::Owned(
        String::from_utf8(decoded).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

/// Likewise of bytes that need not be text.
pub fn decode_bytes(bytes: &[u8]) -> Vec<u8> {
    let digit = |index: usize| bytes.get(index).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        match (bytes[index], digit(index + 1), digit(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                index += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            (byte, ..) => decoded.push(byte),
        }
        index += 1;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arguments_are_found_decoded() {
        let once = |text: &'static str| Argument::Once(text.into());
        for (query, expected) in [
            ("", Argument::Absent),
            ("b=1", Argument::Absent),
            ("ab=1&xa=2", Argument::Absent),
            ("a", Argument::Bare),
            ("a=", once("")),
            ("b=2&a=1&c", once("1")),
            ("%61=x%20y+z%2", once("x y z%2")),
            ("a=1&a=1", Argument::Repeated),
            ("a&%61=1", Argument::Repeated),
            ("&&a=%zz=%", once("%zz=%")),
            ("a=%ff", once("\u{fffd}")),
        ] {
            assert_eq!(argument(query, "a"), expected, "{query:?}");
        }
    }

    #[test]
    fn removal_keeps_the_rest_as_it_came() {
        for (query, expected) in [
            ("", None),
            ("b=%20&c", None),
            ("a=1", Some("")),
            ("a=1&b=%20+&a&c=", Some("b=%20+&c=")),
            ("b&%61=1", Some("b")),
        ] {
            assert_eq!(without(query, "a").as_deref(), expected, "{query:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_query_can_be_read_and_stripped(query in ".{0,60}", name in "[a-z%+=&]{0,3}") {
            let _ = argument(&query, &name);
            if let Some(rest) = without(&query, &name) {
                prop_assert_eq!(argument(&rest, &name), Argument::Absent);
            }
        }
    }
}
