//! JSON to Lua and back, by `cjson` and by what crosses between Rust and Lua, against `serde_json`.

use super::bytes::Bytes;
use super::no_plugins;
use crate::convert::{to_json, to_json_up_to, to_lua};
use crate::vm::Vm;
use mlua::{Function, LuaString, Table, Value};
use serde_json::Value as Json;

/// Levels of nesting that `serde_json` follows; `cjson` follows more.
const DEPTH: usize = 128;
/// Values that are followed: enough to meet the bound, and few enough for many tries a second.
const VALUES: usize = 4096;
/// Bytes of names and texts in it.
const BYTES: usize = 1 << 16;
/// Tables of one value.
const TABLES: usize = 200;

/// A machine with a `cjson` that keeps arrays apart from objects and numbers whole.
struct Machine {
    vm: Vm,
    encode: Function,
    decode: Function,
}

thread_local! {
    static MACHINE: Machine = Machine::new();
}

impl Machine {
    fn new() -> Self {
        let vm = Vm::new(no_plugins()).expect("a machine without plugins starts");
        let module = || -> mlua::Result<(Function, Function)> {
            let safe: Table = vm.required("cjson.safe")?;
            let own: Table = safe.get::<Function>("new")?.call(())?;
            own.get::<Function>("encode_number_precision")?.call::<()>(17)?;
            own.get::<Function>("decode_array_with_array_mt")?.call::<()>(true)?;
            own.get::<Function>("encode_sparse_array")?.call::<()>((true, 2, 10))?;
            Ok((own.get("encode")?, own.get("decode")?))
        };
        let (encode, decode) = module().expect("the gateway's own module");
        Self { vm, encode, decode }
    }

    /// The JSON of a value; `None`: it has none, or writing it took too long.
    fn encode(&self, value: &Value) -> Option<Vec<u8>> {
        let (written, stopped) = self.vm.watched_during(|| self.encode.call::<Option<LuaString>>(value));
        match written {
            Ok(text) => text.map(|text| text.as_bytes().to_vec()),
            Err(error) => {
                assert!(stopped || error.to_string().contains("not enough memory"), "encoding raised {error}");
                None
            }
        }
    }

    /// What a text says; `None`: it is no JSON.
    fn decode(&self, text: &[u8]) -> Option<Value> {
        let text = self.vm.text(text).expect("there is memory for a text");
        let (value, error) = self.decode.call::<(Value, Option<LuaString>)>(text).expect("decoding raises no error");
        error.is_none().then_some(value)
    }
}

/// A text: what `serde_json` takes `cjson` takes with the same meaning, and what `cjson` takes can be written and read
/// again.
pub fn text(data: &[u8]) {
    MACHINE.with(|machine| {
        let decoded = machine.decode(data);
        let expected = serde_json::from_slice::<Json>(data).ok();
        if let Some(expected) = &expected {
            let decoded = decoded.as_ref().expect("what is JSON is decoded");
            assert!(same(expected, decoded), "{expected} became {decoded:?}");
            there_and_back(machine, expected);
        }
        let Some(decoded) = decoded else { return };
        let Some(written) = machine.encode(&decoded) else {
            assert!(expected.is_none(), "what was decoded can be encoded");
            return;
        };
        let again = machine.decode(&written).expect("what was encoded can be decoded");
        assert!(machine.encode(&again).is_some());
        if let Some(expected) = &expected {
            let written: Json = serde_json::from_slice(&written).expect("what was encoded is JSON");
            assert!(alike(expected, &written), "{expected} came back as {written}");
        }
    });
}

/// The same value through the functions in Rust.
fn there_and_back(machine: &Machine, value: &Json) {
    let there = machine.vm.to_lua(value).expect("there is memory for it");
    match to_json(&there) {
        Ok(back) => assert!(alike(value, &back), "{value} came back as {back}"),
        Err(error) => assert!(depth_of(value) >= DEPTH - 1, "{value} did not come back: {error}"),
    }
}

