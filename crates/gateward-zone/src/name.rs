//! A domain name in its canonical form: uncompressed wire format, letters in lower case.
//!
//! One form serves as key, as sort order and as what goes on the wire. The letter case in which a name was written is not
//! kept (RFC 4343: names compare without regard to case); queries get their own spelling back because answers point at the question.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest name in wire format, the root's octet included (RFC 1035, 3.1).
pub const MAX_NAME_LEN: usize = 255;
/// Longest label (RFC 1035, 3.1).
pub const MAX_LABEL_LEN: usize = 63;

/// A domain name: 1 to 255 octets of labels, the last one empty, in lower case.
///
/// Ordered canonically (RFC 4034, 6.1): by labels from the right, so that a parent stands directly before its descendants.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name {
    wire: Box<[u8]>,
}

/// Why something is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or a dot at the start.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label above [`MAX_LABEL_LEN`].
    #[error("a label is longer than 63 octets")]
    LongLabel,
    /// A name above [`MAX_NAME_LEN`].
    #[error("the name is longer than 255 octets")]
    LongName,
    /// `\` at the end, or `\DDD` that is no octet.
    #[error("a backslash is not followed by a character or by three digits up to 255")]
    BadEscape,
    /// Wire format that ends within a name, or holds a pointer or an unknown label type.
    #[error("the octets are not an uncompressed name")]
    BadWire,
}

impl Name {
    /// The root, `.`.
    #[must_use]
    pub fn root() -> Self {
        Name { wire: Box::new([0]) }
    }

    /// The name at the start of `octets`, uncompressed, and how many octets it takes.
    ///
    /// # Errors
    /// [`NameError::BadWire`] for pointers, unknown label types and early ends; [`NameError::LongName`] above 255 octets.
    pub fn from_wire(octets: &[u8]) -> Result<(Self, usize), NameError> {
        let mut at = 0;
        loop {
            let len = usize::from(*octets.get(at).ok_or(NameError::BadWire)?);
            if len > MAX_LABEL_LEN {
                return Err(NameError::BadWire);
            }
            at += 1 + len;
            if at > MAX_NAME_LEN {
                return Err(NameError::LongName);
            }
            if len == 0 {
                break;
            }
        }
        let wire = octets.get(..at).ok_or(NameError::BadWire)?.to_ascii_lowercase();
        // Length octets are at most 63, below every letter: lowering the case leaves them alone.
        Ok((Name { wire: wire.into() }, at))
    }

    /// `label` put before `self`; octets of any value, at most 63.
    ///
    /// # Errors
    /// [`NameError`] when the label is empty or too long, or the name becomes too long.
    pub fn child(&self, label: &[u8]) -> Result<Self, NameError> {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        let len = u8::try_from(label.len())
            .ok()
            .filter(|len| usize::from(*len) <= MAX_LABEL_LEN)
            .ok_or(NameError::LongLabel)?;
        if self.wire.len() + 1 + label.len() > MAX_NAME_LEN {
            return Err(NameError::LongName);
        }
        let mut wire = Vec::with_capacity(self.wire.len() + 1 + label.len());
        wire.push(len);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
        wire.extend_from_slice(&self.wire);
        Ok(Name { wire: wire.into() })
    }

    /// The name as text, taken relative to `origin` unless it ends with a dot; `@` is `origin` itself (RFC 1035, 5.1).
    ///
    /// # Errors
    /// [`NameError`] as for [`Name::from_str`].
    pub fn parse_in(text: &str, origin: &Name) -> Result<Self, NameError> {
        if text == "@" {
            return Ok(origin.clone());
        }
        let mut wire = Vec::with_capacity(text.len() + 1 + origin.wire.len());
        push_text(text.as_bytes(), origin, &mut wire)?;
        wire.make_ascii_lowercase();
        Ok(Name { wire: wire.into() })
    }

    /// The name in lower case whose checked, uncompressed wire format `wire` is.
    pub(crate) fn from_checked(mut wire: Vec<u8>) -> Self {
        wire.make_ascii_lowercase();
        Name { wire: wire.into() }
    }

