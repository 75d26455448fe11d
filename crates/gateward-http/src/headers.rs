//! A header section: fields in the order they came, in one arena.
//!
//! The section of one message lives in one byte buffer plus a list of spans, both reused from request to
//! request, so that parsing, reading and editing headers allocates nothing once a connection is warm. Names
//! keep the case they came in and compare without it. Look-ups scan the list: a hash of the lower-cased name
//! in each entry makes the scan a compare of integers, which beats a map for the dozen fields of a request.

/// A field name with its hash computed at compile time: the fast way to look up names known in advance.
///
/// ```
/// use gateward_http::{Headers, Name};
/// const HOST: Name = Name::new("host");
/// let mut headers = Headers::default();
/// headers.add("Host", "example.com");
/// assert_eq!(headers.get(HOST), Some(&b"example.com"[..]));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    text: &'a str,
    hash: u32,
    /// Without `^` and `~`, see [`same_name`].
    plain: bool,
}

impl<'a> Name<'a> {
    /// A name in any case.
    pub const fn new(text: &'a str) -> Self {
        Self { text, hash: hash_name(text.as_bytes()), plain: is_plain(text.as_bytes()) }
    }

    /// The name as it was given.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl<'a> From<&'a String> for Name<'a> {
    fn from(text: &'a String) -> Self {
        Self::new(text)
    }
}

/// A fixed set of names, tested against a field by one bit in the usual case that it is none of them.
///
/// ```
/// use gateward_http::headers::{Headers, Name, NameSet};
/// const FRAMING: NameSet = NameSet::new(&[Name::new("content-length"), Name::new("transfer-encoding")]);
/// let mut headers = Headers::default();
/// headers.add("Content-Length", "0");
/// headers.add("Accept", "*/*");
/// let mut out = Vec::new();
/// headers.write_except(&FRAMING, &mut out);
/// assert_eq!(out, b"Accept: */*\r\n");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct NameSet {
    names: &'static [Name<'static>],
    bits: u64,
}

impl NameSet {
    /// The set of `names`.
    pub const fn new(names: &'static [Name<'static>]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < names.len() {
            bits |= 1 << (names[index].hash & 63);
            index += 1;
        }
        Self { names, bits }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    name_start: u32,
    name_len: u32,
    value_start: u32,
    value_len: u32,
    /// The arena holds the whole line, `name: value CRLF`, in one piece.
    line: bool,
    /// It was there when [`Headers::mark`] was called.
    marked: bool,
}

/// Where a field lies in a section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) name_start: u32,
    pub(crate) value_start: u32,
    pub(crate) value_len: u32,
    /// The name has an underscore.
    pub(crate) underscored: bool,
    /// The line is `name: value CRLF`, with one space and none behind the value.
    pub(crate) line: bool,
}

impl Entry {
    fn line_end(&self) -> u32 {
        self.value_start + self.value_len + 2
    }
}

/// The fields of one message, in order.
///
/// Values are bytes without surrounding white space (RFC 9110 section 5.5); names are tokens. The setters
/// take names and values from configuration and plugins: bytes that would break the framing (CR, LF, NUL in
/// values; non-token bytes in names) are refused by returning `false` and leaving the section as it was.
#[derive(Default, Clone)]
pub struct Headers {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    underscored: bool,
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields = self.entries.iter().map(|entry| (entry.hash, self.name_of(entry), self.value_of(entry)));
        let fields = fields.map(|(hash, name, value)| (hash, name, value.escape_ascii().to_string()));
        out.debug_list().entries(fields).entries(self.underscored.then_some("underscored")).finish()
    }
}

