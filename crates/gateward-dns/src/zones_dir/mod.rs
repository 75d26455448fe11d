//! The folder of zones as people change it: loaded at the start, looked at again and again, and taken over zone by zone.
//!
//! Looking is polling, as for the gateway's own file: it works for editors that rename, for mounted ConfigMaps and for network file
//! systems. A look at many files takes a while, so the pause between two looks is a multiple of it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gateward_zone::{Name, Problem};

use crate::authority::{Authority, Loaded, Prepared};
use crate::folder::{Included, POLICY_SUFFIX, Stamp, ZONE_SUFFIX, origin_of};
use crate::keys::KeyFile;

/// Shortest pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// The pause is this many times as long as the look before it, without what was taken over in it.
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
    /// Zones of which files were found.
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
    /// Zones that are looked at again whatever their files look like, with what was said of them last.
    unsettled: HashMap<Name, Vec<Problem>>,
}

/// How a zone's files looked when they were read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    zone: Option<Stamp>,
    policy: Option<Stamp>,
    includes: Vec<Included>,
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
        let mut rung_before = self.lock();
        // Nothing comes after the end.
        if *rung_before != Rung::Stop {
            *rung_before = rung;
        }
        self.bell.notify_all();
    }

    /// Waits for the bell, and answers to it.
    fn wait(&self, pause: Duration) -> Rung {
        let quiet = |rung: &mut Rung| *rung == Rung::No;
        let (mut rung, _) =
            self.bell.wait_timeout_while(self.lock(), pause, quiet).unwrap_or_else(PoisonError::into_inner);
        if *rung == Rung::Stop { Rung::Stop } else { std::mem::take(&mut rung) }
    }

    /// Waits without answering to anything but the end; whether that came.
    fn stops_within(&self, pause: Duration) -> bool {
        let goes_on = |rung: &mut Rung| *rung != Rung::Stop;
        let (rung, _) =
            self.bell.wait_timeout_while(self.lock(), pause, goes_on).unwrap_or_else(PoisonError::into_inner);
        *rung == Rung::Stop
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Rung> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut origins: Vec<Name> =
            seen.iter().filter(|(_, seen)| seen.zone.is_some()).map(|(origin, _)| origin.clone()).collect();
        let is_missing = |origin: &Name| seen.get(origin).is_none_or(|seen| seen.zone.is_none());
        // Zones whose files went while nobody looked.
        origins.extend(authority.folder().kept()?.into_iter().filter(is_missing));
        let prepare = |origin: &Name| authority.prepare(origin);
        let prepared: Vec<(Prepared, Loaded)> = by_threads(&origins, threads, &prepare);
        let (prepared, mut loaded): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        authority.adopt(prepared);
        // What was edited or removed while nobody looked is judged as it would have been: edits first, because they may take away what leads
        // to a zone that goes.
        let unjudged = (0..origins.len()).filter(|index| loaded[*index].again);
        let (mut gone, edited): (Vec<usize>, Vec<usize>) =
            unjudged.partition(|index| seen.get(&origins[*index]).is_none_or(|seen| seen.zone.is_none()));
        gone.sort_by_key(|index| Reverse(origins[*index].label_count()));
        for (indices, threads) in [(edited, threads), (gone, 1)] {
            let again = by_threads(&indices, threads, &|index: &usize| authority.reload(&origins[*index]));
            indices.into_iter().zip(again).for_each(|(index, judged)| loaded[index] = judged);
        }
        let mut start = Start::default();
        let mut unsettled = HashMap::new();
        for (origin, loaded) in origins.iter().zip(loaded) {
            report(origin, &loaded.problems);
            start.found += usize::from(authority.info(origin).is_some());
            start.refused += usize::from(loaded.problems.iter().any(Problem::is_error));
            if let Some(seen) = seen.get_mut(origin) {
                seen.includes = loaded.includes;
            }
            if loaded.again {
                unsettled.insert(origin.clone(), loaded.problems);
            }
        }
        Ok((ZonesDir { authority, keys, seen, keys_seen, unsettled }, start))
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
                let looked = self.look(rung == Rung::All, bell);
                pause = (looked * PAUSE_PER_LOOK).clamp(PAUSE, MAX_PAUSE);
                last = Instant::now();
            }
            if let Some(origin) = uncopied.pop() {
                self.authority.keep_good_copy(&origin);
            }
        }
    }

    /// Takes over what looks different, or everything; how long it took to look.
    fn look(&mut self, all: bool, bell: &Bell) -> Duration {
        let start = Instant::now();
        let keys = Stamp::of(self.keys.path());
        if all || keys != self.keys_seen {
            self.keys_seen = keys;
            self.keys.reload();
        }
        let now = match list(self.authority.folder().root()) {
            Ok(now) => now,
            Err(error) => {
                tracing::error!(%error, "the folder of zones cannot be listed; the zones are served as they are");
                return start.elapsed();
            }
        };
        let mut known: HashSet<Name> =
            self.seen.keys().chain(now.keys()).chain(self.unsettled.keys()).cloned().collect();
        if all {
            // Zones whose files are gone are here still, if rules spoke against it then.
            known.extend(self.authority.all().into_iter().map(|(origin, _)| origin));
        }
        let looks = known.into_iter().map(|origin| {
            let now = self.now(&origin);
            (origin, now)
        });
        let is_news = |origin: &Name, now: &Seen| {
            all || self.unsettled.contains_key(origin)
                || self.seen.get(origin).map_or(*now != Seen::default(), |seen| seen != now)
        };
        let mut changed: Vec<(Name, Seen)> = looks.filter(|(origin, now)| is_news(origin, now)).collect();
        let looked = start.elapsed();
        if changed.is_empty() || bell.stops_within(SETTLE) {
            return looked;
        }
        // A zone may go when nothing leads to it and nothing is below it any more.
        changed.sort_by_key(|(origin, now)| (now.zone.is_none(), Reverse(origin.label_count())));
        for (origin, now) in changed {
            // What is still being written is left for the next look.
            if now == self.now(&origin) {
                self.take(origin, now);
            } else if all {
                self.unsettled.entry(origin).or_default();
            }
        }
        looked
    }

    fn take(&mut self, origin: Name, mut now: Seen) {
        let loaded = self.authority.reload(&origin);
        let said = self.unsettled.remove(&origin);
        // What is tried again and again is told once.
        if said.is_none_or(|said| said != loaded.problems) {
            report(&origin, &loaded.problems);
        }
        if loaded.again {
            self.unsettled.insert(origin.clone(), loaded.problems);
        }
        now.includes = loaded.includes;
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

/// Does the same to all items, with at most `threads` threads; gives what came of them in their order.
fn by_threads<I: Sync, T: Send>(items: &[I], threads: usize, work: &(impl Fn(&I) -> T + Sync)) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, 64)).map(|_| scope.spawn(some)).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.flat_map(|done| done.expect("what can go wrong with a zone ends within its own reading")).collect()
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, done)| done).collect()
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

fn report(origin: &Name, problems: &[Problem]) {
    for problem in problems {
        if problem.is_error() {
            tracing::error!(zone = %origin, "{problem}");
        } else {
            tracing::warn!(zone = %origin, "{problem}");
        }
    }
}

#[cfg(test)]
mod tests;
