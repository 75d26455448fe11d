//! The sources of all Lua plugins, read once and shared by every machine.

use crate::facts::NodeFacts;
use crate::functions::{self, Untrusted};
use gateward_model::{Config, Directory};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

/// Files of Lua code below all folders; more are refused.
const FILES: usize = 8192;
/// Bytes of one file.
const FILE_BYTES: u64 = 4 << 20;
/// Folders within folders.
const DEPTH: usize = 12;

/// One file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Where it was read.
    pub(crate) path: PathBuf,
    pub(crate) text: Vec<u8>,
}

/// Everything that `require` finds beside what the gateway brings.
#[derive(Debug)]
pub(crate) struct Code {
    /// Same sources, same id.
    pub(crate) id: u64,
    /// Names of the plugins, in order.
    pub(crate) plugins: Vec<String>,
    /// By the name that `require` knows.
    modules: BTreeMap<String, Source>,
    /// About the node that runs them.
    pub(crate) facts: Arc<NodeFacts>,
    next_instance: AtomicU32,
    /// What code in a configuration may do.
    pub(crate) untrusted: Untrusted,
    pub(crate) machines: Machines,
    workers: AtomicU32,
}

/// What plugins look up of the configuration that a worker serves.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) directory: Directory,
    /// Names.
    pub(crate) upstreams: HashSet<String>,
}

impl Served {
    /// Of `config`.
    pub(crate) fn new(config: &Config) -> Self {
        let upstreams = config.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        Self { directory: Directory::new(config), upstreams }
    }
}

/// What tells whether a file changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Every file of Lua code below `folders`, in order.
///
/// # Errors
/// A folder that cannot be read, or too many files.
pub(crate) fn stamps(folders: &[PathBuf]) -> Result<Vec<Stamp>, String> {
    let mut stamps = Vec::new();
    for folder in folders {
        walk(folder, DEPTH, &mut stamps)
            .map_err(|error| format!("cannot read the Lua plugins in {}: {error}", folder.display()))?;
    }
    Ok(stamps)
}

fn walk(folder: &Path, depth: usize, stamps: &mut Vec<Stamp>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let metadata = fs::metadata(&path)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if metadata.is_dir() {
            if !hidden && depth > 0 {
                walk(&path, depth - 1, stamps)?;
            }
        } else if path.extension().is_some_and(|end| end == "lua") {
            if stamps.len() == FILES {
                return Err(io::Error::other(format!("more than {FILES} files of Lua code")));
            }
            stamps.push(Stamp { path, modified: metadata.modified().ok(), bytes: metadata.len() });
        }
    }
    Ok(())
}

/// The machines that run on this code, one per worker, and the memory they said they use.
#[derive(Debug, Default)]
pub(crate) struct Machines(Mutex<Vec<Weak<AtomicUsize>>>);

impl Machines {
    /// A place for one more machine to say what it uses.
    pub(crate) fn join(&self) -> Arc<AtomicUsize> {
        let own = Arc::new(AtomicUsize::new(0));
        let mut machines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        machines.retain(|machine| machine.strong_count() > 0);
        machines.push(Arc::downgrade(&own));
        own
    }

    /// What each of them uses.
    pub(crate) fn memory_bytes(&self) -> Vec<usize> {
        let machines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        machines.iter().filter_map(Weak::upgrade).map(|bytes| bytes.load(Ordering::Relaxed)).collect()
    }
}

impl Code {
    /// Read the files.
    ///
    /// # Errors
    /// A file that cannot be read or is too long.
    pub(crate) fn read(folders: &[PathBuf], stamps: &[Stamp]) -> Result<Self, String> {
        let mut modules = BTreeMap::new();
        for stamp in stamps {
            let path = &stamp.path;
            if stamp.bytes > FILE_BYTES {
                return Err(format!("{}: longer than {FILE_BYTES} bytes", path.display()));
            }
            let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let Some(name) = folders.iter().find_map(|folder| module_name(folder, path)) else { continue };
            // Of two files for one name the one of the first folder counts, as in a package path.
            modules.entry(name).or_insert_with(|| Source { path: path.clone(), text });
        }
        Ok(Self::new(modules))
    }

