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
/// Bytes of one compiled pattern.
const SIZE: usize = 1 << 20;
/// Instructions of one backtracking pattern.
const INSTRUCTIONS: usize = 100_000;
/// Steps back of one match in a short subject. PCRE's ten million for each place where a match may begin, which OpenResty leaves
/// as they are, would take longer than a handler may.
const BACKTRACKS: usize = 100_000;
/// Steps back for each byte of a longer subject: going from one place to the next is one, too.
const BACKTRACKS_PER_BYTE: usize = 16;
/// How often the steps of a short subject are doubled at most for a long one.
const DOUBLINGS: u32 = 7;

type Known = FxHashMap<(Vec<u8>, Vec<u8>), Rc<Pattern>>;

/// A compiled pattern.
struct Pattern {
    engine: Engine,
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
    if let Some(regex) = known.borrow().get(&key) {
        return Ok(regex.clone());
    }
    let text = str::from_utf8(pattern).map_err(|_| "pattern is not UTF-8".to_owned())?;
    let options = Options::of(options);
    let pattern = Rc::new(Pattern { engine: engine(text, options)?, anchored: options.anchored });
    let mut known = known.borrow_mut();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(key, pattern.clone());
    Ok(pattern)
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

fn engine(text: &str, options: Options) -> std::result::Result<Engine, String> {
    let linear = RegexBuilder::new(text)
        .case_insensitive(options.case_insensitive)
        .multi_line(options.multi_line)
        .dot_matches_new_line(options.dot_matches_new_line)
        .ignore_whitespace(options.ignore_whitespace)
        .unicode(options.unicode)
        .size_limit(SIZE)
        .build();
    let refusal = match linear {
        // Only the other one looks at a single place; a pattern like this it hands to the same automata.
        Ok(regex) if options.anchored => {
            return Ok(Backtracking::new(text, options).map_or(Engine::Linear(regex), Engine::Backtracking));
        }
        Ok(regex) => return Ok(Engine::Linear(regex)),
        Err(refusal @ regex::Error::CompiledTooBig(_)) => return Err(format!("regex compile failed: {refusal}")),
        Err(refusal) => refusal,
    };
    // Where neither knows it, the first says it better: it points at the place.
    let backtracking = Backtracking::new(text, options).ok_or_else(|| format!("regex compile failed: {refusal}"));
    backtracking.map(Engine::Backtracking)
}

impl Backtracking {
    fn new(text: &str, options: Options) -> Option<Box<Self>> {
        let for_short = backtracking(text, options, BACKTRACKS).ok()?;
        Some(Box::new(Self { text: text.to_owned(), options, for_short, for_longer: RefCell::default() }))
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
        let regex = Rc::new(backtracking(&self.text, self.options, BACKTRACKS << doublings)?);
        self.for_longer.borrow_mut().insert(doublings, regex.clone());
        Ok(regex)
    }
}

/// How often the steps of a short subject are doubled for one of this many bytes.
fn doublings(bytes: usize) -> u32 {
    let wanted = bytes.saturating_mul(BACKTRACKS_PER_BYTE).div_ceil(BACKTRACKS).max(1);
    wanted.next_power_of_two().ilog2().min(DOUBLINGS)
}

fn backtracking(text: &str, options: Options, steps: usize) -> std::result::Result<fancy_regex::Regex, Error> {
    fancy_regex::RegexBuilder::new(text)
        .case_insensitive(options.case_insensitive)
        .multi_line(options.multi_line)
        .dot_matches_new_line(options.dot_matches_new_line)
        .ignore_whitespace(options.ignore_whitespace)
        .bytes_mode(if options.unicode { BytesMode::UnicodeBytes } else { BytesMode::Ascii })
        .backtrack_limit(steps)
        .delegate_size_limit(SIZE)
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
        let options = Options::of(options.as_bytes());
        Pattern { engine: engine(text, options).unwrap(), anchored: options.anchored }
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
