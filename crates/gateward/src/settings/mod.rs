//! Settings of the process: from flags, `GATEWARD_*` and `KONG_*` variables to values.
//!
//! [`table`] names every setting once, as data; it drives `--help`, the look-up of variables and the reference
//! in the user guide. Two stages: [`Given`] is what was said, in text; [`Options`] is what it means. Nothing here
//! reads the environment by itself: it comes in as a list, so that tests need none.

mod dns;
mod kong_env;
mod resolve;
mod sources;
mod table;
mod tls;
mod values;

pub(crate) use resolve::{ConfigSource, Options, WasmOptions, resolve};
pub(crate) use sources::{Flags, Given};
pub(crate) use table::reference;
pub(crate) use values::{Listen, LogLevel, OutputFormat, duration, router_flavor, untrusted_lua};
