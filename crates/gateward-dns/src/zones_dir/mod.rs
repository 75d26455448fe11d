//! The folder of zones as people change it: loaded at the start, looked at again and again, and taken over zone by zone.
//!
//! Looking is polling, as for the gateway's own file: it works for editors that rename, for mounted ConfigMaps and for network file
//! systems. A look at many files takes a while, so the pause between two looks is a multiple of it.

mod stamp;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateward_zone::Name;

use crate::authority::{Authority, Loaded, Prepared};
use crate::folder::{POLICY_SUFFIX, ZONE_SUFFIX, origin_of};
use crate::keys::KeyFile;
use stamp::Stamp;

/// Shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause is this many times as long as the look before it.
const PAUSE_PER_LOOK: u32 = 50;
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How far below the servers the looking thread stands (`nice`).
const NICENESS: i32 = 5;
/// A file must look the same for this long: it may be under the pen.
const SETTLE: Duration = Duration::from_millis(25);

/// How a start went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Zones whose files were found.
    pub found: usize,
    /// Zones with something wrong in their files.
    pub refused: usize,
}

/// Looks after the files of an authority's zones.
pub struct ZonesDir {
    authority: Arc<Authority>,
    keys: Arc<KeyFile>,
    seen: HashMap<Name, Seen>,
    keys_seen: Option<Stamp>,
}

/// How a zone's files looked when they were read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    zone: Option<Stamp>,
    policy: Option<Stamp>,
    includes: Vec<(PathBuf, Option<Stamp>)>,
}

/// Asks for a look, or for the end of looking.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<Rung>,
    bell: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Rung {
    #[default]
    No,
    /// Everything is to be looked at, whether it looks different or not.
    All,
    Stop,
}

impl Bell {
    /// Every file is to be read again now.
    pub fn ring(&self) {
        self.set(Rung::All);
    }

    /// No more looks.
    pub fn stop(&self) {
        self.set(Rung::Stop);
    }

    fn set(&self, rung: Rung) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = rung;
        self.bell.notify_all();
    }

    fn wait(&self, pause: Duration) -> Rung {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |rung: &mut Rung| *rung == Rung::No;
        let (mut rung, _) = self.bell.wait_timeout_while(rung, pause, quiet).unwrap_or_else(PoisonError::into_inner);
        if *rung == Rung::Stop { Rung::Stop } else { std::mem::take(&mut rung) }
    }
}

