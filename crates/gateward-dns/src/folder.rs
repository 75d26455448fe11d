//! The folder of zones: which file belongs to which zone, and writing files so that a crash leaves the old or the new one.
//!
//! Layout: `ORIGIN.zone` and `ORIGIN.policy.yaml` are the operator's, `keys.yaml` holds TSIG keys, everything whose name begins with
//! a dot is the server's own.

mod stamp;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use gateward_zone::Name;

pub use stamp::{Included, Stamp};

/// Ending of zone files.
pub const ZONE_SUFFIX: &str = ".zone";
/// Ending of policy files.
pub const POLICY_SUFFIX: &str = ".policy.yaml";
/// Longest file of any kind.
pub const FILE_BYTES: u64 = 1 << 30;

/// Begins the names of files that are being written.
const TEMPORARY: &str = ".new-";

/// Mode of what everybody may read.
pub const PUBLIC: u32 = 0o644;
/// Mode of what holds secrets or who did what.
pub const PRIVATE: u32 = 0o600;

/// A folder of zones.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder at `root`, which exists; makes the server's own folders in it.
    ///
    /// # Errors
    /// It is not there, or cannot be written.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        for own in [".journal", ".versions", ".leases", ".confirmed", ".sources"] {
            make_folder(&root.join(own))?;
            sweep(&root.join(own));
        }
        sweep(&root);
        Ok(Folder { root })
    }

    /// The folder at `root`, to be read only.
    ///
    /// # Errors
    /// It is not there.
    pub fn at(root: &Path) -> io::Result<Self> {
        Ok(Folder { root: root.canonicalize()? })
    }

    /// The folder itself, without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The zone file of an origin.
    #[must_use]
    pub fn zone_file(&self, origin: &Name) -> PathBuf {
        self.root.join(stem(origin) + ZONE_SUFFIX)
    }

    /// The policy file of an origin.
    #[must_use]
    pub fn policy_file(&self, origin: &Name) -> PathBuf {
        self.root.join(stem(origin) + POLICY_SUFFIX)
    }

    /// The keys.
    #[must_use]
    pub fn keys_file(&self) -> PathBuf {
        self.root.join("keys.yaml")
    }

    /// Changes of a zone since its zone file was written.
    #[must_use]
    pub fn journal_file(&self, origin: &Name) -> PathBuf {
        self.root.join(".journal").join(stem(origin) + ".journal")
    }

    /// What became of a zone's leases.
    #[must_use]
    pub fn lease_file(&self, origin: &Name) -> PathBuf {
        self.root.join(".leases").join(stem(origin) + ".leases")
    }

    /// An empty file, as old as the last confirmation of a secondary zone by a primary.
    #[must_use]
    pub fn confirmed_file(&self, origin: &Name) -> PathBuf {
        self.root.join(".confirmed").join(stem(origin))
    }

    /// Where copied zones come from.
    #[must_use]
    pub fn sources_dir(&self) -> PathBuf {
        self.root.join(".sources")
    }

    /// Journals that were finished, and a copy of the zone that is known to be good.
    #[must_use]
    pub fn versions_dir(&self, origin: &Name) -> PathBuf {
        self.root.join(".versions").join(stem(origin))
    }

    /// A copy of the zone from when it was good.
    #[must_use]
    pub fn good_file(&self, origin: &Name) -> PathBuf {
        self.versions_dir(origin).join("good.zone")
    }

    /// The last version of a zone that was deleted.
    #[must_use]
    pub fn deleted_file(&self, origin: &Name) -> PathBuf {
        self.versions_dir(origin).join("deleted.zone")
    }

    /// Is there while a zone is being removed: the removal is finished at the next start.
    #[must_use]
    pub fn removal_file(&self, origin: &Name) -> PathBuf {
        self.versions_dir(origin).join("removing")
    }

    /// The origins of zones that the server itself keeps something of: journals, good copies, unfinished removals.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn kept(&self) -> io::Result<Vec<Name>> {
        let mut kept = Vec::new();
        for file in fs::read_dir(self.root.join(".journal"))? {
            let name = file?.file_name();
            kept.extend(name.to_str().and_then(|name| name.strip_suffix(".journal")).and_then(origin_of));
        }
        for folder in fs::read_dir(self.root.join(".versions"))? {
            let Some(origin) = folder?.file_name().to_str().and_then(origin_of) else { continue };
            if self.good_file(&origin).exists() || self.removal_file(&origin).exists() {
                kept.push(origin);
            }
        }
        kept.sort();
        kept.dedup();
        Ok(kept)
    }

    /// What was changed by whom.
    #[must_use]
    pub fn audit_file(&self) -> PathBuf {
        self.root.join("audit.log")
    }

    /// Where a file that a zone file includes is looked for.
    #[must_use]
    pub fn included(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// The content of a file that a zone file includes. `file` is relative to the folder and must stay in it, through links too.
    ///
    /// # Errors
    /// A text for the person who wrote `$INCLUDE`.
    pub fn include(&self, file: &str) -> Result<Vec<u8>, String> {
        let path = self.included(file);
        let real = path.canonicalize().map_err(|error| format!("{file} cannot be read: {error}"))?;
        if !real.starts_with(&self.root) {
            return Err(format!(
                "{file} is outside of {}; only files in that folder are included",
                self.root.display()
            ));
        }
        read_bounded(&real).map_err(|error| format!("{file} cannot be read: {error}"))
    }
}

