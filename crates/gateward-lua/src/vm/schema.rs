//! Schemas in a machine: loading `schema.lua`, and asking the functions in it.

use super::Vm;
use crate::code::Code;
use crate::convert::{to_json, to_lua};
use crate::state::{Phase, Reach, Scene};
use mlua::{Function, MultiValue, Value};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a function that was stopped is left alone.
const AGAIN: Duration = Duration::from_secs(2);

thread_local! {
    /// The last machine that this thread asked a schema in. One is enough: a file is loaded by one thread, with one set of
    /// sources.
    static MACHINE: RefCell<Option<Rc<Vm>>> = const { RefCell::new(None) };
}

/// What a function of a schema said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// What it returned, if it is of use.
    Yes(Json),
    /// Why not, and the field that is at fault, if it named one.
    No(String, Option<String>),
}

/// Ask the function `id` of `plugin`'s schema, or the rule `what`, in a machine of this thread.
///
/// # Errors
/// The function failed, or was stopped.
pub(crate) fn ask(code: &Arc<Code>, plugin: &str, what: &str, id: &str, values: &[Json]) -> Result<Said, String> {
    machine(code)?.ask(code, plugin, what, id, values)
}

/// Whether `text` is a template.
///
/// # Errors
/// It is not, and why.
pub(crate) fn check_template(code: &Arc<Code>, text: &str) -> Result<(), String> {
    machine(code)?.template(text)
}

/// Whether `code` can be the value of a log record's field.
///
/// # Errors
/// It cannot, and why.
pub(crate) fn check_field(code: &Arc<Code>, text: &str) -> Result<(), String> {
    machine(code)?.field(text)
}

/// For fuzzing: what a schema says that stands nowhere. `read` is Lua that makes its table of `written`.
pub(crate) fn describe_here(
    code: &Arc<Code>,
    plugin: &str,
    read: &str,
    written: &Json,
) -> Result<Option<Json>, String> {
    let vm = machine(code)?;
    vm.not_again.borrow_mut().clear();
    let described = vm.aside(|| {
        let enliven: Function = vm.lua.load(read).call((vm.require.clone(), Value::NULL))?;
        let schema: Value = enliven.call(to_lua(&vm.lua, written, &Value::NULL)?)?;
        let describe: Function = vm.schemas.raw_get("describe")?;
        describe.call::<Value>((plugin, schema))
    });
    to_json(&described.0.map_err(|error| error.to_string())?).map(Some)
}

/// The machine of this thread in which what stands in a configuration is checked.
fn machine(code: &Arc<Code>) -> Result<Rc<Vm>, String> {
    MACHINE.with_borrow_mut(|machine| {
        if let Some(vm) = machine.as_ref().filter(|vm| vm.code.as_ptr() == Arc::as_ptr(code)) {
            return Ok(vm.clone());
        }
        let vm = Rc::new(Vm::new(code)?);
        *machine = Some(vm.clone());
        Ok(vm)
    })
}

impl Vm {
    /// What `plugin`'s schema says, as plain data; a function in it is `{"$function": ID}`. `None`: it has no schema.
    ///
    /// # Errors
    /// It does not load; with file and line.
    pub(crate) fn describe(&self, code: &Code, plugin: &str) -> Result<Option<Json>, String> {
        let module = format!("kong.plugins.{plugin}.schema");
        if code.module(&module).is_none() {
            return Ok(None);
        }
        let described = self.aside(|| {
            let schema: Value = self.require.call(module.as_str())?;
            let Value::Table(_) = schema else {
                let message = format!("{module} returns a {}, not the schema's table", schema.type_name());
                return Err(mlua::Error::runtime(message));
            };
            let describe: Function = self.schemas.raw_get("describe")?;
            describe.call::<Value>((plugin, schema))
        });
        let described = described.0.map_err(|error| format!("{module} does not load: {error}"))?;
        to_json(&described).map(Some).map_err(|error| format!("{module}: {error}"))
    }

    fn ask(&self, code: &Code, plugin: &str, what: &str, id: &str, values: &[Json]) -> Result<Said, String> {
        self.may_ask(plugin, what, id)?;
        let known: Function = self.schemas.raw_get("known").map_err(|error| error.to_string())?;
        if !known.call::<bool>(plugin).unwrap_or(false) {
            self.describe(code, plugin)?;
        }
        let (answer, stopped) = self.aside(|| {
            let mut arguments = MultiValue::with_capacity(values.len() + 3);
            for text in [plugin, what, id] {
                arguments.push_back(Value::String(self.lua.create_string(text)?));
            }
            for value in values {
                arguments.push_back(to_lua(&self.lua, value, &Value::NULL)?);
            }
            let ask: Function = self.schemas.raw_get("ask")?;
            ask.call::<(bool, Value, Option<String>)>(arguments)
        });
        if stopped {
            self.not_again.borrow_mut().insert(format!("{plugin} {what} {id}"), Instant::now());
        }
        match answer.map_err(|error| one_line(&error))? {
            (true, Value::Nil, _) => Ok(Said::Yes(Json::Null)),
            (true, value, _) => to_json(&value).map(Said::Yes),
            (false, Value::String(text), field) => Ok(Said::No(text.to_string_lossy(), field)),
            (false, _, field) => Ok(Said::No("refused by the plugin's schema".to_owned(), field)),
        }
    }

    /// Whether the function may be asked: one that was stopped is not asked for every value of a long list.
    fn may_ask(&self, plugin: &str, what: &str, id: &str) -> Result<(), String> {
        let mut not_again = self.not_again.borrow_mut();
        if not_again.is_empty() {
            return Ok(());
        }
        not_again.retain(|_, stopped| stopped.elapsed() < AGAIN);
        if not_again.contains_key(&format!("{plugin} {what} {id}")) {
            return Err(format!("it ran too long and is not asked again for {} s", AGAIN.as_secs()));
        }
        Ok(())
    }

    /// Run what has nothing to do with a request, under the watchdog; whether it was stopped.
    fn aside<R>(&self, call: impl FnOnce() -> mlua::Result<R>) -> (mlua::Result<R>, bool) {
        let mut scene =
            Scene { reach: Reach::Nothing, chunk: None, phase: Phase::InitWorker, instance: 0, request: (0.0, 0) };
        self.watched.during(|| self.shared.state.enter(&mut scene, call))
    }
}

/// Without the traceback and without lines of the gateway's own files: for whoever reads a file's problems.
fn one_line(error: &mlua::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let text = first.trim_start_matches("runtime error: ");
    match text.strip_prefix("gateward/").and_then(|own| own.split_once(": ")) {
        Some((_, text)) => text.to_owned(),
        None => text.to_owned(),
    }
}
