//! Which directory a node keeps its spool in. Several processes may share the configured one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

/// Most processes that share a path.
const MOST: usize = 1_024;
pub(super) const EXTENSION: &str = "spool";

/// `<path>/<n>`, locked for as long as this lives; the lock ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes the first free directory under `path`, and into it the segments of every other that nobody uses: a node
    /// that is not started again must not keep what it had taken.
    pub(super) fn claim(path: &Path) -> io::Result<Self> {
        for number in 0..MOST {
            let own = path.join(number.to_string());
            fs::create_dir_all(&own)?;
            if let Some(lock) = lock(&own)? {
                let directory = Self { path: own, _lock: lock };
                directory.adopt(path)?;
                return Ok(directory);
            }
        }
        Err(io::Error::other("every directory under it is in use"))
    }

    fn adopt(&self, parent: &Path) -> io::Result<()> {
        for number in 0..MOST {
            let other = parent.join(number.to_string());
            if other == self.path || !other.is_dir() {
                continue;
            }
            // Held while its segments move, so that nobody claims it meanwhile.
            let Some(_lock) = lock(&other)? else { continue };
            for segment in segments(&other)? {
                let Some(name) = segment.file_name() else { continue };
                let to = self.path.join(name);
                if to.exists() {
                    warn!(segment = %segment.display(), "the spool has a segment of this name already; it waits for another node");
                    continue;
                }
                fs::rename(&segment, &to)?;
                info!(segment = %to.display(), "a spool that nobody used is taken over");
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<PathBuf>> {
        segments(&self.path)
    }

    /// Makes names durable: of a segment that was just made.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// What the segments that were kept aside take.
    pub(super) fn bad_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "bad") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    }
}

fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).append(true).open(directory.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
