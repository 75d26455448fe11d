//! The file of the upgrade socket: bound under another name, and moved in place when its process is the one in charge.
//!
//! Moving replaces the file of the process before, or a stale one, in one step: whoever connects finds one of the two.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A listening Unix socket and its file, which goes with it.
#[derive(Debug)]
pub(crate) struct BoundPath {
    /// Where it is now.
    path: PathBuf,
    /// Device and number of the file: another process may have put its own in the same place.
    identity: (u64, u64),
}

/// Bind beside `path`, for this user only.
///
/// # Errors
/// The folder does not exist or cannot be written to, or something other than a socket is at `path`.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, BoundPath)> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        bail!("{} exists and is no socket; choose another place with --upgrade-socket", path.display());
    }
    let mut name = path.file_name().context("--upgrade-socket names no file")?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    // Left over from a process with the same id that was killed.
    if fs::symlink_metadata(&beside).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = fs::remove_file(&beside);
    }
    let hint = "choose a folder that exists and can be written to, and a short path, with --upgrade-socket";
    let listener =
        UnixListener::bind(&beside).with_context(|| format!("cannot listen on {}; {hint}", beside.display()))?;
    let found = fs::symlink_metadata(&beside)?;
    let bound = BoundPath { path: beside, identity: (found.dev(), found.ino()) };
    fs::set_permissions(&bound.path, fs::Permissions::from_mode(0o600))?;
    Ok((listener, bound))
}

impl BoundPath {
    /// Move the file to its place.
    ///
    /// # Errors
    /// What the operating system said.
    pub(crate) fn publish(&mut self, path: &Path) -> std::io::Result<()> {
        fs::rename(&self.path, path)?;
        path.clone_into(&mut self.path);
        Ok(())
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("gateward-path-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_successor_s_is_left_alone() {
        let folder = folder("stale");
        let path = folder.join("upgrade.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, mut bound) = bind(&path).unwrap();
        bound.publish(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_successor, mut newer) = bind(&path).unwrap();
        newer.publish(&path).unwrap();
        drop(bound);
        assert!(path.exists(), "it belongs to the successor");
        drop(newer);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn other_files_are_not_touched() {
        let folder = folder("other");
        let path = folder.join("notes.txt");
        fs::write(&path, "mine").unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("no socket"));
        assert!(bind(&folder.join("none/upgrade.sock")).unwrap_err().to_string().contains("folder that exists"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_dir_all(folder).unwrap();
    }
}
