//! The directory of the embedded store: one process owns it, for as long as it lives.
//!
//! Two processes over one file would be two authorities that do not know of each other's commits until they look,
//! and one of them could be an older program. So the second is refused at the door.
//!
//! What is made here is its owner's alone: it holds ids, and the key under which nodes know them.

use crate::store::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// A lock outlives its owner for a moment: in a child that was forked and has not become its program yet, or in a
/// process that is ending. So it is tried for about a second.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// A directory that this process owns. The lock ends with it, and with the process however it ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes the directory, which is made with an empty database where there is none.
    pub(super) async fn make(path: &Path) -> Result<Directory, StoreError> {
        let refused = |error: std::io::Error| {
            StoreError::Unavailable(format!("cannot make {}: {error}", path.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
        let directory = Directory::take(path).await?;
        // SQLite gives its other files the mode of this one.
        let mut database = File::options();
        database.create(true).truncate(false).write(true).mode(0o600);
        database.open(directory.database()).map_err(refused)?;
        Ok(directory)
    }

    /// Takes the directory, or says who has it.
    pub(super) async fn take(path: &Path) -> Result<Directory, StoreError> {
        let refused = |what: &str, why: &dyn std::fmt::Display| {
            StoreError::Unavailable(format!("{what} {}: {why}", path.display()))
        };
        let mut lock = File::options();
        lock.create(true).truncate(false).write(true).mode(0o600);
        let lock = lock.open(path.join("lock"));
        let lock = lock.map_err(|error| refused("cannot lock the data directory", &error))?;
        for _ in 1..TRIES {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(PAUSE).await,
                Ok(()) | Err(_) => break,
            }
        }
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Directory { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(refused("another process uses the data directory", &"only one may at a time"))
            }
            Err(error) => Err(refused("cannot lock the data directory", &error)),
        }
    }

    /// The database in it.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("consent.db")
    }

    /// The name of this incarnation of the file: its inode and its birth. A copy, a restored backup and a rebuilt
    /// file are other files, whose ledger needs a new epoch; a moved or renamed directory is the same one. A backup
    /// written *into* the file is not seen here: as with a disk image, the chain is the proof (A6).
    pub(super) fn identity(&self) -> Result<String, StoreError> {
        let unreadable = |error: std::io::Error| {
            StoreError::Unavailable(format!("cannot read {}: {error}", self.database().display()))
        };
        let file = std::fs::metadata(self.database()).map_err(unreadable)?;
        // Not every file system keeps the birth; the inode alone is then the name.
        let birth = file.created().ok().and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
        Ok(format!("file/{}/{}", file.ino(), birth.map_or(0, |birth| birth.as_nanos())))
    }
}
