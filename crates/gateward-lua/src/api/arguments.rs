//! Query strings and forms: `decode_args`, and escaping as nginx does it.

use gateward_plugin::query::decode_bytes;
use mlua::{Lua, LuaString, Result, Table, Value};

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let decode = lua.create_function(|lua, (text, most): (LuaString, usize)| decode(lua, &text.as_bytes(), most))?;
    functions.raw_set("decode_args", decode)?;
    let escape = lua.create_function(|lua, (text, kind): (LuaString, Option<u32>)| {
        lua.create_string(escape(&text.as_bytes(), kind.unwrap_or(2)))
    })?;
    functions.raw_set("escape_uri", escape)?;
    let unescape = lua.create_function(|lua, text: LuaString| lua.create_string(decode_bytes(&text.as_bytes())))?;
    functions.raw_set("unescape_uri", unescape)?;
    let without = lua.create_function(|lua, (query, name): (LuaString, LuaString)| {
        lua.create_string(without(&query.as_bytes(), &name.as_bytes()))
    })?;
    functions.raw_set("without_arg", without)
}

/// The arguments of `text` without those called `name`; what is left keeps the bytes it came with.
fn without(text: &[u8], name: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(text.len());
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let own = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        if decode_bytes(own) != name {
            if !rest.is_empty() {
                rest.push(b'&');
            }
            rest.extend_from_slice(pair);
        }
    }
    rest
}

/// Names to values, `true` for a name without `=`, arrays where a name is repeated; and whether there were more than
/// `most` (0: any number).
fn decode(lua: &Lua, text: &[u8], most: usize) -> Result<(Table, bool)> {
    let table = lua.create_table()?;
    let pairs = text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    let mut count = 0;
    for pair in pairs {
        if most > 0 && count == most {
            return Ok((table, true));
        }
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = decode_bytes(parts.next().unwrap_or_default());
        let value = match parts.next() {
            // An argument without a name is none.
            _ if name.is_empty() => continue,
            Some(value) => Value::String(lua.create_string(decode_bytes(value))?),
            None => Value::Boolean(true),
        };
        count += 1;
        let name = lua.create_string(name)?;
        match table.raw_get::<Value>(&name)? {
            Value::Nil => table.raw_set(name, value)?,
            Value::Table(values) => values.raw_push(value)?,
            first => table.raw_set(name, lua.create_sequence_from([first, value])?)?,
        }
    }
    Ok((table, false))
}

/// `kind` as in `ngx.escape_uri`: 0 a whole URI, 2 one component.
pub(crate) fn escape(text: &[u8], kind: u32) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len() + text.len() / 4);
    for byte in text {
        let plain = match kind {
            // nginx's ngx_escape_uri, NGX_ESCAPE_URI: space, controls, `"#%<>?\^`{|}` and what is no ASCII.
            0 => !matches!(
                byte,
                0..=b' ' | 127..=255 | b'"' | b'#' | b'%' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
            ),
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'),
        };
        if plain {
            escaped.push(*byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            escaped.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_and_back() {
        assert_eq!(escape(b"a b/c?~\xff", 2), b"a%20b%2Fc%3F~%FF");
        assert_eq!(escape(b"/a b?c=d&e", 0), b"/a%20b%3Fc=d&e");
        assert_eq!(decode_bytes(b"a%20b+c%zz%4"), b"a b c%zz%4");
        assert_eq!(without(b"a=1&b&%61=2&c=", b"a"), b"b&c=");
    }
}
