//! JSON to Lua and back.

use mlua::{Lua, LuaString, Result, Table, Value};
use serde_json::{Map, Number, Value as Json};

/// Levels of nesting that are followed.
const DEPTH: usize = 128;
/// Values that are followed: tables that hold each other many times over would never end.
const VALUES: usize = 1 << 17;
/// Bytes of names and texts: a machine holds a text once, however often it stands in its tables, and JSON each time.
const BYTES: usize = 4 << 20;

/// A configuration as Lua sees it: what is null is absent.
pub(crate) fn config_to_lua(lua: &Lua, json: &Json) -> Result<Value> {
    to_lua(lua, json, &Value::Nil)
}

/// JSON as Lua sees it; `null` stands for null.
pub(crate) fn to_lua(lua: &Lua, json: &Json, null: &Value) -> Result<Value> {
    Ok(match json {
        Json::Null => null.clone(),
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (index, item) in items.iter().enumerate() {
                table.raw_set(index + 1, to_lua(lua, item, null)?)?;
            }
            Value::Table(table)
        }
        Json::Object(fields) => {
            let table = lua.create_table_with_capacity(0, fields.len())?;
            for (name, value) in fields {
                table.raw_set(name.as_str(), to_lua(lua, value, null)?)?;
            }
            Value::Table(table)
        }
    })
}

/// A Lua value as JSON, as cjson encodes it: a table with only whole keys from 1 on is an array (an empty one an object),
/// light userdata is null.
///
/// # Errors
/// What JSON has no word for: functions, infinity, keys that are neither texts nor numbers, arrays with holes; nesting without
/// end, and more values or bytes than are followed.
pub(crate) fn to_json(value: &Value) -> std::result::Result<Json, String> {
    json_at(value, DEPTH, &mut Budget { values: VALUES, most: BYTES, bytes: BYTES })
}

/// Likewise with other limits: of this many values and this many bytes of names and texts.
pub(crate) fn to_json_up_to(value: &Value, values: usize, bytes: usize) -> std::result::Result<Json, String> {
    json_at(value, DEPTH, &mut Budget { values, most: bytes, bytes })
}

/// What a value may still take.
struct Budget {
    values: usize,
    bytes: usize,
    /// Bytes at first, for the message.
    most: usize,
}

impl Budget {
    fn take_value(&mut self) -> std::result::Result<(), String> {
        self.values = self.values.checked_sub(1).ok_or("Cannot serialise, too many values")?;
        Ok(())
    }

