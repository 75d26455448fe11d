//! How a file looks from outside.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: (u64, u64),
}

impl Stamp {
    /// Of a file, or of what a link leads to; `None` when it is not there.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            length: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}
