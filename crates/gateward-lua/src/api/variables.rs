//! What nginx's variables say of fields, cookies and arguments: `joined(which, name)`, all values of a field as one text;
//! `raw_arg(name)`, an argument as it stands in the query; `set_cookie(name)`, what the response sets a cookie to.

use super::{fields, request};
use crate::shared::Shared;
use mlua::{BString, Lua, LuaString, Result, Table};
use std::rc::Rc;

pub(super) fn add(lua: &Lua, functions: &Table, shared: &Rc<Shared>) -> Result<()> {
    let own = shared.clone();
    let joined = lua.create_function(move |_, (which, name): (u32, LuaString)| {
        let Ok(name) = name.to_str() else { return Ok(None) };
        let joined = own.state.read(|exchange| {
            let headers = fields::of(exchange, which);
            joined(headers.iter(), &name)
        });
        Ok(joined.flatten().map(BString::from))
    })?;
    functions.raw_set("joined", joined)?;
    let own = shared.clone();
    let arg = lua.create_function(move |_, name: LuaString| {
        let value = own.state.read(|exchange| {
            let value = raw_arg(request::query(exchange).as_bytes(), &name.as_bytes());
            value.map(|value| BString::from(value.to_vec()))
        });
        Ok(value.flatten())
    })?;
    functions.raw_set("raw_arg", arg)?;
    let own = shared.clone();
    let cookie = lua.create_function(move |_, name: LuaString| {
        let value = own.state.read(|exchange| {
            let mut set = exchange.response.headers.get_all("set-cookie");
            set.find_map(|field| set_value(field, &name.as_bytes())).map(|value| BString::from(value.to_vec()))
        });
        Ok(value.flatten())
    })?;
    functions.raw_set("set_cookie", cookie)
}

/// All values of a field, whose dashes are underscores in `name`, in their order: separated by a comma, of cookies by a semicolon.
fn joined<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>, name: &str) -> Option<Vec<u8>> {
    let is_it = |field: &str| {
        let same = |(one, other): (u8, u8)| one.eq_ignore_ascii_case(&other) || (one == b'-' && other == b'_');
        field.len() == name.len() && field.bytes().zip(name.bytes()).all(same)
    };
    let separator: &[u8] = if name.eq_ignore_ascii_case("cookie") { b"; " } else { b", " };
    let mut all: Option<Vec<u8>> = None;
    for (_, value) in headers.filter(|(field, _)| is_it(field)) {
        match &mut all {
            Some(all) => {
                all.extend_from_slice(separator);
                all.extend_from_slice(value);
            }
            None => all = Some(value.to_vec()),
        }
    }
    all
}

/// The first argument of this name, in any case, that has a value: as nginx's `$arg_` it is not decoded.
fn raw_arg<'q>(query: &'q [u8], name: &[u8]) -> Option<&'q [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        pair[..equals].eq_ignore_ascii_case(name).then(|| &pair[equals + 1..])
    })
}

/// The value in a Set-Cookie field if the cookie is called `name`.
fn set_value<'c>(field: &'c [u8], name: &[u8]) -> Option<&'c [u8]> {
    let pair = field.split(|byte| *byte == b';').next()?.trim_ascii();
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    pair[..equals].eq_ignore_ascii_case(name).then(|| &pair[equals + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_as_they_stand() {
        let check = |query: &str, name: &str, expected: Option<&str>| {
            assert_eq!(raw_arg(query.as_bytes(), name.as_bytes()), expected.map(str::as_bytes), "{query} {name}");
        };
        check("a=1&b=%202&a=3", "a", Some("1"));
        check("a=1&b=%202&a=3", "B", Some("%202"));
        check("ab=1&b=a=2", "b", Some("a=2"));
        check("a&a=", "a", Some(""));
        check("a&ab=1", "a", None);
        check("", "a", None);
    }

    #[test]
    fn fields_are_joined_as_nginx_does() {
        let fields: [(&str, &[u8]); 5] =
            [("X-A", b"1"), ("Cookie", b"a=1"), ("x-a", b""), ("cookie", b"b=2"), ("x_a", b"3")];
        let check = |name: &str, expected: Option<&str>| {
            let found = joined(fields.iter().copied(), name);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{name}");
        };
        check("x_a", Some("1, , 3"));
        check("cookie", Some("a=1; b=2"));
        check("x_", None);
        check("x_b", None);
    }

    #[test]
    fn a_cookie_that_was_set_has_a_value() {
        assert_eq!(set_value(b"sid=a=b; Path=/", b"SID"), Some(&b"a=b"[..]));
        assert_eq!(set_value(b"sid; a=b", b"a"), None);
        assert_eq!(set_value(b"", b""), None);
    }
}