impl Headers {
    /// Forget all fields, keep the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
        self.underscored = false;
    }

    /// Whether a name with an underscore was ever added since [`Headers::clear`].
    pub fn is_underscored(&self) -> bool {
        self.underscored
    }

    /// How many fields there are; a repeated name counts each time.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory held, for limits on what a connection may keep while idle.
    pub fn capacity_bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The first value of `name`.
    pub fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        self.entries.iter().find(|entry| self.is_named(entry, &name)).map(|entry| self.value_of(entry))
    }

    /// The first value of `name` when it is UTF-8.
    pub fn get_str<'n>(&self, name: impl Into<Name<'n>>) -> Option<&str> {
        self.get(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// Every value of `name`, in order.
    pub fn get_all<'s, 'n: 's>(&'s self, name: impl Into<Name<'n>>) -> impl Iterator<Item = &'s [u8]> + 's {
        let name = name.into();
        self.entries.iter().filter(move |entry| self.is_named(entry, &name)).map(|entry| self.value_of(entry))
    }

    /// Whether `name` is present.
    pub fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        self.get(name).is_some()
    }

    /// How often `name` is present.
    pub fn count<'n>(&self, name: impl Into<Name<'n>>) -> usize {
        let name = name.into();
        self.entries.iter().filter(|entry| self.is_named(entry, &name)).count()
    }

    /// Mark the fields that are there, and no others: they can be told from those that are added later, whatever is removed in
    /// between. A marked field stays one when its value is [`set`](Self::set).
    pub fn mark(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.marked = true);
    }

    /// Whether a marked field of this name is there.
    pub fn is_marked<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        let name = name.into();
        self.entries.iter().any(|entry| entry.marked && self.is_named(entry, &name))
    }

    /// All fields as (name in the case it came, value), in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + '_ {
        self.entries.iter().map(|entry| (self.name_of(entry), self.value_of(entry)))
    }

    /// Append a field, whether or not the name is present. `false`: refused, see the type.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) -> bool {
        let value = value.as_ref();
        if !is_valid_name(name.as_bytes()) || !is_valid_value(value) {
            return false;
        }
        self.push(name.as_bytes(), value);
        true
    }

    /// Make `value` the only value of `name`, at the place of its first occurrence or at the end.
    /// `false`: refused, see the type.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> bool {
        let value = value.as_ref();
        if !is_valid_name(name.as_bytes()) || !is_valid_value(value) {
            return false;
        }
        let key = Name::new(name);
        let Some(first) = self.entries.iter().position(|entry| self.is_named(entry, &key)) else {
            self.push(name.as_bytes(), value);
            return true;
        };
        let value_start = self.append(value);
        self.entries[first].value_start = value_start;
        self.entries[first].value_len = value.len() as u32;
        self.entries[first].line = false;
        let mut index = 0;
        let Self { arena, entries, .. } = self;
        entries.retain(|entry| {
            let keep = index <= first || !named(arena, entry, &key);
            index += 1;
            keep
        });
        true
    }

    /// Remove every occurrence of `name`; how many there were.
    pub fn remove<'n>(&mut self, name: impl Into<Name<'n>>) -> usize {
        let name = name.into();
        let before = self.entries.len();
        let Self { arena, entries, .. } = self;
        entries.retain(|entry| !named(arena, entry, &name));
        before - entries.len()
    }

    /// Keep the fields for which `keep(name, value)` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        let Self { arena, entries, .. } = self;
        entries.retain(|entry| {
            let name = span(arena, entry.name_start, entry.name_len);
            let value = span(arena, entry.value_start, entry.value_len);
            keep(str::from_utf8(name).unwrap_or(""), value)
        });
    }

    /// Append every field as `name: value CRLF`, without the empty line that ends a section.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write(self.entries.iter(), out);
    }

    /// [`write_to`](Self::write_to) without the fields named in `left_out`.
    pub fn write_except(&self, left_out: &NameSet, out: &mut Vec<u8>) {
        self.write(self.entries.iter().filter(|entry| !self.is_in(entry, left_out)), out);
    }

    /// Lines that stand one behind the other in the arena, as they came, leave in one piece.
    fn write<'e>(&'e self, entries: impl Iterator<Item = &'e Entry>, out: &mut Vec<u8>) {
        let (mut start, mut end) = (0, 0);
        for entry in entries {
            if entry.line && entry.name_start == end {
                end = entry.line_end();
                continue;
            }
            out.extend_from_slice(span(&self.arena, start, end - start));
            (start, end) = (entry.name_start, entry.line_end());
            if !entry.line {
                (start, end) = (0, 0);
                self.write_entry(entry, out);
            }
        }
        out.extend_from_slice(span(&self.arena, start, end - start));
    }

    /// Keep the fields for which `keep(hash of the name, name, value)` says so. The hash is [`hash_name`]'s:
    /// it lets a caller decide on most fields without looking at their text.
    pub(crate) fn retain_hashed(&mut self, mut keep: impl FnMut(u32, &[u8], &[u8]) -> bool) {
        let Self { arena, entries, .. } = self;
        entries.retain(|entry| {
            let name = span(arena, entry.name_start, entry.name_len);
            let value = span(arena, entry.value_start, entry.value_len);
            keep(entry.hash, name, value)
        });
    }

    /// The hashes of all names, in order.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u32> + '_ {
        self.entries.iter().map(|entry| entry.hash)
    }

    /// Append a field whose name and value the parser has checked; the hash of the name.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) -> u32 {
        let hash = hash_name(name);
        self.underscored |= name.contains(&b'_');
        let name_start = self.append(name);
        let value_start = self.append(value);
        self.entries.push(Entry {
            hash,
            name_start,
            name_len: name.len() as u32,
            value_start,
            value_len: value.len() as u32,
            line: false,
            marked: false,
        });
        hash
    }

    /// Take over the section whose fields were [noted](Self::note).
    pub(crate) fn store(&mut self, section: &[u8]) {
        self.arena.clear();
        self.arena.extend_from_slice(section);
    }

    /// Note a field at these places of the section that [`Self::store`] takes over when all fields are known; the
    /// hash of the name. Nothing may be read in between.
    pub(crate) fn note(&mut self, name: &[u8], places: &Places) -> u32 {
        let hash = hash_name(name);
        self.underscored |= places.underscored;
        self.entries.push(Entry {
            hash,
            name_start: places.name_start,
            name_len: name.len() as u32,
            value_start: places.value_start,
            value_len: places.value_len,
            line: places.line,
            marked: false,
        });
        hash
    }

    /// Replaced and removed values stay in the arena until `clear`: a message's edits are bounded by the
    /// plugins that run once each, so the garbage is too.
    fn append(&mut self, bytes: &[u8]) -> u32 {
        let start = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        start
    }

    fn write_entry(&self, entry: &Entry, out: &mut Vec<u8>) {
        out.extend_from_slice(span(&self.arena, entry.name_start, entry.name_len));
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.value_of(entry));
        out.extend_from_slice(b"\r\n");
    }

    fn is_in(&self, entry: &Entry, set: &NameSet) -> bool {
        set.bits & (1 << (entry.hash & 63)) != 0 && set.names.iter().any(|name| self.is_named(entry, name))
    }

    fn is_named(&self, entry: &Entry, name: &Name<'_>) -> bool {
        named(&self.arena, entry, name)
    }

    fn name_of(&self, entry: &Entry) -> &str {
        // Names are tokens, so ASCII: checked by the parser and by `add`/`set`.
        str::from_utf8(span(&self.arena, entry.name_start, entry.name_len)).unwrap_or("")
    }

    fn value_of(&self, entry: &Entry) -> &[u8] {
        span(&self.arena, entry.value_start, entry.value_len)
    }
}

