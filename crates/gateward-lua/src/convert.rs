//! JSON to Lua and back.

use mlua::{Lua, Result, Table, Value};
use serde_json::{Map, Number, Value as Json};

/// Levels of nesting that are followed.
const DEPTH: usize = 128;

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
/// What JSON has no word for: functions, infinity, keys that are neither texts nor numbers, texts that are not UTF-8,
/// nesting without end, arrays with holes.
pub(crate) fn to_json(value: &Value) -> std::result::Result<Json, String> {
    json_at(value, DEPTH)
}

fn json_at(value: &Value, depth: usize) -> std::result::Result<Json, String> {
    if depth == 0 {
        return Err(format!("Cannot serialise, excessive depth ({DEPTH})"));
    }
    match value {
        Value::Nil | Value::LightUserData(_) => Ok(Json::Null),
        Value::Boolean(flag) => Ok(Json::Bool(*flag)),
        Value::Integer(number) => Ok(Json::from(*number)),
        Value::Number(number) => number_to_json(*number),
        Value::String(text) => match text.to_str() {
            Ok(text) => Ok(Json::String(text.to_owned())),
            Err(_) => Ok(Json::String(String::from_utf8_lossy(&text.as_bytes()).into_owned())),
        },
        Value::Table(table) => table_to_json(table, depth),
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

fn table_to_json(table: &Table, depth: usize) -> std::result::Result<Json, String> {
    let length = table.raw_len();
    let mut fields = Map::new();
    let mut items = 0;
    let mut largest = 0_i64;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        match &key {
            Value::Integer(number) if *number >= 1 => (items, largest) = (items + 1, largest.max(*number)),
            Value::Number(number) if *number >= 1.0 && number.fract() == 0.0 => {
                (items, largest) = (items + 1, largest.max(*number as i64));
            }
            Value::Integer(_) | Value::Number(_) | Value::String(_) => {}
            other => {
                return Err(format!(
                    "Cannot serialise table: table key must be a number or string, not {}",
                    other.type_name()
                ));
            }
        }
        let name = match &key {
            Value::String(text) => text.to_string_lossy(),
            Value::Integer(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        fields.insert(name, json_at(&value, depth - 1)?);
    }
    if items == 0 || items != fields.len() {
        return Ok(Json::Object(fields));
    }
    if largest as usize != items && largest as usize > items * 2 + 8 {
        return Err("Cannot serialise table: excessively sparse array".to_owned());
    }
    let end = length.max(largest as usize);
    let mut array = Vec::with_capacity(end);
    for index in 1..=end {
        array.push(fields.remove(&index.to_string()).unwrap_or(Json::Null));
    }
    Ok(Json::Array(array))
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
    }
}
