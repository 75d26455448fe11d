//! `re_match(subject, pattern, options, from)`: the captures of a regular expression, for `ngx.re`.
//!
//! What the `regex` crate knows runs in a time that grows with the subject only. Patterns with look-around, references back and
//! what else of PCRE it refuses are tried by backtracking, up to a limit as in OpenResty.

use fancy_regex::{BytesMode, Error, RuntimeError};
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
/// Steps back of one match. PCRE's ten million, which OpenResty leaves as they are, would take longer than a handler may.
const BACKTRACKS: usize = 100_000;

type Known = FxHashMap<(Vec<u8>, Vec<u8>), Rc<Pattern>>;

/// A compiled pattern.
struct Pattern {
    engine: Engine,
    /// It matches where the search begins or not at all.
    anchored: bool,
}

enum Engine {
    Linear(Regex),
    Backtracking(Box<fancy_regex::Regex>),
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
    let pattern = Rc::new(Pattern { engine: engine(text, options)?, anchored: options.contains(&b'a') });
    let mut known = known.borrow_mut();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(key, pattern.clone());
    Ok(pattern)
}

fn engine(text: &str, options: &[u8]) -> std::result::Result<Engine, String> {
    let has = |option: u8| options.contains(&option);
    let unicode = has(b'u') || has(b'U');
    let linear = RegexBuilder::new(text)
        .case_insensitive(has(b'i'))
        .multi_line(has(b'm'))
        .dot_matches_new_line(has(b's'))
        .ignore_whitespace(has(b'x'))
        .unicode(unicode)
        .size_limit(SIZE)
        .build();
    let refusal = match linear {
        Ok(regex) => return Ok(Engine::Linear(regex)),
        Err(refusal @ regex::Error::CompiledTooBig(_)) => return Err(format!("regex compile failed: {refusal}")),
        Err(refusal) => refusal,
    };
    fancy_regex::RegexBuilder::new(text)
        .case_insensitive(has(b'i'))
        .multi_line(has(b'm'))
        .dot_matches_new_line(has(b's'))
        .ignore_whitespace(has(b'x'))
        .bytes_mode(if unicode { BytesMode::UnicodeBytes } else { BytesMode::Ascii })
        .backtrack_limit(BACKTRACKS)
        .delegate_size_limit(SIZE)
        .max_prog_size(INSTRUCTIONS)
        .build()
        .map(|regex| Engine::Backtracking(Box::new(regex)))
        // Where neither knows it, the first says it better: it points at the place.
        .map_err(|_| format!("regex compile failed: {refusal}"))
}

impl Pattern {
    /// What matches `subject` from there on.
    fn groups(&self, subject: &[u8], from: usize) -> std::result::Result<Option<Groups>, String> {
        if from > subject.len() {
            return Ok(None);
        }
        let groups: Option<Groups> = match &self.engine {
            Engine::Linear(regex) => regex
                .captures_at(subject, from)
                .map(|found| found.iter().map(|group| group.map(|group| group.range())).collect()),
            Engine::Backtracking(regex) => regex
                .captures_from_pos(subject, from)
                .map_err(|error| failure(&error))?
                .map(|found| (0..found.len()).map(|index| found.get(index).map(|group| group.range())).collect()),
        };
        // A match that begins here is the leftmost of all.
        Ok(groups.filter(|groups| !self.anchored || groups.first().is_some_and(|all| starts(all.as_ref(), from))))
    }

    fn names(&self) -> Vec<Option<&str>> {
        match &self.engine {
            Engine::Linear(regex) => regex.capture_names().collect(),
            Engine::Backtracking(regex) => regex.capture_names().collect(),
        }
    }
}

fn starts(group: Option<&Range<usize>>, at: usize) -> bool {
    group.is_some_and(|group| group.start == at)
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
