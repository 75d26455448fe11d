//! Notices that the declarative file changed.
//!
//! Polling, because it is the one thing that works for editors that rename, for mounted ConfigMaps whose symbolic
//! link is switched, and on network file systems. Two looks a second cost nothing; the content is read only when
//! the file looks different, and applied only when it is.

use crate::reload::Reloader;
use gateward_config::Format;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A file being written is given this long between two looks to come to rest ...
const SETTLE: Duration = Duration::from_millis(25);
/// ... this many times.
const SETTLE_LOOKS: usize = 20;
/// Longest file; the loader's own limit is the same.
pub(crate) const FILE_BYTES: u64 = 256 << 20;

/// How a file looks from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            length: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}

/// A file's text and how the file looked just before it was read.
pub(crate) struct Seen {
    /// The text.
    pub(crate) text: Vec<u8>,
    stamp: Option<Stamp>,
    digest: u64,
}

impl Seen {
    /// Read `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let stamp = Stamp::of(path).ok();
        let mut text = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut text)?;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Ok(Self { stamp, digest: hasher.finish(), text })
    }
}

/// Watches one file.
pub(crate) struct Watch {
    path: PathBuf,
    stamp: Option<Stamp>,
    digest: u64,
    /// Whether the last look failed: said once.
    missing: bool,
}

impl Watch {
    /// Watch `path`, whose text is being served already.
    pub(crate) fn new(path: PathBuf, seen: &Seen) -> Self {
        Self { path, stamp: seen.stamp, digest: seen.digest, missing: false }
    }

    /// Look for ever; `at_once` asks for a load whether or not the file looks different.
    pub(crate) async fn run(mut self, reloader: Arc<Reloader>, at_once: Arc<Notify>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {
                    let filters = {
                        let reloader = reloader.clone();
                        let looked = tokio::task::spawn_blocking(move || reloader.filters_changed()).await;
                        looked.unwrap_or(false)
                    };
                    if filters {
                        tracing::info!("a plugin changed; loading the configuration again");
                        if let Some(text) = self.read(&reloader, true).await {
                            self.apply(&reloader, text).await;
                        }
                    } else if self.changed().await
                        && let Some(text) = self.read(&reloader, false).await
                    {
                        self.apply(&reloader, text).await;
                    }
                }
                () = at_once.notified() => {
                    tracing::info!(path = %self.path.display(), "asked to load the configuration again");
                    if let Some(text) = self.read(&reloader, true).await {
                        self.apply(&reloader, text).await;
                    }
                }
            }
        }
    }

    /// Whether the file looks different, and has come to rest.
    async fn changed(&mut self) -> bool {
        let mut last = match Stamp::of(&self.path) {
            Ok(stamp) if Some(stamp) == self.stamp && !self.missing => return false,
            Ok(stamp) => Some(stamp),
            Err(error) => {
                if !std::mem::replace(&mut self.missing, true) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "the configuration file cannot be read; the last one is still served");
                }
                return false;
            }
        };
        for _ in 0..SETTLE_LOOKS {
            tokio::time::sleep(SETTLE).await;
            let now = Stamp::of(&self.path).ok();
            if now == last {
                break;
            }
            last = now;
        }
        true
    }

    /// The text, if it differs from the last one or `always`.
    async fn read(&mut self, reloader: &Reloader, always: bool) -> Option<Vec<u8>> {
        let path = self.path.clone();
        let seen = match tokio::task::spawn_blocking(move || Seen::read(&path)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                reloader.unreadable(&self.path.display().to_string(), format!("cannot be read: {error}"));
                // Tried again when it looks different, not twice a second.
                self.stamp = Stamp::of(&self.path).ok();
                self.missing = self.stamp.is_none();
                return None;
            }
            Err(_) => return None,
        };
        self.missing = false;
        self.stamp = seen.stamp;
        let same = std::mem::replace(&mut self.digest, seen.digest) == seen.digest;
        (always || !same).then_some(seen.text)
    }

    async fn apply(&self, reloader: &Reloader, text: Vec<u8>) {
        // What became of it is logged and shown by the reloader.
        let _ = reloader.apply(text, Format::of_path(&self.path), &self.path.display().to_string()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    fn text(name: &str) -> String {
        format!("_format_version: '3.0'\nservices:\n- name: {name}\n  url: http://127.0.0.1:1\n")
    }

    #[tokio::test]
    async fn a_replaced_file_is_served_and_a_touched_one_is_not_read_twice() {
        let dir = std::env::temp_dir().join(format!("gateward-watch-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("kong.yml");
        std::fs::write(&path, text("a")).unwrap();
        let control = testing::control(&text("a"));
        let seen = Seen::read(&path).unwrap();
        let mut watch = Watch::new(path.clone(), &seen);
        assert!(!watch.changed().await);

        std::fs::write(dir.join("new"), text("a")).unwrap();
        std::fs::rename(dir.join("new"), &path).unwrap();
        assert!(watch.changed().await);
        assert_eq!(watch.read(&control.reloader, false).await, None, "the content is the same");
        assert!(!watch.changed().await);

        std::fs::write(dir.join("new"), text("b")).unwrap();
        std::fs::rename(dir.join("new"), &path).unwrap();
        assert!(watch.changed().await);
        let read = watch.read(&control.reloader, false).await.unwrap();
        watch.apply(&control.reloader, read).await;
        assert_eq!(control.node().plan().snapshot.config.services[0].name.as_deref(), Some("b"));

        std::fs::remove_file(&path).unwrap();
        assert!(!watch.changed().await && watch.missing);
        std::fs::write(&path, text("c")).unwrap();
        assert!(watch.changed().await);
        assert!(watch.read(&control.reloader, false).await.is_some());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