    /// Uncompressed wire format, in lower case.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    /// The labels from the left, without the root's empty one.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.wire;
        std::iter::from_fn(move || {
            let len = usize::from(*rest.first()?);
            if len == 0 {
                return None;
            }
            let (label, tail) = rest[1..].split_at(len);
            rest = tail;
            Some(label)
        })
    }

    /// Number of labels without the root's empty one.
    #[must_use]
    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// The name without its leftmost label; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Name> {
        let len = usize::from(self.wire[0]);
        (len > 0).then(|| Name { wire: self.wire[1 + len..].into() })
    }

    /// The leftmost label, in lower case; `None` for the root.
    #[must_use]
    pub fn first_label(&self) -> Option<&[u8]> {
        self.labels().next()
    }

    /// Whether the leftmost label is `*` (RFC 4592, 2.1.1).
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.first_label() == Some(b"*")
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.wire.len() == 1
    }

    /// Whether `self` is `other` or below it.
    #[must_use]
    pub fn is_in(&self, other: &Name) -> bool {
        let Some(skip) = self.wire.len().checked_sub(other.wire.len()) else { return false };
        if self.wire[skip..] != *other.wire {
            return false;
        }
        // The suffix must begin at a label's border.
        let mut at = 0;
        while at < skip {
            at += 1 + usize::from(self.wire[at]);
        }
        at == skip
    }
}

/// Appends a name given as text to `wire`, letter case kept; relative to `origin` unless it ends with a dot.
///
/// # Errors
/// As for [`Name::parse_in`]; `wire` may then hold a part of the name.
pub(crate) fn push_text(text: &[u8], origin: &Name, wire: &mut Vec<u8>) -> Result<(), NameError> {
    let begin = wire.len();
    if text == b"." {
        wire.push(0);
        return Ok(());
    }
    // Where the current label's length octet stands.
    let mut label = begin;
    wire.push(0);
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'.' => {
                close_label(wire, label)?;
                label = wire.len();
                wire.push(0);
                at += 1;
            }
            b'\\' => {
                let (octet, used) = unescape(&text[at + 1..])?;
                wire.push(octet);
                at += 1 + used;
            }
            octet => {
                wire.push(octet);
                at += 1;
            }
        }
        if wire.len() - begin > MAX_NAME_LEN {
            // A label alone that is too long is the better thing to say.
            return Err(if wire.len() - label > MAX_LABEL_LEN + 1 {
                NameError::LongLabel
            } else {
                NameError::LongName
            });
        }
    }
    let absolute = label + 1 == wire.len() && label > begin;
    if !absolute {
        close_label(wire, label)?;
        wire.extend_from_slice(&origin.wire);
    }
    if wire.len() - begin > MAX_NAME_LEN { Err(NameError::LongName) } else { Ok(()) }
}

/// Writes the length of the label that begins at `start` and ends where `wire` does.
fn close_label(wire: &mut [u8], start: usize) -> Result<(), NameError> {
    match wire.len() - start - 1 {
        0 => Err(NameError::EmptyLabel),
        len if len > MAX_LABEL_LEN => Err(NameError::LongLabel),
        len => {
            wire[start] = u8::try_from(len).expect("a label is at most 63 octets");
            Ok(())
        }
    }
}

/// What follows a backslash: three digits or any one octet (RFC 1035, 5.1).
pub(crate) fn unescape(rest: &[u8]) -> Result<(u8, usize), NameError> {
    match rest {
        [a, b, c, ..] if a.is_ascii_digit() => {
            let value = [a, b, c]
                .iter()
                .try_fold(0_u16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(**digit - b'0')));
            value.and_then(|value| u8::try_from(value).ok()).map(|octet| (octet, 3)).ok_or(NameError::BadEscape)
        }
        [octet, ..] if !octet.is_ascii_digit() => Ok((*octet, 1)),
        _ => Err(NameError::BadEscape),
    }
}

/// Absolute with or without its last dot.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Name::parse_in(text, &Name::root())
    }
}

/// As in zone files: with the last dot, special characters escaped.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            write_label(label, f)?;
            f.write_str(".")?;
        }
        Ok(())
    }
}