/// The content of a file of at most [`FILE_BYTES`].
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_stamped(path).map(|(text, _)| text)
}

/// As [`read_bounded`], with how the file looked before.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read_stamped(path: &Path) -> io::Result<(Vec<u8>, Stamp)> {
    let file = File::open(path)?;
    let stamp = Stamp::of_open(&file)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", FILE_BYTES >> 20)));
    }
    Ok((text, stamp))
}

/// The name of an origin in file names: labels with dots between them, everything but letters, digits, `-` and `_` as `%XX`; `@` is the
/// root.
pub(crate) fn stem(origin: &Name) -> String {
    use std::fmt::Write as _;
    if origin.is_root() {
        return "@".to_owned();
    }
    let mut stem = String::new();
    for label in origin.labels() {
        if !stem.is_empty() {
            stem.push('.');
        }
        for octet in label {
            match octet {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => stem.push(char::from(*octet)),
                _ => write!(stem, "%{octet:02x}").expect("strings take everything"),
            }
        }
    }
    stem
}

/// The origin that a file's name without its ending stands for; `None` when it is none.
#[must_use]
pub fn origin_of(stem: &str) -> Option<Name> {
    if stem == "@" {
        return Some(Name::root());
    }
    let mut name = Name::root();
    for label in stem.trim_end_matches('.').rsplit('.') {
        let mut octets = Vec::new();
        let mut rest = label.as_bytes();
        while let Some((octet, tail)) = rest.split_first() {
            if *octet == b'%' {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                octets.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            } else {
                octets.push(*octet);
                rest = tail;
            }
        }
        name = name.child(&octets).ok()?;
    }
    Some(name)
}

/// Replaces a file: after a crash it is the old one or the new one, and after `Ok` it is the new one.
///
/// # Errors
/// The old one is still there.
pub fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_durably(path, content, mode, |_| true).map(drop)
}

/// Replaces a file as [`write_durably`] does, if `may` says so: it is asked at the last moment how the old file looks (`None`: not there).
/// Gives how the new one looks, or `None` when the old one was left alone.
///
/// # Errors
/// The old one is still there.
pub fn replace_durably(
    path: &Path,
    content: &[u8],
    mode: u32,
    may: impl FnOnce(Option<Stamp>) -> bool,
) -> io::Result<Option<Stamp>> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    // Nobody else writes to a file of that name, and it is short however long the zone's name is.
    let temporary = folder.join(format!("{TEMPORARY}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let written = (|| {
        // From before a crash.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        if !may(Stamp::of(path)) {
            return Ok(None);
        }
        fs::rename(&temporary, path)?;
        Stamp::of_open(&file).map(Some)
    })();
    if !matches!(written, Ok(Some(_))) {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&temporary);
    }
    let stamp = written?;
    if stamp.is_some() {
        sync_folder(folder)?;
    }
    Ok(stamp)
}

