//! What can keep the broker from starting, in terms of what the operator can do about it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(
        "the broker cannot listen on {address}: the port is in use; stop what uses it or choose another address"
    )]
    PortInUse { address: SocketAddr },
    #[error("the broker cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("data directory {directory} is in use by another broker; stop it or choose another directory")]
    Locked { directory: PathBuf },
    #[error("{path} cannot be used: {source}; the broker needs to read and write its data directory")]
    NotWritable { path: PathBuf, source: io::Error },
    #[error("no space left at {path}; free some or move the data directory")]
    DiskFull { path: PathBuf },
    #[error("{path} is damaged: {reason}; restore it from a backup or move it away and lose what it holds")]
    Corrupt { path: PathBuf, reason: String },
    #[error("reading or writing {path} failed: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl BrokerError {
    /// The variant that fits an I/O error at `path`.
    pub(super) fn at(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory => Self::NotWritable { path, source },
            _ => Self::Io { path, source },
        }
    }

    pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}