fn span(arena: &[u8], start: u32, len: u32) -> &[u8] {
    &arena[start as usize..start as usize + len as usize]
}

fn named(arena: &[u8], entry: &Entry, name: &Name<'_>) -> bool {
    entry.hash == name.hash
        && same_name(span(arena, entry.name_start, entry.name_len), name.text.as_bytes(), name.plain)
}

/// Whether two field names are the same. Names are tokens, of which besides letters only `^` and `~` differ in just
/// the bit that tells small letters from capitals, so whole words can be compared without looking at characters.
/// `plain`: `right` has neither of them.
pub(crate) fn same_name(left: &[u8], right: &[u8], plain: bool) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let (left_words, left_rest) = left.as_chunks::<8>();
    let (right_words, right_rest) = right.as_chunks::<8>();
    let words_differ = left_words
        .iter()
        .zip(right_words)
        .any(|(left, right)| (u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right)) & !0x2020_2020_2020_2020 != 0);
    !words_differ
        && left_rest.iter().zip(right_rest).all(|(left, right)| (left ^ right) & !0x20 == 0)
        && (plain || left.eq_ignore_ascii_case(right))
}

const fn is_plain(name: &[u8]) -> bool {
    let mut index = 0;
    while index < name.len() {
        if name[index] == b'^' || name[index] == b'~' {
            return false;
        }
        index += 1;
    }
    true
}

/// A hash of the name that ignores case and is computable in a constant: eight bytes at a time, every byte with the
/// bit set that tells small letters from capitals. Names that differ elsewhere in that bit share a hash, which the
/// comparison that follows tells apart.
pub(crate) const fn hash_name(name: &[u8]) -> u32 {
    let mut hash = name.len() as u64;
    let mut rest = name;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        hash = mix(hash, u64::from_le_bytes(*word));
        rest = tail;
    }
    let last = match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => (u32::from_le_bytes(*first) as u64) << 32 | u32::from_le_bytes(*last) as u64,
        _ if rest.is_empty() => 0,
        _ => (rest[0] as u64) << 16 | (rest[rest.len() / 2] as u64) << 8 | rest[rest.len() - 1] as u64,
    };
    (mix(hash, last) >> 32) as u32
}

