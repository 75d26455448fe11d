//! `re_match(subject, pattern, options, from)`: the captures of a regular expression, for `ngx.re`.
//!
//! What the `regex` crate knows runs in a time that grows with the subject only. Patterns with look-around, references back and
//! what else of PCRE it refuses are tried by backtracking, up to a limit as in OpenResty.

use fancy_regex::{BytesMode, Error, RegexInput, RuntimeError};
use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, Value};
use regex::bytes::{Regex, RegexBuilder};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// Compiled patterns kept.
const KEPT: usize = 1024;
/// Bytes that they take, as far as that is known.
const KEPT_BYTES: usize = 64 << 20;
/// Bytes of a pattern's text: PCRE's compiled form has no more.
const TEXT: usize = 64 << 10;
/// Likewise of one that goes back: what it has compiled grows with its parts.
const TEXT_GOING_BACK: usize = 16 << 10;
/// Bytes of one compiled pattern.
const SIZE: usize = 1 << 20;
/// Bytes that nearly all of them do with; tried first, to know which do.
const SMALL: usize = 64 << 10;
/// Bytes of all parts of a backtracking pattern, each of which is compiled on its own.
const PARTS: usize = 16 << 20;
/// What every one of them may have, however many there are.
const LEAST: usize = 4 << 10;
/// Instructions of one backtracking pattern.
const INSTRUCTIONS: usize = 20_000;
/// Steps back of one match in a short subject. PCRE's ten million for each place where a match may begin, which OpenResty leaves
/// as they are, would take longer than a handler may.
const BACKTRACKS: usize = 100_000;
/// Steps back for each byte of a longer subject: going from one place to the next is one, too.
const BACKTRACKS_PER_BYTE: usize = 16;
/// How often the steps of a short subject are doubled at most for a long one.
const DOUBLINGS: u32 = 7;

/// Patterns by their texts and options.
#[derive(Default)]
struct Known {
    patterns: FxHashMap<(Vec<u8>, Vec<u8>), Rc<Pattern>>,
    bytes: usize,
}

/// A compiled pattern.
struct Pattern {
    engine: Engine,
    /// Bytes that it takes at most, but for what is set up in matching.
    bytes: usize,
    /// It matches where the search begins or not at all.
    anchored: bool,
}

enum Engine {
    Linear(Regex),
    Backtracking(Box<Backtracking>),
}

/// A pattern that is tried by going back. How often is said when it is compiled, so for subjects of other lengths it is compiled
/// again.
struct Backtracking {
    text: String,
    options: Options,
    /// Bytes of each of its parts.
    part: usize,
    for_short: fancy_regex::Regex,
    /// By how often the steps are doubled.
    for_longer: RefCell<FxHashMap<u32, Rc<fancy_regex::Regex>>>,
}

/// What the letters say.
#[derive(Clone, Copy)]
struct Options {
    case_insensitive: bool,
    multi_line: bool,
    dot_matches_new_line: bool,
    ignore_whitespace: bool,
    unicode: bool,
    anchored: bool,
}

/// Where each group matched; `None`: it took no part.
type Groups = Vec<Option<Range<usize>>>;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let known = RefCell::new(Known::default());
    let find = lua.create_function(
        move |lua, (subject, pattern, options, from): (LuaString, LuaString, LuaString, usize)| -> Result<MultiValue> {
            let subject = subject.as_bytes();
            let found = compiled(&known, &pattern.as_bytes(), &options.as_bytes())
                .and_then(|pattern| Ok((pattern.groups(&subject, from)?, pattern)));
            match found {
                Ok((Some(groups), pattern)) => captures(lua, &pattern, &subject, &groups),
                Ok((None, _)) => ().into_lua_multi(lua),
                Err(error) => (Value::Nil, error).into_lua_multi(lua),
            }
        },
    )?;
    functions.raw_set("re_match", find)
}

fn compiled(known: &RefCell<Known>, pattern: &[u8], options: &[u8]) -> std::result::Result<Rc<Pattern>, String> {
    let key = (pattern.to_vec(), options.to_vec());
    if let Some(regex) = known.borrow().patterns.get(&key) {
        return Ok(regex.clone());
    }
    let text = str::from_utf8(pattern).map_err(|_| "pattern is not UTF-8".to_owned())?;
    let pattern = Rc::new(Pattern::of(text, Options::of(options))?);
    known.borrow_mut().keep(key, &pattern);
    Ok(pattern)
}