impl ZonesDir {
    /// Loads every zone of the folder, with at most `threads` threads. A zone that cannot be read leaves the others alone.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn load(authority: Arc<Authority>, keys: Arc<KeyFile>, threads: usize) -> io::Result<(Self, Start)> {
        let root = authority.folder().root().to_owned();
        let keys_seen = Stamp::of(keys.path());
        let mut seen: HashMap<Name, Seen> = list(&root)?;
        let origins: Vec<Name> =
            seen.iter().filter(|(_, seen)| seen.zone.is_some()).map(|(origin, _)| origin.clone()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done: Vec<(Prepared, Loaded, &Name)> = Vec::new();
            while let Some(origin) = origins.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (prepared, loaded) = authority.prepare(origin);
                done.push((prepared, loaded, origin));
            }
            done
        };
        let done: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.clamp(1, 64)).map(|_| scope.spawn(work)).collect();
            // What can go wrong with a zone ends within its own reading.
            threads.into_iter().filter_map(|thread| thread.join().ok()).flatten().collect()
        });
        let mut start = Start { found: origins.len(), refused: 0 };
        let mut zones = Vec::with_capacity(done.len());
        for (prepared, loaded, origin) in done {
            start.refused += usize::from(loaded.problems.iter().any(gateward_zone::Problem::is_error));
            report(origin, &loaded);
            if let Some(seen) = seen.get_mut(origin) {
                seen.includes = stamped(loaded.includes);
            }
            zones.push(prepared);
        }
        authority.adopt(zones);
        Ok((ZonesDir { authority, keys, seen, keys_seen }, start))
    }

    /// Looks until the bell says stop; the calling thread is its own.
    pub fn watch(mut self, bell: &Bell) {
        // Without it looking is as important as answering, which is no reason not to look.
        let _ = rustix::process::nice(NICENESS);
        let mut uncopied: Vec<Name> = self.seen.keys().cloned().collect();
        let (mut pause, mut last) = (PAUSE, Instant::now());
        loop {
            let left = pause.saturating_sub(last.elapsed());
            let rung = bell.wait(if uncopied.is_empty() { left } else { Duration::from_millis(1) });
            if rung == Rung::Stop {
                return;
            }
            if rung == Rung::All || last.elapsed() >= pause {
                let start = Instant::now();
                self.look(rung == Rung::All, bell);
                pause = (start.elapsed() * PAUSE_PER_LOOK).clamp(PAUSE, MAX_PAUSE);
                last = Instant::now();
            }
            if let Some(origin) = uncopied.pop() {
                self.authority.keep_good_copy(&origin);
            }
        }
    }

    /// Takes over what looks different, or everything.
    fn look(&mut self, all: bool, bell: &Bell) {
        let keys = Stamp::of(self.keys.path());
        if all || keys != self.keys_seen {
            self.keys_seen = keys;
            self.keys.reload();
        }
        let now = match list(self.authority.folder().root()) {
            Ok(now) => now,
            Err(error) => {
                tracing::error!(%error, "the folder of zones cannot be listed; the zones are served as they are");
                return;
            }
        };
        let known: HashSet<Name> = self.seen.keys().chain(now.keys()).cloned().collect();
        let looks = known.into_iter().map(|origin| {
            let now = self.now(&origin);
            (origin, now)
        });
        let changed: Vec<(Name, Seen)> =
            looks.filter(|(origin, now)| all || self.seen.get(origin) != Some(now)).collect();
        if changed.is_empty() {
            return;
        }
        if bell.wait(SETTLE) == Rung::Stop {
            return bell.stop();
        }
        for (origin, now) in changed {
            // What is still being written is left for the next look.
            if now == self.now(&origin) {
                self.take(origin, now);
            }
        }
    }

    fn take(&mut self, origin: Name, mut now: Seen) {
        let loaded = self.authority.reload(&origin);
        report(&origin, &loaded);
        now.includes = stamped(loaded.includes);
        if now.zone.is_none() && now.policy.is_none() {
            self.seen.remove(&origin);
        } else {
            self.seen.insert(origin, now);
        }
    }

    /// How the files of a zone look.
    fn now(&self, origin: &Name) -> Seen {
        let folder = self.authority.folder();
        let includes = self.seen.get(origin).map(|seen| &seen.includes[..]).unwrap_or_default();
        Seen {
            zone: Stamp::of(&folder.zone_file(origin)),
            policy: Stamp::of(&folder.policy_file(origin)),
            includes: includes.iter().map(|(path, _)| (path.clone(), Stamp::of(path))).collect(),
        }
    }
}

fn stamped(includes: Vec<PathBuf>) -> Vec<(PathBuf, Option<Stamp>)> {
    includes
        .into_iter()
        .map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        })
        .collect()
}

/// The zones that a folder has files of.
fn list(root: &Path) -> io::Result<HashMap<Name, Seen>> {
    let mut zones: HashMap<Name, Seen> = HashMap::new();
    for file in fs::read_dir(root)? {
        let file = file?;
        let name = file.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let (stem, is_zone) = match (name.strip_suffix(POLICY_SUFFIX), name.strip_suffix(ZONE_SUFFIX)) {
            (Some(stem), _) => (stem, false),
            (None, Some(stem)) => (stem, true),
            (None, None) => continue,
        };
        let Some(origin) = origin_of(stem) else {
            tracing::warn!(file = name, "the name of the file is not that of a zone; it is left alone");
            continue;
        };
        let seen = zones.entry(origin).or_default();
        let stamp = Stamp::of(&file.path());
        if is_zone {
            seen.zone = stamp;
        } else {
            seen.policy = stamp;
        }
    }
    Ok(zones)
}

fn report(origin: &Name, loaded: &Loaded) {
    for problem in &loaded.problems {
        if problem.is_error() {
            tracing::error!(zone = %origin, "{problem}");
        } else {
            tracing::warn!(zone = %origin, "{problem}");
        }
    }
}

#[cfg(test)]
mod tests;
