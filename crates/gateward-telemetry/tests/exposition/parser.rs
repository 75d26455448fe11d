//! A strict reader of the Prometheus text format 0.0.4: stricter than Prometheus itself, so that nothing passes
//! here that any scraper could refuse.

use std::collections::{BTreeMap, BTreeSet};

/// Label names and values, in the order written.
pub(crate) type Labels = Vec<(String, String)>;
/// Name, labels and value.
pub(crate) type Sample = (String, Labels, f64);

/// One metric family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// A whole exposition by family name.
pub(crate) type Exposition = BTreeMap<String, Family>;

/// Reads `text`; panics with the line that is wrong.
pub(crate) fn parse(text: &str) -> Exposition {
    assert!(text.ends_with('\n'), "the last line must end in a newline");
    let mut families = Exposition::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            check_name(name, line);
            current = name.to_owned();
            let family = Family { help: unescape(help, line), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "family twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            let family = families.get_mut(name).unwrap_or_else(|| panic!("TYPE without HELP: {line}"));
            assert!(name == current && family.kind.is_empty() && family.samples.is_empty(), "misplaced: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "unknown type: {line}");
            family.kind = kind.to_owned();
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "stray line: {line}");
            let sample = parse_sample(line);
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family: {line}"));
            let base = match family.kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.0.strip_suffix(end)),
                _ => Some(sample.0.as_str()),
            };
            assert_eq!(base, Some(current.as_str()), "sample outside its family: {line}");
            let labels: BTreeMap<_, _> = sample.1.iter().cloned().collect();
            assert_eq!(labels.len(), sample.1.len(), "label twice: {line}");
            assert!(seen.insert((sample.0.clone(), labels)), "sample twice: {line}");
            family.samples.push(sample);
        }
    }
    families.values().for_each(check_family);
    families
}

fn check_family(family: &Family) {
    assert!(!family.kind.is_empty(), "no TYPE: {}", family.help);
    if family.kind == "counter" {
        assert!(family.samples.iter().all(|(_, _, value)| *value >= 0.0), "{family:?}");
    }
    if family.kind == "histogram" {
        check_histograms(family);
    }
}

/// Buckets of each label set are contiguous, ascending in `le`, cumulative, end in `+Inf`, then sum and count.
fn check_histograms(family: &Family) {
    let mut samples = family.samples.iter().peekable();
    while samples.peek().is_some() {
        let (mut last_le, mut last_n, mut labels) = (f64::NEG_INFINITY, 0.0, Vec::new());
        while let Some((_, bucket, n)) = samples.next_if(|(name, _, _)| name.ends_with("_bucket")) {
            let (le, rest) = bucket.split_last().expect("a bucket has a label");
            assert_eq!(le.0, "le", "{bucket:?}");
            assert!(last_le == f64::NEG_INFINITY || labels == rest, "mixed label sets: {bucket:?}");
            labels = rest.to_vec();
            let bound = number(&le.1);
            assert!(bound > last_le && *n >= last_n, "not cumulative: {bucket:?}");
            (last_le, last_n) = (bound, *n);
        }
        assert_eq!(last_le, f64::INFINITY, "{labels:?}");
        let (sum, count) = (samples.next().expect("a sum"), samples.next().expect("a count"));
        assert!(sum.0.ends_with("_sum") && sum.1 == labels && sum.2 >= 0.0, "{sum:?}");
        assert!(count.0.ends_with("_count") && count.1 == labels && count.2 == last_n, "{count:?}");
    }
}

fn parse_sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    check_name(name, line);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            check_name(label, line);
            assert!(!label.contains(':'), "colon in a label: {line}");
            let end = closing_quote(after, line);
            labels.push((label.to_owned(), unescape(&after[..end], line)));
            rest = &after[end + 1..];
            match rest.as_bytes().first() {
                Some(b',') => rest = &rest[1..],
                Some(b'}') => break,
                _ => panic!("after a label: {line}"),
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("one space before the value: {line}"));
    assert!(!value.contains(' '), "one value: {line}");
    (name.to_owned(), labels, number(value))
}

fn closing_quote(text: &str, line: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return at,
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    panic!("open quote: {line}")
}

fn unescape(text: &str, line: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(other @ ('\\' | '"')) => other,
                other => panic!("bad escape {other:?}: {line}"),
            },
            other => other,
        });
    }
    out
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => {
            let plain = |byte: u8| byte.is_ascii_digit() || b"+-.e".contains(&byte);
            assert!(text.bytes().all(plain), "not a number: {text}");
            text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
        }
    }
}

fn check_name(name: &str, line: &str) {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || b"_:".contains(&byte));
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
    assert!(first && rest, "bad name {name:?}: {line}");
}