impl Known {
    /// All are made anew from time to time: patterns that plugins make of requests may be without number.
    fn keep(&mut self, key: (Vec<u8>, Vec<u8>), pattern: &Rc<Pattern>) {
        let bytes = key.0.len() + key.1.len() + pattern.bytes;
        if self.patterns.len() >= KEPT || self.bytes + bytes > KEPT_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.patterns.insert(key, pattern.clone());
    }
}

impl Options {
    fn of(letters: &[u8]) -> Self {
        let has = |letter: u8| letters.contains(&letter);
        Self {
            case_insensitive: has(b'i'),
            multi_line: has(b'm'),
            dot_matches_new_line: has(b's'),
            ignore_whitespace: has(b'x'),
            unicode: has(b'u') || has(b'U'),
            anchored: has(b'a'),
        }
    }
}

impl Pattern {
    fn of(text: &str, options: Options) -> std::result::Result<Self, String> {
        if text.len() > TEXT {
            return Err(format!("pcre_compile() failed: regular expression is too large: more than {TEXT} bytes"));
        }
        let made = |engine, bytes| Self { engine, bytes, anchored: options.anchored };
        let refusal = match linear(text, options) {
            // Only the other one looks at a single place; a pattern like this it hands to the same automata.
            Ok((regex, bytes)) if options.anchored => {
                return Ok(match Backtracking::new(text, options) {
                    Some(backtracking) => made(Engine::Backtracking(backtracking), bytes),
                    None => made(Engine::Linear(regex), bytes),
                });
            }
            Ok((regex, bytes)) => return Ok(made(Engine::Linear(regex), bytes)),
            Err(refusal @ regex::Error::CompiledTooBig(_)) => return Err(format!("regex compile failed: {refusal}")),
            Err(refusal) => refusal,
        };
        // Where neither knows it, the first says it better: it points at the place.
        let backtracking =
            Backtracking::new(text, options).ok_or_else(|| format!("regex compile failed: {refusal}"))?;
        let bytes = parts(text) * backtracking.part;
        Ok(made(Engine::Backtracking(backtracking), bytes))
    }
}

/// Compiled, and the bytes it takes at most.
fn linear(text: &str, options: Options) -> std::result::Result<(Regex, usize), regex::Error> {
    let build = |bytes| {
        let regex = RegexBuilder::new(text)
            .case_insensitive(options.case_insensitive)
            .multi_line(options.multi_line)
            .dot_matches_new_line(options.dot_matches_new_line)
            .ignore_whitespace(options.ignore_whitespace)
            .unicode(options.unicode)
            .size_limit(bytes)
            .build();
        regex.map(|regex| (regex, bytes))
    };
    match build(SMALL) {
        Err(regex::Error::CompiledTooBig(_)) => build(SIZE),
        built => built,
    }
}

/// In how many parts a pattern that goes back may be compiled: what stands between groups, alternatives and references back.
fn parts(text: &str) -> usize {
    1 + 2 * text.bytes().filter(|byte| matches!(byte, b'(' | b'|' | b'\\')).count()
}

impl Backtracking {
    fn new(text: &str, options: Options) -> Option<Box<Self>> {
        if text.len() > TEXT_GOING_BACK {
            return None;
        }
        let share = (PARTS / parts(text)).clamp(LEAST, SIZE);
        let built = |part| Some((part, backtracking(text, options, BACKTRACKS, part).ok()?));
        let (part, for_short) = built(share.min(SMALL)).or_else(|| built(share))?;
        Some(Box::new(Self { text: text.to_owned(), options, part, for_short, for_longer: RefCell::default() }))
    }

    fn captures<'s>(
        &self,
        subject: &'s [u8],
        from: usize,
    ) -> std::result::Result<Option<fancy_regex::Captures<'s, [u8]>>, Error> {
        let input = || RegexInput::new(subject).from_pos(from).anchored(self.options.anchored);
        let doublings = doublings(subject.len() - from);
        if doublings == 0 {
            return self.for_short.captures_input(input());
        }
        self.for_longer(doublings)?.captures_input(input())
    }

    fn for_longer(&self, doublings: u32) -> std::result::Result<Rc<fancy_regex::Regex>, Error> {
        if let Some(regex) = self.for_longer.borrow().get(&doublings) {
            return Ok(regex.clone());
        }
        let regex = Rc::new(backtracking(&self.text, self.options, BACKTRACKS << doublings, self.part)?);
        self.for_longer.borrow_mut().insert(doublings, regex.clone());
        Ok(regex)
    }
}

