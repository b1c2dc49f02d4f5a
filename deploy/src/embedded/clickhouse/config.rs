//! What the engine is started with.

use std::{
    env, fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::LIBRARY_VERSION;

/// The one database that Footfall uses.
pub const DATABASE: &str = "footfall";
/// Runs queries and changes nothing. The user for dashboards and analysts.
pub const READER: &str = "footfall_reader";
/// Inserts blocks, looks them up, and stops its own queries.
pub const WRITER: &str = "footfall_writer";
/// Creates and alters tables. The user for migrations.
pub const ADMIN: &str = "footfall_admin";

/// Everything [`super::Engine::start`] needs to know.
#[derive(Clone)]
pub struct EngineConfig {
    /// `libchdb.so`, see [`default_library_path`].
    pub library: PathBuf,
    /// Holds the tables, the log and the files of the running process; made if missing, readable by its owner only.
    pub data_dir: PathBuf,
    /// Address of the HTTP interface. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Networks from which the reader may log in (`10.0.0.0/8`), besides loopback. Writer and admin never leave loopback.
    pub reader_networks: Vec<String>,
    pub reader_password: String,
    pub writer_password: String,
    pub admin_password: String,
    /// Upper bound for all queries and caches of the engine.
    pub max_server_memory_bytes: u64,
    /// Upper bound for one query of the reader, which it cannot raise.
    pub reader_max_memory_bytes: u64,
    /// Longest query of the reader, which it cannot raise.
    pub reader_max_execution: Duration,
    /// How long a start may take before it counts as failed. Loading large tables is part of it.
    pub start_timeout: Duration,
    /// The binary that understands the hidden subcommand.
    pub executable: PathBuf,
}

impl EngineConfig {
    /// Loopback, a free port, the library where `make setup` puts it, and limits that suit a small machine.
    ///
    /// # Errors
    /// When the path of the running program cannot be read.
    pub fn new(data_dir: PathBuf) -> std::io::Result<Self> {
        Ok(Self {
            library: default_library_path(),
            data_dir,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            reader_networks: Vec::new(),
            reader_password: String::new(),
            writer_password: String::new(),
            admin_password: String::new(),
            max_server_memory_bytes: 2 << 30,
            reader_max_memory_bytes: 1 << 30,
            reader_max_execution: Duration::from_secs(60),
            start_timeout: Duration::from_secs(60),
            executable: env::current_exe()?,
        })
    }
}

/// Passwords stay out of logs.
impl fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineConfig")
            .field("library", &self.library)
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// `FOOTFALL_ENGINE_LIB`, or where `make setup` puts the library: the user's cache directory.
#[must_use]
pub fn default_library_path() -> PathBuf {
    library_path(env::var_os("FOOTFALL_ENGINE_LIB"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
}

fn library_path(
    explicit: Option<std::ffi::OsString>,
    cache_home: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> PathBuf {
    let given = |value: Option<std::ffi::OsString>| value.filter(|text| !text.is_empty()).map(PathBuf::from);
    if let Some(path) = given(explicit) {
        return path;
    }
    // The XDG base directory specification has relative paths ignored.
    let cache = given(cache_home)
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| given(home).unwrap_or_else(|| PathBuf::from("/")).join(".cache"));
    cache.join("footfall").join(format!("chdb-{LIBRARY_VERSION}")).join("libchdb.so")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::an_explicit_path_wins(Some("/opt/x.so"), Some("/c"), Some("/h"), "/opt/x.so")]
    #[case::then_the_cache_directory(
        None,
        Some("/c"),
        Some("/h"),
        "/c/footfall/chdb-26.7.3-stable.1/libchdb.so"
    )]
    #[case::a_relative_cache_is_ignored(
        None,
        Some("c"),
        Some("/h"),
        "/h/.cache/footfall/chdb-26.7.3-stable.1/libchdb.so"
    )]
    #[case::empty_counts_as_unset(
        Some(""),
        Some(""),
        Some("/h"),
        "/h/.cache/footfall/chdb-26.7.3-stable.1/libchdb.so"
    )]
    fn the_library_is_looked_for_at(
        #[case] explicit: Option<&str>,
        #[case] cache: Option<&str>,
        #[case] home: Option<&str>,
        #[case] expected: &str,
    ) {
        let path = library_path(explicit.map(Into::into), cache.map(Into::into), home.map(Into::into));
        assert_eq!(path, PathBuf::from(expected));
    }

    #[test]
    fn the_version_is_the_one_that_the_lock_file_pins() {
        let lock = include_str!("../../../engine/package-lock.json");
        assert!(
            lock.contains(&format!("\"version\": \"{LIBRARY_VERSION}\"")),
            "deploy/engine pins another version"
        );
    }
}
