//! Reading a map of the declaration strictly: known keys only, every problem noted with its place, nothing thrown.
//!
//! A value that is wrong is reported and left out; reading goes on, so that one run shows every mistake of a file.

use std::net::IpAddr;

use gateward_yaml::{Key, Node, Path, Position, Tree, did_you_mean, quote};

use super::problem::Problem;

/// The problems of a declaration.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
}

/// Problems that are kept; a file with more is wrong throughout.
const MAX_PROBLEMS: usize = 500;

impl Report {
    pub(super) fn add(&mut self, at: Position, path: &Path<'_>, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let Position { line, column } = at;
            self.problems.push(Problem { line, column, path: path.to_string(), message: message.into() });
        }
    }

    /// Everything in the order of the file, nothing twice.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.problems;
        problems.sort_by(|a, b| (a.line, a.column, &a.path, &a.message).cmp(&(b.line, b.column, &b.path, &b.message)));
        problems.dedup();
        problems
    }
}

/// A value of the file and how one gets there.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: &'a Path<'a>,
}

impl<'a> At<'a> {
    pub(super) fn new(node: &'a Node, path: &'a Path<'a>) -> Self {
        At { node, path }
    }

    pub(super) fn fail(self, report: &mut Report, message: impl Into<String>) {
        report.add(self.node.position, self.path, message);
    }

    fn expected<T>(self, report: &mut Report, what: &str) -> Option<T> {
        self.fail(report, format!("expected {what}; found {}", self.node.describe()));
        None
    }

    /// The entries of a map whose keys are the user's own.
    pub(super) fn entries(self, report: &mut Report) -> &'a [(Key, Node)] {
        match &self.node.value {
            Tree::Map(entries) => entries,
            Tree::Null => &[],
            _ => self.expected(report, "a map").unwrap_or(&[]),
        }
    }

    /// The items of a list; a single value counts as a list of one.
    pub(super) fn items(self) -> &'a [Node] {
        match &self.node.value {
            Tree::Seq(items) => items,
            Tree::Null => &[],
            _ => std::slice::from_ref(self.node),
        }
    }

    /// A map of which only the keys in `known` may be given.
    pub(super) fn fields(self, known: &[&str], report: &mut Report) -> Fields<'a> {
        for (key, _) in self.entries(report) {
            if !known.contains(&key.text.as_str()) {
                let hint = did_you_mean(&key.text, known.iter().copied());
                let message = format!("unknown field{hint}; known here: {}", known.join(", "));
                report.add(key.position, &Path::Key(self.path, &key.text), message);
            }
        }
        Fields { at: self }
    }

    /// A map whose keys were looked at already.
    pub(super) fn fields_unchecked(self) -> Fields<'a> {
        Fields { at: self }
    }

    pub(super) fn text(self, report: &mut Report) -> Option<&'a str> {
        match &self.node.value {
            Tree::String { text, .. } if text.trim().is_empty() => {
                self.fail(report, "must not be empty");
                None
            }
            Tree::String { text, .. } => Some(text),
            _ => self.expected(report, "a text"),
        }
    }

    pub(super) fn boolean(self, report: &mut Report) -> Option<bool> {
        match &self.node.value {
            Tree::Bool(value) => Some(*value),
            _ => self.expected(report, "true or false"),
        }
    }

    pub(super) fn integer(self, range: std::ops::RangeInclusive<u32>, report: &mut Report) -> Option<u32> {
        let Tree::Int(value) = self.node.value else { return self.expected(report, "a whole number") };
        match u32::try_from(value).ok().filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None => {
                self.fail(report, format!("must lie between {} and {}", range.start(), range.end()));
                None
            }
        }
    }

    /// Seconds: a number, or numbers with units (`90s`, `5m`, `1h30m`, `14d`, `2w`).
    pub(super) fn seconds(self, range: std::ops::RangeInclusive<u32>, report: &mut Report) -> Option<u32> {
        let seconds = match &self.node.value {
            Tree::Int(value) => u32::try_from(*value).ok(),
            Tree::String { text, .. } => seconds(text),
            _ => None,
        };
        match seconds {
            Some(seconds) if range.contains(&seconds) => Some(seconds),
            Some(_) => {
                self.fail(report, format!("must lie between {} and {} seconds", range.start(), range.end()));
                None
            }
            None => self.expected(report, "a time such as 300, 5m, 1h30m or 14d"),
        }
    }

    pub(super) fn address(self, report: &mut Report) -> Option<IpAddr> {
        let text = self.text(report)?;
        let parsed = text.parse();
        if parsed.is_err() {
            self.fail(report, format!("'{}' is not an IPv4 or IPv6 address", quote(text)));
        }
        parsed.ok()
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(self, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        let text = self.text(report)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = did_you_mean(text, known.iter().copied());
            self.fail(report, format!("'{}' is none of {}{hint}", quote(text), known.join(", ")));
        }
        found.map(|(_, value)| *value)
    }
}

/// A map with known keys.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) at: At<'a>,
}

impl<'a> Fields<'a> {
    /// Reads the field `name` if it is given; `None` also when it was wrong, which is reported then.
    pub(super) fn read<T>(self, name: &'static str, read: impl FnOnce(At<'_>) -> Option<T>) -> Option<T> {
        let node = self.at.node.get(name).filter(|node| !node.is_null())?;
        read(At::new(node, &Path::Key(self.at.path, name)))
    }

    /// As [`Fields::read`], for a field that must be there.
    pub(super) fn required<T>(
        self,
        name: &'static str,
        report: &mut Report,
        read: impl FnOnce(At<'_>, &mut Report) -> Option<T>,
    ) -> Option<T> {
        if self.at.node.get(name).is_none_or(Node::is_null) {
            if self.at.node.as_map().is_some() {
                self.at.fail(report, format!("'{name}' is missing"));
            }
            return None;
        }
        self.read(name, |at| read(at, report))
    }

    /// Shows the field `name` to `look` if it is given.
    pub(super) fn look(self, name: &'static str, look: impl FnOnce(At<'_>)) {
        self.read(name, |at| {
            look(at);
            Some(())
        });
    }

    pub(super) fn text(self, name: &'static str, report: &mut Report) -> Option<String> {
        self.read(name, |at| at.text(report).map(str::to_owned))
    }
}

/// Seconds from digits, or from numbers with the units s, m, h, d, w.
fn seconds(text: &str) -> Option<u32> {
    if text.bytes().all(|octet| octet.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (mut total, mut number) = (0_u64, None::<u64>);
    for octet in text.bytes() {
        if octet.is_ascii_digit() {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(octet - b'0'))?);
            continue;
        }
        let unit = match octet {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 7 * 86_400,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    if number.is_some() { None } else { u32::try_from(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_are_read_with_and_without_units() {
        for (text, expected) in [
            ("300", Some(300)),
            ("5m", Some(300)),
            ("1h30m", Some(5_400)),
            ("14d", Some(1_209_600)),
            ("1h30", None),
            ("h", None),
            ("5 m", None),
            ("99999999999999999999w", None),
            ("9999999w", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