/// How often the steps of a short subject are doubled for one of this many bytes.
fn doublings(bytes: usize) -> u32 {
    let wanted = bytes.saturating_mul(BACKTRACKS_PER_BYTE).div_ceil(BACKTRACKS).max(1);
    wanted.next_power_of_two().ilog2().min(DOUBLINGS)
}

fn backtracking(
    text: &str,
    options: Options,
    steps: usize,
    part: usize,
) -> std::result::Result<fancy_regex::Regex, Error> {
    fancy_regex::RegexBuilder::new(text)
        .case_insensitive(options.case_insensitive)
        .multi_line(options.multi_line)
        .dot_matches_new_line(options.dot_matches_new_line)
        .ignore_whitespace(options.ignore_whitespace)
        .bytes_mode(if options.unicode { BytesMode::UnicodeBytes } else { BytesMode::Ascii })
        .backtrack_limit(steps)
        .delegate_size_limit(part)
        .max_prog_size(INSTRUCTIONS)
        .build()
}

impl Pattern {
    /// What matches `subject` from there on.
    fn groups(&self, subject: &[u8], from: usize) -> std::result::Result<Option<Groups>, String> {
        if from > subject.len() {
            return Ok(None);
        }
        Ok(match &self.engine {
            Engine::Linear(regex) => regex
                .captures_at(subject, from)
                .map(|found| found.iter().map(|group| group.map(|group| group.range())).collect())
                // A match that begins here is the leftmost of all.
                .filter(|groups: &Groups| !self.anchored || starts_at(groups, from)),
            Engine::Backtracking(pattern) => pattern
                .captures(subject, from)
                .map_err(|error| failure(&error))?
                .map(|found| (0..found.len()).map(|index| found.get(index).map(|group| group.range())).collect()),
        })
    }

    fn names(&self) -> Vec<Option<&str>> {
        match &self.engine {
            Engine::Linear(regex) => regex.capture_names().collect(),
            Engine::Backtracking(pattern) => pattern.for_short.capture_names().collect(),
        }
    }
}

fn starts_at(groups: &Groups, at: usize) -> bool {
    groups.first().and_then(Option::as_ref).is_some_and(|all| all.start == at)
}

/// PCRE's numbers, as OpenResty says them.
fn failure(error: &Error) -> String {
    match error {
        Error::RuntimeError(RuntimeError::BacktrackLimitExceeded) => "pcre_exec() failed: -8".to_owned(),
        Error::RuntimeError(RuntimeError::StackOverflow) => "pcre_exec() failed: -21".to_owned(),
        other => format!("pcre_exec() failed: {other}"),
    }
}

