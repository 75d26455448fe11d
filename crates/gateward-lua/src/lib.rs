//! Kong's Lua plugins on LuaJIT.
//!
//! A plugin is a folder `kong/plugins/NAME` with `handler.lua` and `schema.lua`. `code` is the sources of all
//! plugins, read once; every worker makes one virtual machine (`vm`) of them, whose handlers run as coroutines on the
//! worker's own runtime. What a handler calls (`kong.*`, `ngx.*`) is written in Lua (`src/lua`) on top of a few
//! functions in Rust, the frequent ones reached through LuaJIT's FFI (`fast`).
//!
//! Lua is the tier for code that somebody has reviewed: it is fenced (memory, time, a sandbox), but LuaJIT is not a
//! boundary that holds against an attacker. Code nobody has read belongs into a Wasm filter.

mod api;
mod check;
mod code;
mod convert;
mod crypto;
mod dict;
mod facts;
mod fast;
mod functions;
#[doc(hidden)]
pub mod fuzzing;
mod host;
mod instance;
mod plugin;
mod record_fields;
mod retry;
mod sandbox;
mod schema;
mod shared;
mod slot;
mod slots;
mod socket;
mod state;
mod templates;
#[cfg(test)]
mod testing;
mod timers;
mod timing;
mod vm;
mod watchdog;
mod wire;
mod work;

pub use check::{CheckedPlugin, Finding, Module, Origin, Severity, check};
pub use facts::{NodeFacts, Statistics};
pub use functions::{NAMES as BROUGHT, Untrusted, UntrustedMode};
pub use host::{LuaHost, LuaOptions};
pub use instance::PluginTotals;
pub use timing::{TIME_BOUNDS_NS, Times};