/// A label as text, special characters escaped.
pub(crate) fn write_label(label: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    for octet in label {
        match octet {
            b'.' | b'\\' | b'"' | b';' | b'@' | b'(' | b')' | b'$' => write!(out, "\\{}", char::from(*octet))?,
            0x21..=0x7e => out.write_char(char::from(*octet))?,
            _ => write!(out, "\\{octet:03}")?,
        }
    }
    Ok(())
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        // Neighbours in a zone file mostly have the same name.
        if self.wire == other.wire {
            return Ordering::Equal;
        }
        let mut ours = [0_u8; 128];
        let mut theirs = [0_u8; 128];
        let (ours, theirs) = (starts(&self.wire, &mut ours), starts(&other.wire, &mut theirs));
        for (a, b) in ours.iter().rev().zip(theirs.iter().rev()) {
            match label_at(&self.wire, *a).cmp(label_at(&other.wire, *b)) {
                Ordering::Equal => {}
                different => return different,
            }
        }
        ours.len().cmp(&theirs.len())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where each label begins, the root's left out. At most 127 of them fit into a name.
fn starts<'a>(wire: &[u8], into: &'a mut [u8; 128]) -> &'a [u8] {
    let (mut at, mut count) = (0, 0);
    while wire[at] != 0 {
        into[count] = u8::try_from(at).expect("a name is at most 255 octets");
        count += 1;
        at += 1 + usize::from(wire[at]);
    }
    &into[..count]
}

fn label_at(wire: &[u8], start: u8) -> &[u8] {
    let start = usize::from(start);
    &wire[start + 1..start + 1 + usize::from(wire[start])]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect(text)
    }

    #[test]
    fn text_and_wire_agree() {
        for (text, wire) in [
            (".", &b"\0"[..]),
            ("example.com.", b"\x07example\x03com\0"),
            ("EXAMPLE.Com", b"\x07example\x03com\0"),
            (r"a\.b.c", b"\x03a.b\x01c\0"),
            (r"\000\255x", b"\x03\x00\xffx\0"),
            ("*.a", b"\x01*\x01a\0"),
        ] {
            let parsed = name(text);
            assert_eq!(parsed.as_wire(), wire, "{text}");
            assert_eq!(name(&parsed.to_string()), parsed, "{text} as text and back");
            assert_eq!(Name::from_wire(wire), Ok((parsed, wire.len())));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62));
        for (text, error) in [
            ("", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            (&long_label, NameError::LongLabel),
            (&long_name, NameError::LongName),
            (r"a\25", NameError::BadEscape),
            (r"a\256", NameError::BadEscape),
            ("a\\", NameError::BadEscape),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
        for wire in [&b""[..], b"\x03ab", b"\xc0\x0c", b"\x40a", b"\x01a"] {
            assert_eq!(Name::from_wire(wire), Err(NameError::BadWire), "{wire:?}");
        }
        assert!(name(&long_name[..253]).as_wire().len() <= MAX_NAME_LEN);
    }

    /// The example of RFC 4034, 6.1.
    #[test]
    fn order_is_canonical() {
        let sorted = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "z.a.example",
            "zabc.a.example",
            "z.example",
            r"\001.z.example",
            "*.z.example",
            r"\200.z.example",
        ];
        let mut names: Vec<Name> = sorted.iter().rev().map(|text| name(text)).collect();
        names.sort();
        assert_eq!(names, sorted.iter().map(|text| name(text)).collect::<Vec<_>>());
    }

    #[test]
    fn below_means_at_a_border_of_labels() {
        assert!(name("a.example.com").is_in(&name("example.com")));
        assert!(name("example.com").is_in(&name("example.com")));
        assert!(name("a").is_in(&Name::root()));
        assert!(!name("badexample.com").is_in(&name("example.com")));
        assert!(!name("com").is_in(&name("example.com")));
        // The octets `\x01a\0` end this name too, but within a label.
        assert!(!name(r"x\001a").is_in(&name("a")));
        assert_eq!(name("a.b").parent(), Some(name("b")));
        assert_eq!(Name::parse_in("www", &name("example.com")), Ok(name("www.example.com")));
        assert_eq!(Name::parse_in("@", &name("example.com")), Ok(name("example.com")));
    }
}
