//! Refuses to build on a LuaJIT whose compiled loops cannot be stopped: see `src/watchdog.rs`.

use std::env;

const FLAG: &str = "-DLUAJIT_ENABLE_CHECKHOOK";

fn main() {
    let target = env::var("TARGET").unwrap_or_default();
    // The names under which the C compiler's flags are looked for, the first that is set counts (crate `cc`).
    let names = [
        format!("CFLAGS_{target}"),
        format!("CFLAGS_{}", target.replace('-', "_")),
        "TARGET_CFLAGS".to_owned(),
        "CFLAGS".to_owned(),
    ];
    for name in &names {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let flags = names.iter().find_map(|name| env::var(name).ok());
    if !flags.as_deref().is_some_and(|flags| flags.contains(FLAG)) {
        println!(
            "cargo::error=LuaJIT has to be built with CFLAGS={FLAG}, or a Lua plugin that loops cannot be stopped. \
             .cargo/config.toml says so; add it to the CFLAGS of your environment, which count instead."
        );
    }
}
