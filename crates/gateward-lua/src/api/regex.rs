//! `re_match(subject, pattern, options, from)`: the captures of a regular expression, for `ngx.re`.
//!
//! Patterns are those of the `regex` crate: PCRE without look-around and references back, and with a time that grows with
//! the subject only.

use mlua::{IntoLuaMulti, Lua, LuaString, MultiValue, Result, Table, Value};
use regex::bytes::{Regex, RegexBuilder};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::rc::Rc;

/// Compiled patterns kept.
const KEPT: usize = 1024;
/// Bytes of one compiled pattern.
const SIZE: usize = 1 << 20;

type Known = FxHashMap<(Vec<u8>, Vec<u8>), Rc<Regex>>;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let known = RefCell::new(Known::default());
    let find = lua.create_function(
        move |lua, (subject, pattern, options, from): (LuaString, LuaString, LuaString, usize)| -> Result<MultiValue> {
            let regex = match compiled(&known, &pattern.as_bytes(), &options.as_bytes()) {
                Ok(regex) => regex,
                Err(error) => return (Value::Nil, error).into_lua_multi(lua),
            };
            captures(lua, &regex, &subject.as_bytes(), from)
        },
    )?;
    functions.raw_set("re_match", find)
}

fn compiled(known: &RefCell<Known>, pattern: &[u8], options: &[u8]) -> std::result::Result<Rc<Regex>, String> {
    let key = (pattern.to_vec(), options.to_vec());
    if let Some(regex) = known.borrow().get(&key) {
        return Ok(regex.clone());
    }
    let has = |option: u8| options.contains(&option);
    let text = str::from_utf8(pattern).map_err(|_| "pattern is not UTF-8".to_owned())?;
    let text = if has(b'a') { format!(r"\A(?:{text})") } else { text.to_owned() };
    let regex = RegexBuilder::new(&text)
        .case_insensitive(has(b'i'))
        .multi_line(has(b'm'))
        .dot_matches_new_line(has(b's'))
        .ignore_whitespace(has(b'x'))
        .unicode(has(b'u') || has(b'U'))
        .size_limit(SIZE)
        .build()
        .map_err(|error| format!("regex compile failed: {error}"))?;
    let regex = Rc::new(regex);
    let mut known = known.borrow_mut();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(key, regex.clone());
    Ok(regex)
}

/// The captures by number and name (`false`: took no part), where each begins and ends; nothing without a match.
fn captures(lua: &Lua, regex: &Regex, subject: &[u8], from: usize) -> Result<MultiValue> {
    if from > subject.len() {
        return ().into_lua_multi(lua);
    }
    let Some(found) = regex.captures_at(subject, from) else { return ().into_lua_multi(lua) };
    let (captures, spans) = (lua.create_table()?, lua.create_table()?);
    for (index, name) in regex.capture_names().enumerate() {
        let value = match found.get(index) {
            Some(group) => {
                spans.raw_set(index * 2, group.start() + 1)?;
                spans.raw_set(index * 2 + 1, group.end())?;
                Value::String(lua.create_string(group.as_bytes())?)
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
