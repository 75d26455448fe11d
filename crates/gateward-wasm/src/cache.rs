//! Compiled modules on disk, so that a start does not compile what was compiled before.
//!
//! What is loaded is machine code that is run as it is, so it is only ever loaded from this folder, which must belong to
//! the user of the process and be writable by nobody else; compiled code that comes from anywhere else is not looked at.
//! A file's name holds the hash of the module, the version of the compiler and of its settings.
#![expect(unsafe_code, reason = "loading machine code; see SAFETY below")]

use crate::module::Hash;
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::{Engine, Module};

/// Files kept; the ones used longest ago are removed.
pub(crate) const FILES: usize = 128;

/// The folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    engine: u64,
    names: AtomicU64,
}

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made or read.
    #[error("cannot use {folder}: {error}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// Somebody else could put machine code there.
    #[error("{folder} must belong to the user of this process and be writable by nobody else (chmod 700)")]
    Open {
        /// The folder.
        folder: PathBuf,
    },
}

impl Cache {
    /// Use `folder`, which is made if need be.
    pub(crate) fn open(folder: &Path, engine: &Engine) -> Result<Self, CacheError> {
        let failed = |error| CacheError::Io { folder: folder.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let metadata = fs::metadata(&folder).map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(CacheError::Open { folder });
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Ok(Self { folder, engine: hasher.finish(), names: AtomicU64::new(0) })
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        self.folder.join(format!("{hash}-{:016x}.cwasm", self.engine))
    }

    /// The compiled module, if it is here.
    pub(crate) fn load(&self, engine: &Engine, hash: &Hash) -> Option<Module> {
        let path = self.path(hash);
        if !path.is_file() {
            return None;
        }
        // SAFETY: the file was written by `store` of a process of the same user, from the output of the same compiler with
        // the same settings (both are in its name, and wasmtime checks them again), and renamed into place whole; nobody
        // else can write to the folder.
        match unsafe { Module::deserialize_file(engine, &path) } {
            Ok(module) => {
                let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
                let _ = File::open(&path).and_then(|file| file.set_times(now));
                Some(module)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module cannot be used and is made again");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keep a compiled module. What cannot be kept is compiled again next time, so failing is only worth a line.
    pub(crate) fn store(&self, hash: &Hash, module: &Module) {
        let path = self.path(hash);
        let written = module.serialize().map_err(io::Error::other).and_then(|bytes| self.write(&path, &bytes));
        match written {
            Ok(()) => self.sweep(),
            Err(error) => tracing::warn!(path = %path.display(), %error, "a compiled module could not be kept"),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let draft = self.folder.join(format!("{}-{number}.draft", std::process::id()));
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    }

    /// Remove what is over the limit.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let dated = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "cwasm"));
        let mut files: Vec<_> =
            dated.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
        if files.len() > FILES {
            files.sort();
            for (_, path) in &files[..files.len() - FILES] {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::engine;
    use crate::testing::Folder;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_module_is_found_again_by_its_hash() {
        let folder = Folder::new("cache-found");
        let (engine, _) = engine().unwrap();
        let cache = Cache::open(&folder.path().join("new"), &engine).unwrap();
        let wasm = wat::parse_str("(module)").unwrap();
        let hash = Hash::of(&wasm);
        assert!(cache.load(&engine, &hash).is_none());
        cache.store(&hash, &Module::new(&engine, &wasm).unwrap());
        assert!(cache.load(&engine, &hash).is_some());
        assert!(cache.load(&engine, &Hash::of(b"other")).is_none());
        fs::write(cache.path(&hash), b"\x7fELF nonsense").unwrap();
        assert!(cache.load(&engine, &hash).is_none());
        assert!(!cache.path(&hash).exists(), "what cannot be used is removed");
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = Folder::new("cache-open");
        let (engine, _) = engine().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Cache::open(folder.path(), &engine), Err(CacheError::Open { .. })));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(Cache::open(folder.path(), &engine).is_ok());
    }

    #[test]
    fn the_oldest_are_removed() {
        let folder = Folder::new("cache-sweep");
        let (engine, _) = engine().unwrap();
        let cache = Cache::open(folder.path(), &engine).unwrap();
        for number in 0..FILES + 3 {
            fs::write(folder.path().join(format!("{number}.cwasm")), b"").unwrap();
        }
        cache.sweep();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES);
    }
}
