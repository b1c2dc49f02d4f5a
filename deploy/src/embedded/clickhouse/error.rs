//! Why the engine is not running.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitStatus, time::Duration};

/// Each variant says what the operator can do about it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the ClickHouse engine's library is not at {}: run `make setup`, or set FOOTFALL_ENGINE_LIB to a libchdb.so of version {}", path.display(), super::LIBRARY_VERSION)]
    LibraryMissing { path: PathBuf },

    #[error(
        "the ClickHouse engine cannot listen on {address}: {source}; stop what uses it or choose another address with --clickhouse"
    )]
    AddressInUse { address: SocketAddr, source: io::Error },

    #[error(
        "another ClickHouse engine still uses {} after {} s: stop the footfall that started it, or choose another directory with --data-dir", directory.display(), after.as_secs()
    )]
    DirectoryInUse { directory: PathBuf, after: Duration },

    #[error("the password of {user} is empty: the engine would answer anyone")]
    PasswordEmpty { user: &'static str },

    #[error("reader_networks: {network:?} is not an address or a network such as 10.0.0.0/8")]
    NetworkInvalid { network: String },

    #[error("{action} {}: {source}", path.display())]
    Files { action: &'static str, path: PathBuf, source: io::Error },

    #[error("cannot start {} as the engine's process: {source}", executable.display())]
    Spawn { executable: PathBuf, source: io::Error },

    #[error("the ClickHouse engine stopped while it started ({status}); its last words, from {}:\n{last_lines}", log.display())]
    Exited { status: ExitStatus, log: PathBuf, last_lines: String },

    #[error("the ClickHouse engine was not ready after {} s: {waiting_for}; its last words, from {}:\n{last_lines}", after.as_secs(), log.display())]
    NotReady { after: Duration, waiting_for: String, log: PathBuf, last_lines: String },

    #[error("the ClickHouse engine refuses {user}: {answer}")]
    Refused { user: &'static str, answer: String },
}