/// The captures by number and name (`false`: took no part), where each begins and ends.
fn captures(lua: &Lua, pattern: &Pattern, subject: &[u8], groups: &[Option<Range<usize>>]) -> Result<MultiValue> {
    let (captures, spans) = (lua.create_table()?, lua.create_table()?);
    for (index, name) in pattern.names().into_iter().enumerate() {
        let group = groups.get(index).and_then(Option::as_ref);
        let value = match group.and_then(|group| Some((group, subject.get(group.clone())?))) {
            Some((group, bytes)) => {
                spans.raw_set(index * 2, group.start + 1)?;
                spans.raw_set(index * 2 + 1, group.end)?;
                Value::String(lua.create_string(bytes)?)
            }
            None => Value::Boolean(false),
        };
        if let Some(name) = name {
            captures.raw_set(name, value.clone())?;
        }
        captures.raw_set(index, value)?;
    }
    (captures, spans).into_lua_multi(lua)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn pattern(text: &str, options: &str) -> Pattern {
        Pattern::of(text, Options::of(options.as_bytes())).unwrap()
    }

    fn found(text: &str, options: &str, subject: &[u8], from: usize) -> Option<(usize, usize)> {
        let groups = pattern(text, options).groups(subject, from).unwrap();
        groups.map(|groups| groups[0].clone().map(|all| (all.start, all.end)).unwrap())
    }

    #[test]
    fn a_long_subject_is_no_reason_to_give_up() {
        for (text, end) in [("(?<=x)y", "xy"), ("[a-z]+(?= EUR)", "b EUR"), ("(c|d)\\1", "dd"), ("e(?!f)", "e.")] {
            for bytes in [10, 20_000, 300_000, 1_500_000] {
                let subject = ". ".repeat(bytes / 2) + end;
                assert!(found(text, "", subject.as_bytes(), 0).is_some(), "{text} after {bytes} bytes");
            }
        }
    }

    #[test]
    fn what_goes_back_without_end_is_given_up_whatever_the_length() {
        let evil = pattern("^((a+)\\2?)+$", "");
        for (bytes, most) in [(40, 2), (100_000, 20), (1_500_000, 60)] {
            let subject = "a".repeat(bytes) + "!";
            let began = Instant::now();
            // Too many steps, or too many places to go back to.
            let error = evil.groups(subject.as_bytes(), 0).unwrap_err();
            assert!(error == "pcre_exec() failed: -8" || error == "pcre_exec() failed: -21", "{error}");
            eprintln!("{bytes} bytes given up after {:?}", began.elapsed());
            assert!(began.elapsed().as_secs() < most, "{bytes} bytes: {:?}", began.elapsed());
        }
        assert_eq!([0, 1, 6250, 6251, 12_500, 12_501, usize::MAX].map(doublings), [0, 0, 0, 1, 1, 2, DOUBLINGS]);
    }

    #[test]
    fn patterns_that_take_much_are_refused() {
        for text in [
            "(?:a{1000}){1000}".to_owned(),
            "((((a{100}){100}){100}){100}){100}".to_owned(),
            "(?=x)(?:(?:a{1000}){1000}|b)".to_owned(),
            "(?=x)\\w{60000}".to_owned(),
            "(?<=(?:a|bb){100000})c".to_owned(),
            "(?<a>(?=x)\\g<a>\\g<a>|y)".to_owned(),
            "(".repeat(5000),
            "(?=".repeat(500),
            "a|".repeat(40_000),
            format!("(?=x){}", "a".repeat(20_000)),
            format!("(?=x){}", "(?=\\w{400})".repeat(1000)),
        ] {
            for options in ["", "u", "a", "ju"] {
                let refused = Pattern::of(&text, Options::of(options.as_bytes())).err();
                let shown = text.chars().take(40).collect::<String>();
                assert!(refused.is_some_and(|error| error.contains("failed: ")), "{shown} with '{options}'");
            }
        }
        // Many times nothing is nothing, and counted repetitions take no room.
        for text in ["(?:){1000000000}", "(?=x)(?:x(?!y)){1,1000000}", "(?=(?:a{30}){30})a"] {
            assert!(Pattern::of(text, Options::of(b"")).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let known = RefCell::new(Known::default());
        let mut most = 0;
        for n in 0..3000 {
            // Small ones, large ones and such as go back.
            let text = match n % 3 {
                0 => format!("small{n}"),
                1 => format!("(?:large{n}){{300}}"),
                _ => format!("(?=back{n})"),
            };
            compiled(&known, text.as_bytes(), b"").unwrap();
            let known = known.borrow();
            assert!(known.bytes <= KEPT_BYTES && known.patterns.len() <= KEPT);
            most = most.max(known.patterns.len());
        }
        assert!(most > 100, "{most}");
        let again = || Rc::as_ptr(&compiled(&known, b"twice", b"").unwrap());
        assert_eq!(again(), again());
    }

    #[test]
    fn an_anchored_pattern_matches_where_the_search_begins() {
        for (text, subject, from, expected) in [
            ("b", "ab", 0, None),
            ("b", "ab", 1, Some((1, 2))),
            ("x|b", "ab", 0, None),
            ("x|b", "ab", 1, Some((1, 2))),
            ("b|ab", "ab", 0, Some((0, 2))),
            ("ab|b", "aab", 0, None),
            ("b$|a", "ab", 0, Some((0, 1))),
            ("^b", "ab", 1, None),
            ("", "ab", 1, Some((1, 1))),
            ("c?", "ab", 2, Some((2, 2))),
            // Of those that go back.
            ("b(?=c)|x", "abc", 0, None),
            ("b(?=c)|x", "abc", 1, Some((1, 2))),
            ("(?<=a)b", "ab", 1, Some((1, 2))),
            ("(?<=a)b", "ab", 0, None),
            ("(b)\\1|(a)\\2", "abb", 0, None),
        ] {
            assert_eq!(found(text, "a", subject.as_bytes(), from), expected, "{text} in {subject} from {from}");
        }
        assert_eq!(found("A|B", "ai", b"\xffb", 1), Some((1, 2)));
        assert_eq!(found("(?<n>b) # one", "ax", b"ab", 1), Some((1, 2)));
        // Nothing else is looked at.
        let subject = "a".repeat(1 << 20);
        let (lexer, began) = (pattern("b(?!c)|b+", "a"), Instant::now());
        for from in 0..1000 {
            assert!(lexer.groups(subject.as_bytes(), from).unwrap().is_none());
        }
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }
}
