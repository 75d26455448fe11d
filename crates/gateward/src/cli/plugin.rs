//! `gateward plugin`: from an empty folder to a filter that is built, tried and checked; what of Lua plugins will work.

mod lua;

use crate::cli::cases::Tally;
use crate::cli::check::Form;
use crate::cli::{FAILURE, complain, lua_cases, print};
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use gateward_wasm::callout::Upstreams;
use gateward_wasm::trial::{self, Cases};
use gateward_wasm::{Filter, FilterConfig, LogLevel, LogSink, Module, Runtime, Services};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

/// What filters in Rust are compiled for.
const TARGET: &str = "wasm32-wasip1";

const LIBRARY: &str = include_str!("../../../../examples/plugins/header-filter/src/lib.rs");
const LUA_HANDLER: &str = include_str!("../../../../examples/plugins/tenant/kong/plugins/tenant/handler.lua");
const LUA_MODULE: &str = include_str!("../../../../examples/plugins/tenant/kong/plugins/tenant/plans.lua");
const LUA_SCHEMA: &str = include_str!("../../../../examples/plugins/tenant/kong/plugins/tenant/schema.lua");
const LUA_CASES: &str = include_str!("../../../../examples/plugins/tenant/tests/cases.json");
const CASES: &str = include_str!("../../../../examples/plugins/header-filter/tests/cases.json");

/// Make, build, try and check Wasm filters.
#[derive(Debug, Subcommand)]
pub(crate) enum Arguments {
    /// Make a folder with a filter in Rust, or a plugin in Lua, and cases to try it on
    New {
        /// Name of the filter or plugin and the folder: small letters, digits, - and _
        name: String,
        /// A plugin for Kong in Lua instead
        #[arg(long)]
        lua: bool,
    },
    /// Compile the filter of a folder; the last line names the file
    Build {
        /// The folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Try the plugins in Lua of a folder, or build its filter and try that, on the cases in its tests/*.json
    Test {
        /// The folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Say whether a module is a filter that starts with a configuration, or what of a folder of Lua plugins will not work
    Check {
        /// The module, or the folder
        file: PathBuf,
        /// How to tell of Lua plugins
        #[arg(long, value_enum, default_value_t = Form::Text)]
        format: Form,
        /// The filter's configuration; without it the filter is not started
        #[arg(long, value_name = "TEXT")]
        config: Option<String>,
    },
}

/// Run the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let outcome = match arguments {
        Arguments::New { name, lua } => new(name, *lua),
        Arguments::Build { folder } => build(folder).map(|file| print(&format!("{}\n", file.display()))),
        Arguments::Test { folder } if lua_cases::is_lua(folder) => lua_cases::run(folder),
        Arguments::Test { folder } => test(folder),
        Arguments::Check { file, format, .. } if file.is_dir() => return lua::check(file, *format),
        Arguments::Check { file, config, .. } => check(file, config.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

fn new(name: &str, lua: bool) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    ensure!(
        name.bytes().all(plain) && name.starts_with(|first: char| first.is_ascii_lowercase()),
        "'{name}' is no name for a filter or plugin: use small letters, digits, - and _"
    );
    let folder = Path::new(name);
    ensure!(!folder.exists(), "{name} is there already; choose another name");
    let files = if lua { lua_files(name) } else { rust_files(name) };
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&format!("{name} is made. Next:\n  gateward plugin test {name}\n"));
    Ok(())
}

/// Paths and texts of a filter in Rust.
fn rust_files(name: &str) -> Vec<(String, String)> {
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\nproxy-wasm = \"0.2.5\"\n\n[profile.release]\nlto = true\nopt-level = \"s\"\nstrip = \"debuginfo\"\n\n\
         # Not part of a workspace that the folder may be in: it is built for another target.\n[workspace]\n"
    );
    [
        ("Cargo.toml", manifest.as_str()),
        ("src/lib.rs", LIBRARY),
        ("tests/cases.json", CASES),
        (".gitignore", "/target\n"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into()
}

/// Paths and texts of a plugin in Lua: the example's, under another name.
fn lua_files(name: &str) -> Vec<(String, String)> {
    let folder = format!("kong/plugins/{name}");
    [
        (format!("{folder}/handler.lua"), LUA_HANDLER),
        (format!("{folder}/plans.lua"), LUA_MODULE),
        (format!("{folder}/schema.lua"), LUA_SCHEMA),
        ("tests/cases.json".to_owned(), LUA_CASES),
    ]
    .map(|(path, text)| {
        let text = text.replace("kong.plugins.tenant", &format!("kong.plugins.{name}"));
        (path, text.replace("name = \"tenant\"", &format!("name = \"{name}\"")))
    })
    .into()
}

fn build(folder: &Path) -> Result<PathBuf> {
    let target = folder.join("target");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", TARGET, "--manifest-path"]).arg(folder.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    let status = cargo.status().context("cargo does not run; install Rust from https://rustup.rs")?;
    ensure!(status.success(), "the filter does not compile; is the target there? rustup target add {TARGET}");
    let out = target.join(TARGET).join("release");
    let files = fs::read_dir(&out).with_context(|| format!("cannot read {}", out.display()))?;
    let mut modules =
        files.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "wasm"));
    modules.next().with_context(|| format!("no module in {}; is the crate-type cdylib?", out.display()))
}

/// Prints what filters log.
struct Print;

impl LogSink for Print {
    fn log(&self, level: LogLevel, filter: &str, line: &str) {
        complain(&format!("{filter}: {level:?}: {line}"));
    }

    fn least(&self) -> LogLevel {
        LogLevel::Info
    }
}

/// Cases answer every callout themselves.
struct Anywhere;

impl Upstreams for Anywhere {
    fn knows(&self, _upstream: &str) -> bool {
        true
    }
}

fn load(file: &Path) -> Result<(Arc<Runtime>, Module)> {
    let wasm = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let runtime = Runtime::new(Services::new(Arc::new(Print)), None)?;
    let module = runtime.load(&wasm).with_context(|| file.display().to_string())?;
    Ok((runtime, module))
}

fn start(runtime: &Arc<Runtime>, module: &Module, file: &Path, configuration: Vec<u8>) -> Result<Arc<Filter>> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let config = FilterConfig { configuration, ..FilterConfig::new(name) };
    Ok(Filter::new(runtime, module, config, Arc::new(Anywhere))?)
}

fn test(folder: &Path) -> Result<()> {
    let module_file = build(folder)?;
    let (runtime, module) = load(&module_file)?;
    let mut tally = Tally::new(folder);
    for (_, cases) in tally.files::<Cases>()? {
        let configuration = match &cases.configuration {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        let filter = start(&runtime, &module, &module_file, configuration)?;
        for case in &cases.cases {
            let differences = trial::run(&filter, case).unwrap_or_else(|failure| vec![failure.to_string()]);
            tally.note(&case.name, &differences);
        }
    }
    tally.conclude()
}

fn check(file: &Path, config: Option<&str>) -> Result<()> {
    let (runtime, module) = load(file)?;
    print(&format!(
        "{}: ABI {}, {} bytes, sha256 {}\n",
        file.display(),
        module.abi().as_str(),
        module.bytes(),
        module.hash()
    ));
    if let Some(config) = config {
        start(&runtime, &module, file, config.as_bytes().to_vec())?;
        print("it starts with this configuration\n");
    }
    Ok(())
}
