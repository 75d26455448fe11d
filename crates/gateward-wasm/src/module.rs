//! Modules: compiled, checked against the ABI, ready to be instantiated.

use crate::about::About;
use crate::bridge::Bridge;
use crate::host::Host;
use crate::types::Abi;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use wasmtime::{ExternType, FuncType, InstancePre, Module};

/// SHA-256 of a module's bytes: what identifies its code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why bytes are not taken as a filter.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Too many bytes.
    #[error("the module is larger than {most} bytes")]
    TooLarge {
        /// The limit.
        most: usize,
    },
    /// It is no valid module.
    #[error("not a valid Wasm module: {0}")]
    Invalid(String),
    /// It needs something that the host has not.
    #[error("cannot be linked: {0}")]
    Import(String),
    /// Something that every filter exports is missing.
    #[error("exports no {export}: {hint}")]
    Missing {
        /// The export.
        export: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A callback has another form than the ABI gives it.
    #[error("export {export} has the type {found}, not {expected}")]
    Signature {
        /// The export.
        export: &'static str,
        /// Its type as the ABI has it.
        expected: String,
        /// As the module has it.
        found: String,
    },
}

/// Most bytes of a module.
pub(crate) const MODULE_BYTES: usize = 64 << 20;

/// A filter's code.
pub(crate) struct Code {
    pub(crate) hash: Hash,
    pub(crate) abi: Abi,
    pub(crate) about: About,
    /// Bytes of the Wasm file.
    pub(crate) bytes: usize,
    pub(crate) pre: InstancePre<Host>,
    pub(crate) bridge: Arc<Bridge>,
    /// Instances of the process.
    pub(crate) living: Arc<AtomicUsize>,
}

impl fmt::Debug for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Code").field("hash", &self.hash).field("abi", &self.abi).finish_non_exhaustive()
    }
}

/// Exports that the host calls: name, parameters, results, as the letters `i` for 32 and `l` for 64 bits.
const CALLBACKS: &[(&str, &str, &str)] = &[
    ("_initialize", "", ""),
    ("_start", "", ""),
    ("main", "ii", "i"),
    ("proxy_on_memory_allocate", "i", "i"),
    ("malloc", "i", "i"),
    ("proxy_on_context_create", "ii", ""),
    ("proxy_on_done", "i", "i"),
    ("proxy_on_log", "i", ""),
    ("proxy_on_delete", "i", ""),
    ("proxy_on_vm_start", "ii", "i"),
    ("proxy_on_configure", "ii", "i"),
    ("proxy_on_tick", "i", ""),
    ("proxy_on_new_connection", "i", "i"),
    ("proxy_on_downstream_data", "iii", "i"),
    ("proxy_on_downstream_connection_close", "ii", ""),
    ("proxy_on_upstream_data", "iii", "i"),
    ("proxy_on_upstream_connection_close", "ii", ""),
    ("proxy_on_request_body", "iii", "i"),
    ("proxy_on_request_trailers", "ii", "i"),
    ("proxy_on_response_body", "iii", "i"),
    ("proxy_on_response_trailers", "ii", "i"),
    ("proxy_on_http_call_response", "iiiii", ""),
    ("proxy_on_grpc_receive_initial_metadata", "iii", ""),
    ("proxy_on_grpc_receive", "iii", ""),
    ("proxy_on_grpc_receive_trailing_metadata", "iii", ""),
    ("proxy_on_grpc_close", "iii", ""),
    ("proxy_on_queue_ready", "ii", ""),
    ("proxy_on_foreign_function", "iii", ""),
];

/// Callbacks that ABI 0.1.0 calls without `end_of_stream`; the form the module has is the one that is called.
const HEADER_CALLBACKS: [&str; 2] = ["proxy_on_request_headers", "proxy_on_response_headers"];

/// The version that a module announces, after checking everything the host is going to call.
pub(crate) fn check(module: &Module) -> Result<Abi, ModuleError> {
    let abi = Abi::MARKERS.into_iter().find(|(marker, _)| module.get_export(marker).is_some());
    let Some((_, abi)) = abi else {
        return Err(ModuleError::Missing {
            export: "proxy_abi_version_0_2_1",
            hint: "it must announce ABI 0.1.0, 0.2.0 or 0.2.1; is it a Proxy-Wasm filter?",
        });
    };
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        return Err(ModuleError::Missing { export: "memory", hint: "the host reads and writes the filter's memory" });
    }
    if module.get_export("proxy_on_memory_allocate").or_else(|| module.get_export("malloc")).is_none() {
        return Err(ModuleError::Missing {
            export: "proxy_on_memory_allocate",
            hint: "the host needs it (or malloc) to hand over values",
        });
    }
    for (name, parameters, results) in CALLBACKS {
        // The main function of some compilers has other parameters and is not for the host.
        if let Some(found) = signature(module, name)
            && found != (parameters.to_string(), results.to_string())
            && *name != "main"
        {
            return Err(refuse(name, (parameters, results), &found));
        }
    }
    for name in HEADER_CALLBACKS {
        if let Some(found) = signature(module, name)
            && !matches!((found.0.as_str(), found.1.as_str()), ("iii" | "ii", "i"))
        {
            return Err(refuse(name, ("iii", "i"), &found));
        }
    }
    Ok(abi)
}

fn refuse(export: &'static str, expected: (&str, &str), found: &(String, String)) -> ModuleError {
    let text = |(parameters, results): (&str, &str)| {
        let words = |letters: &str| letters.chars().map(word).collect::<Vec<_>>().join(" ");
        format!("({}) -> ({})", words(parameters), words(results))
    };
    ModuleError::Signature { export, expected: text(expected), found: text((&found.0, &found.1)) }
}

fn word(letter: char) -> &'static str {
    match letter {
        'i' => "i32",
        'l' => "i64",
        'f' => "f32",
        'd' => "f64",
        'g' => "a global, memory or table",
        _ => "other",
    }
}

/// The type of an exported function, in letters.
fn signature(module: &Module, name: &str) -> Option<(String, String)> {
    match module.get_export(name)? {
        ExternType::Func(function) => Some(letters(&function)),
        _ => Some(("g".to_owned(), String::new())),
    }
}

fn letters(function: &FuncType) -> (String, String) {
    let letter = |value: wasmtime::ValType| match value {
        wasmtime::ValType::I32 => 'i',
        wasmtime::ValType::I64 => 'l',
        wasmtime::ValType::F32 => 'f',
        wasmtime::ValType::F64 => 'd',
        _ => 'o',
    };
    (function.params().map(letter).collect(), function.results().map(letter).collect())
}