const fn mix(hash: u64, word: u64) -> u64 {
    // The multiplier is 2^64 divided by the golden ratio.
    (hash.rotate_left(23) ^ (word | 0x2020_2020_2020_2020)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether `name` is a field name (a token, RFC 9110 section 5.1).
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| crate::method::is_token_byte(*byte))
}

/// Whether `value` can stand as a field value: no control characters but tab (RFC 9110 section 5.5).
pub fn is_valid_value(value: &[u8]) -> bool {
    // No early exit: valid values are the rule, and without a branch the compiler vectorises the loop.
    !value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_but_for_case() {
        for (left, right, same) in [
            ("Content-Length", "content-length", true),
            ("X", "x", true),
            ("Content-Length", "content-lengti", false),
            ("Content-Length", "dontent-length", false),
            ("abc", "abcd", false),
            ("x^y", "x~y", false),
            ("x~y", "X~Y", true),
            ("a-b", "a_b", false),
        ] {
            let (left_bytes, right_bytes) = (left.as_bytes(), right.as_bytes());
            assert_eq!(same_name(left_bytes, right_bytes, is_plain(right_bytes)), same, "{left} {right}");
        }
    }

    #[test]
    fn marked_fields_are_told_from_later_ones_whatever_is_removed() {
        let mut headers = Headers::default();
        for name in ["A", "Set-Cookie", "B", "Set-Cookie", "C"] {
            headers.add(name, "theirs");
        }
        headers.mark();
        headers.set("set-cookie", "ours");
        headers.remove("A");
        headers.retain(|name, _| name != "B");
        for name in ["D", "E", "A", "B"] {
            headers.add(name, "ours");
        }
        let marked = |name: &str| headers.is_marked(name);
        assert_eq!(
            ["set-cookie", "c", "D", "E", "A", "B", "F"].map(marked),
            [true, true, false, false, false, false, false]
        );
        headers.add("D", "more");
        headers.mark();
        assert!(headers.is_marked("d"));
        headers.clear();
        headers.add("D", "new");
        assert!(!headers.is_marked("d"));
    }

    #[test]
    fn hashes_ignore_case_at_every_length() {
        let name = "X-Consumer-Custom-Identifier";
        for end in 1..=name.len() {
            let part = &name[..end];
            let hash = hash_name(part.as_bytes());
            assert_eq!(hash, hash_name(part.to_ascii_lowercase().as_bytes()), "{part}");
            assert_eq!(hash, hash_name(part.to_ascii_uppercase().as_bytes()), "{part}");
            assert_ne!(hash, hash_name(&name.as_bytes()[1..=end.min(name.len() - 1)]), "{part}");
        }
    }

    fn lines(headers: &Headers) -> String {
        let mut out = Vec::new();
        headers.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_compare_without_case_and_keep_it() {
        let mut headers = Headers::default();
        assert!(headers.add("X-Tag", "a"));
        assert!(headers.add("x-tag", "b"));
        assert_eq!(headers.get("X-TAG"), Some(&b"a"[..]));
        assert_eq!(headers.get_all("x-Tag").collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(lines(&headers), "X-Tag: a\r\nx-tag: b\r\n");
    }

    #[test]
    fn set_replaces_in_place_and_drops_repeats() {
        let mut headers = Headers::default();
        headers.add("a", "1");
        headers.add("b", "2");
        headers.add("A", "3");
        assert!(headers.set("a", "9"));
        assert_eq!(lines(&headers), "a: 9\r\nb: 2\r\n");
        assert!(headers.set("c", "4"));
        assert_eq!(headers.remove("B"), 1);
        assert_eq!(lines(&headers), "a: 9\r\nc: 4\r\n");
    }

    #[test]
    fn what_would_break_framing_is_refused() {
        let mut headers = Headers::default();
        for (name, value) in [("a", "x\r\nb: c"), ("a b", "x"), ("", "x"), ("a:", "x"), ("a", "x\0"), ("a", "x\n")] {
            assert!(!headers.add(name, value), "{name:?} {value:?}");
            assert!(!headers.set(name, value), "{name:?} {value:?}");
        }
        assert!(headers.is_empty());
    }
}
