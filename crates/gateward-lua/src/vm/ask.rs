//! What a machine can be asked about itself (`lua/check.lua`).

use super::Vm;
use mlua::Function;

impl Vm {
    /// The shortest part of a chain of names that is not there; `None`: all of it is.
    ///
    /// # Errors
    /// The machine itself failed.
    pub(crate) fn missing(&self, chain: &str) -> Result<Option<String>, String> {
        self.about("missing", chain)
    }

    /// Whether the gateway brings the module `name`.
    ///
    /// # Errors
    /// As for [`Vm::missing`].
    pub(crate) fn brings(&self, name: &str) -> Result<bool, String> {
        self.about("brings", name)
    }

    /// The names of the modules that the gateway brings.
    #[cfg(test)]
    pub(crate) fn modules(&self) -> Vec<String> {
        self.about("modules", "").expect("names are at hand")
    }

    /// nginx's variables that are always nil here.
    #[cfg(test)]
    pub(crate) fn absent_variables(&self) -> Vec<String> {
        self.about("absent_variables", "").expect("names are at hand")
    }

    fn about<R: mlua::FromLuaMulti>(&self, function: &str, text: &str) -> Result<R, String> {
        let asked = || self.about.raw_get::<Function>(function)?.call(text);
        asked().map_err(|error: mlua::Error| error.to_string())
    }
}
