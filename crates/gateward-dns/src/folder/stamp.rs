//! How a file looks from outside.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified: (i64, i64),
    /// Tools that give a file an older time cannot give it an older one of these.
    changed: (i64, i64),
    length: u64,
    inode: (u64, u64),
}

/// A file that another one includes, and how it looked before it was read; `None` when it was not there.
pub type Included = (PathBuf, Option<Stamp>);

impl Stamp {
    /// Of a file, or of what a link leads to; `None` when it is not there.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Stamp::new)
    }

    /// Of a file that is open.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn of_open(file: &File) -> io::Result<Self> {
        file.metadata().as_ref().map(Stamp::new).map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    fn new(metadata: &Metadata) -> Self {
        Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
        }
    }
}