/// Gives a file another name for good; whether it was there.
///
/// # Errors
/// It may still have the old one.
pub fn move_durably(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => return Ok(false),
        moved => moved?,
    }
    // The new name first: after a crash the file has one at least.
    sync_folder(to.parent().unwrap_or(Path::new(".")))?;
    sync_folder(from.parent().unwrap_or(Path::new(".")))?;
    Ok(true)
}

/// Makes a folder for good, if it is not there.
///
/// # Errors
/// Those of the operating system.
pub fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| sync_folder(path.parent().unwrap_or(Path::new(".")))),
    }
}

/// Removes what a crash left of files that were being written.
pub fn sweep(folder: &Path) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if file.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            // One that stays is in nobody's way.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Makes names that came to or went from a folder durable.
///
/// # Errors
/// Those of the operating system.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file for good; that it is not there is no error.
///
/// # Errors
/// It is still there.
pub fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path.parent().unwrap_or(Path::new("."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stand_for_origins() {
        for (origin, file) in [
            (".", "@"),
            ("example.com", "example.com"),
            ("0/25.2.0.192.in-addr.arpa", "0%2f25.2.0.192.in-addr.arpa"),
            (r"a\.b.example", "a%2eb.example"),
            (r"_\000.example", "_%00.example"),
            ("..", ""),
        ] {
            let Ok(origin) = origin.parse::<Name>() else { continue };
            assert_eq!(stem(&origin), file);
            assert_eq!(origin_of(file), Some(origin));
        }
        for wrong in ["", "a..b", "%", "%zz", "a%2"] {
            assert_eq!(origin_of(wrong), None, "{wrong}");
        }
        assert_eq!(origin_of("Example.COM"), "example.com".parse().ok());
    }

    #[test]
    fn includes_stay_in_the_folder() {
        let base = std::env::temp_dir().join(format!("gateward-folder-{}", std::process::id()));
        let root = base.join("zones");
        fs::create_dir_all(root.join("parts")).unwrap();
        fs::write(base.join("secret"), "x").unwrap();
        fs::write(root.join("parts/a"), "content").unwrap();
        std::os::unix::fs::symlink(base.join("secret"), root.join("link")).unwrap();
        let folder = Folder::open(&root).unwrap();
        assert_eq!(folder.include("parts/a").unwrap(), b"content");
        for outside in ["../secret", "link", "/etc/hostname", "parts/../../secret", "missing", "parts"] {
            assert!(folder.include(outside).is_err(), "{outside}");
        }
        write_durably(&root.join("b.zone"), b"new", PRIVATE).unwrap();
        assert_eq!(fs::read(root.join("b.zone")).unwrap(), b"new");
        let seen = Stamp::of(&root.join("b.zone"));
        let kept = replace_durably(&root.join("b.zone"), b"newer", PUBLIC, |stamp| stamp != seen).unwrap();
        assert!(kept.is_none() && fs::read(root.join("b.zone")).unwrap() == b"new", "somebody said no");
        let stamp = replace_durably(&root.join("b.zone"), b"newer", PUBLIC, |stamp| stamp == seen).unwrap();
        assert!(stamp.is_some() && stamp == Stamp::of(&root.join("b.zone")) && stamp != seen);
        remove_durably(&root.join("b.zone")).unwrap();
        remove_durably(&root.join("b.zone")).unwrap();
        assert!(!move_durably(&root.join("b.zone"), &root.join("c.zone")).unwrap());
        fs::write(root.join(".new-7"), "left over").unwrap();
        Folder::open(&root).unwrap();
        assert!(!root.join(".new-7").exists());
        fs::remove_dir_all(&base).unwrap();
    }
}