    pub(crate) fn new(modules: BTreeMap<String, Source>) -> Self {
        let mut hasher = Sha256::new();
        for (name, source) in &modules {
            hasher.update(name);
            hasher.update([0]);
            hasher.update((source.text.len() as u64).to_le_bytes());
            hasher.update(&source.text);
        }
        let digest = hasher.finalize();
        let id = u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
        let plugin = |name: &String| Some(name.strip_prefix("kong.plugins.")?.strip_suffix(".handler")?.to_owned());
        let plugins = modules.keys().filter_map(plugin).filter(|name| !name.contains('.')).collect();
        Self {
            id,
            plugins,
            modules,
            facts: Arc::default(),
            next_instance: AtomicU32::new(1),
            untrusted: Untrusted::default(),
            machines: Machines::default(),
            workers: AtomicU32::new(0),
        }
    }

    /// The file for `require(name)`.
    pub(crate) fn module(&self, name: &str) -> Option<&Source> {
        brought(name).or_else(|| self.modules.get(name))
    }

    /// What `require` calls the files.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// SHA-256 of a plugin's own files, in hex.
    pub(crate) fn hash(&self, plugin: &str) -> String {
        let prefix = format!("kong.plugins.{plugin}.");
        let mut hasher = Sha256::new();
        for (name, source) in self.modules.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix)) {
            hasher.update(name);
            hasher.update(&source.text);
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A number for one more worker that runs this code, from 0.
    pub(crate) fn next_worker(&self) -> u32 {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a new instance.
    pub(crate) fn number(&self) -> u32 {
        self.next_instance.fetch_add(1, Ordering::Relaxed)
    }
}

/// The file for `require(name)` that the gateway brings.
fn brought(name: &str) -> Option<&'static Source> {
    static BROUGHT: LazyLock<BTreeMap<String, Source>> = LazyLock::new(|| {
        let source = |(name, text): (String, String)| {
            let path = PathBuf::from(format!("gateward/{name}"));
            (name, Source { path, text: text.into_bytes() })
        };
        functions::modules().into_iter().map(source).collect()
    });
    BROUGHT.get(name)
}

/// What `require` calls the file at `path` below `folder`: from `kong/plugins` on when that is in its path, a folder
/// with a handler directly below is a plugin as well, anything else goes by its path.
fn module_name(folder: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(folder).ok()?.with_extension("");
    let mut parts: Vec<&str> = Vec::new();
    for component in relative.components() {
        let Component::Normal(part) = component else { return None };
        parts.push(part.to_str()?);
    }
    if parts.len() > 1 && parts.last() == Some(&"init") {
        parts.pop();
    }
    if let Some(at) = parts.windows(2).position(|pair| pair == ["kong", "plugins"]) {
        return Some(parts[at..].join("."));
    }
    let first = *parts.first()?;
    if folder.join(first).join("handler.lua").is_file() {
        return Some(format!("kong.plugins.{}", parts.join(".")));
    }
    Some(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_found_wherever_it_lies() {
        let folder = std::env::temp_dir().join(format!("gateward-lua-code-{}", std::process::id()));
        for path in [
            "kong/plugins/one/handler.lua",
            "kong/plugins/one/more/init.lua",
            "two/handler.lua",
            "two/schema.lua",
            "kong-plugin-three/kong/plugins/three/handler.lua",
            "resty/thing.lua",
            ".git/x.lua",
        ] {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "return {}").unwrap();
        }
        let folders = [folder.clone()];
        let code = Code::read(&folders, &stamps(&folders).unwrap()).unwrap();
        assert_eq!(code.plugins, ["one", "three", "two"]);
        let names: Vec<_> = code.modules.keys().map(String::as_str).collect();
        let expected = [
            "kong.plugins.one.handler",
            "kong.plugins.one.more",
            "kong.plugins.three.handler",
            "kong.plugins.two.handler",
            "kong.plugins.two.schema",
            "resty.thing",
        ];
        assert_eq!(names, expected);
        fs::remove_dir_all(&folder).unwrap();
        assert!(stamps(&folders).unwrap_err().contains("cannot read the Lua plugins"));
    }
}