    /// A text as JSON has it: what is no UTF-8 is replaced.
    fn take_text(&mut self, text: &LuaString) -> std::result::Result<String, String> {
        let bytes = text.as_bytes();
        let left = self.bytes.checked_sub(bytes.len());
        self.bytes = left.ok_or_else(|| format!("Cannot serialise, excessive size ({} bytes)", self.most))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn json_at(value: &Value, depth: usize, left: &mut Budget) -> std::result::Result<Json, String> {
    if depth == 0 {
        return Err(format!("Cannot serialise, excessive depth ({DEPTH})"));
    }
    left.take_value()?;
    match value {
        Value::Nil | Value::LightUserData(_) => Ok(Json::Null),
        Value::Boolean(flag) => Ok(Json::Bool(*flag)),
        Value::Integer(number) => Ok(Json::from(*number)),
        Value::Number(number) => number_to_json(*number),
        Value::String(text) => left.take_text(text).map(Json::String),
        Value::Table(table) => table_to_json(table, depth, left),
        other => Err(format!("Cannot serialise {}: type not supported", other.type_name())),
    }
}

fn number_to_json(number: f64) -> std::result::Result<Json, String> {
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Ok(Json::from(number as i64));
    }
    Number::from_f64(number)
        .map(Json::Number)
        .ok_or_else(|| "Cannot serialise number: must not be NaN or Inf".to_owned())
}

fn table_to_json(table: &Table, depth: usize, left: &mut Budget) -> std::result::Result<Json, String> {
    let Some(length) = array_length(table)? else { return object_to_json(table, depth, left) };
    // Not as long as it says at once: arrays within arrays would all have room before the first value is looked at.
    let mut array = Vec::new();
    for index in 1..=length {
        let item = table.raw_get::<Value>(index).map_err(|error| error.to_string())?;
        array.push(json_at(&item, depth - 1, left)?);
    }
    Ok(Json::Array(array))
}

/// How long a table is that has nothing but places from 1 on; `None`: it is an object.
fn array_length(table: &Table) -> std::result::Result<Option<usize>, String> {
    let (mut items, mut largest) = (0_usize, 0_usize);
    for pair in table.pairs::<Value, Value>() {
        let (key, _) = pair.map_err(|error| error.to_string())?;
        let place = match key {
            Value::Integer(number) => usize::try_from(number).ok(),
            // What is too large for a place is too sparse for an array.
            Value::Number(number) if number.fract() == 0.0 && number >= 1.0 => Some(number as usize),
            _ => None,
        };
        match place {
            Some(place) if place > 0 => (items, largest) = (items + 1, largest.max(place)),
            _ => return Ok(None),
        }
    }
    if items == 0 {
        return Ok(None);
    }
    if largest > items * 2 + 8 {
        return Err("Cannot serialise table: excessively sparse array".to_owned());
    }
    Ok(Some(largest))
}

fn object_to_json(table: &Table, depth: usize, left: &mut Budget) -> std::result::Result<Json, String> {
    let mut fields = Map::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        let name = match &key {
            Value::String(text) => left.take_text(text)?,
            Value::Integer(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            other => {
                let kind = other.type_name();
                return Err(format!("Cannot serialise table: table key must be a number or string, not {kind}"));
            }
        };
        fields.insert(name, json_at(&value, depth - 1, left)?);
    }
    Ok(Json::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn eval(source: &str) -> std::result::Result<Json, String> {
        let lua = Lua::new();
        to_json(&lua.load(source).eval::<Value>().unwrap())
    }

    #[test]
    fn values_go_to_lua_and_back() {
        let lua = Lua::new();
        for value in [json!({"a": [1, 2.5, "x", true], "b": {"c": "d"}}), json!([1, 2, 3]), json!("é"), json!(false)] {
            let there = to_lua(&lua, &value, &Value::NULL).unwrap();
            assert_eq!(to_json(&there).unwrap(), value);
        }
        let config = config_to_lua(&lua, &json!({"a": null, "b": 1})).unwrap();
        assert_eq!(to_json(&config).unwrap(), json!({"b": 1}));
    }

    #[test]
    fn tables_are_arrays_or_objects() {
        assert_eq!(eval("return {}").unwrap(), json!({}));
        assert_eq!(eval("return {1, nil, 3}").unwrap(), json!([1, null, 3]));
        assert_eq!(eval("return {1, a = 2}").unwrap(), json!({"1": 1, "a": 2}));
        assert!(eval("return {[1000] = 1}").unwrap_err().contains("sparse"));
        assert!(eval("return {[true] = 1}").unwrap_err().contains("table key"));
        assert!(eval("return {f = print}").unwrap_err().contains("function"));
        assert!(eval("return 1/0").unwrap_err().contains("Inf"));
        assert!(eval("local t = {} t.t = t return t").unwrap_err().contains("depth"));
        let often = "local t = {} for _ = 1, 100 do t = { t, t } end return t";
        assert!(eval(often).unwrap_err().contains("values"));
        let long = "local text, t = ('x'):rep(1000), {} for i = 1, 100000 do t[i] = text end return t";
        assert_eq!(eval(long).unwrap_err(), "Cannot serialise, excessive size (4194304 bytes)");
        let names = "local name, t = ('x'):rep(1000), {} for i = 1, 100000 do t[i] = { [name] = 1 } end return t";
        assert!(eval(names).unwrap_err().contains("excessive size"));
        assert_eq!(eval("return ('x'):rep(4 * 1024 * 1024)").unwrap().as_str().map(str::len), Some(BYTES));
        assert_eq!(eval("return {[1] = 'a', ['1'] = 'b'}").unwrap().as_object().unwrap().len(), 1);
    }
}