/// Any Lua value: encoding it ends, with JSON or with an error.
pub fn values(data: &[u8]) {
    MACHINE.with(|machine| {
        let value = build(machine, &mut Bytes::new(data)).expect("there is memory for a few tables");
        let plain = to_json_up_to(&value, VALUES, BYTES);
        let Some(written) = machine.encode(&value) else { return };
        if let (Ok(text), Ok(plain)) = (std::str::from_utf8(&written), plain) {
            let parsed = serde_json::from_str::<Json>(text);
            // The one has a limit that the other does not have.
            let parsed = parsed.unwrap_or_else(|error| {
                assert!(error.to_string().contains("recursion limit"), "{text}: {error}");
                plain
            });
            drop(parsed);
        }
    });
}

/// A value of many tables that may hold each other.
fn build(machine: &Machine, bytes: &mut Bytes<'_>) -> mlua::Result<Value> {
    let mut tables = vec![machine.vm.table()?];
    while !bytes.is_empty() && tables.len() < TABLES {
        let table = tables[bytes.below(tables.len())].clone();
        let value = match bytes.below(10) {
            0..=2 => {
                let inner = machine.vm.table()?;
                tables.push(inner.clone());
                Value::Table(inner)
            }
            3 => Value::Table(tables[bytes.below(tables.len())].clone()),
            4 => Value::Number(bytes.float()),
            5 => Value::Boolean(bytes.byte().is_multiple_of(2)),
            6 => Value::NULL,
            7 => Value::Function(machine.encode.clone()),
            _ => Value::String(machine.vm.text(bytes.take())?),
        };
        match bytes.below(6) {
            0 | 1 => table.raw_push(value)?,
            2 => table.raw_set(bytes.byte(), value)?,
            3 => table.raw_set(Value::Number(Some(bytes.float()).filter(|key| !key.is_nan()).unwrap_or(0.5)), value)?,
            4 => table.raw_set(bytes.byte().is_multiple_of(2), value)?,
            _ => table.raw_set(machine.vm.text(bytes.take())?, value)?,
        }
    }
    Ok(Value::Table(tables.swap_remove(0)))
}

/// Whether `lua` is what `json` says.
fn same(json: &Json, lua: &Value) -> bool {
    match (json, lua) {
        (Json::Null, Value::LightUserData(_)) => true,
        (Json::Bool(flag), Value::Boolean(other)) => flag == other,
        (Json::Number(number), Value::Number(other)) => number.as_f64().is_some_and(|number| close(number, *other)),
        (Json::Number(number), Value::Integer(other)) => {
            number.as_f64().is_some_and(|number| close(number, *other as f64))
        }
        (Json::String(text), Value::String(other)) => other.as_bytes() == text.as_bytes(),
        (Json::Array(items), Value::Table(table)) => {
            table.raw_len() == items.len()
                && items
                    .iter()
                    .enumerate()
                    .all(|(index, item)| table.raw_get::<Value>(index + 1).is_ok_and(|value| same(item, &value)))
        }
        (Json::Object(fields), Value::Table(table)) => {
            table.pairs::<Value, Value>().count() == fields.len()
                && fields
                    .iter()
                    .all(|(name, value)| table.raw_get::<Value>(name.as_str()).is_ok_and(|found| same(value, &found)))
        }
        _ => false,
    }
}

/// Whether two are the same but for an empty list, which may come back as an empty object.
fn alike(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => close(one, other),
            _ => false,
        },
        (Json::Array(one), Json::Object(other)) => one.is_empty() && other.is_empty(),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| alike(value, other)))
        }
        _ => one == other,
    }
}

/// `serde_json` may be off by the last bit.
fn close(one: f64, other: f64) -> bool {
    one == other || (one - other).abs() <= one.abs() * 4.0 * f64::EPSILON
}

fn depth_of(value: &Json) -> usize {
    match value {
        Json::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Json::Object(fields) => 1 + fields.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

impl Vm {
    /// A module that the gateway brings.
    fn required<R: mlua::FromLua>(&self, module: &str) -> mlua::Result<R> {
        self.require().call(module)
    }

    fn to_lua(&self, value: &Json) -> mlua::Result<Value> {
        to_lua(self.machine(), value, &Value::NULL)
    }

    fn text(&self, text: &[u8]) -> mlua::Result<LuaString> {
        self.machine().create_string(text)
    }

    fn table(&self) -> mlua::Result<Table> {
        self.machine().create_table()
    }
}
