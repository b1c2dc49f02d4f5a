//! What a started `standalone` tells: the ready file for programs, the banner for people.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use footfall_schemas::snippet::script_tag;
use serde::{Deserialize, Serialize};

use crate::identity::write_private;

/// The ready file, as JSON.
#[derive(Clone, Serialize, Deserialize)]
pub struct Ready {
    pub ingest: String,
    pub dashboard: String,
    pub demo: String,
    pub clickhouse: ReadyClickHouse,
    /// `host:port`
    pub kafka: String,
    /// Key of the demo site, or of the first. There may be none.
    pub site: Option<String>,
    /// One-time link.
    pub login: String,
    /// Makes the first account, once; absent when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct ReadyClickHouse {
    pub url: String,
    pub user: String,
    pub password: String,
    pub database: String,
}

/// The login link and the password stay out of logs.
impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("ingest", &self.ingest)
            .field("dashboard", &self.dashboard)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ReadyClickHouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyClickHouse").field("url", &self.url).finish_non_exhaustive()
    }
}

/// In the data directory while the node is ready.
pub const READY_FILE: &str = "ready.json";

impl Ready {
    /// Of the `standalone` that runs on this data directory.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(READY_FILE);
        let ready = std::fs::read(&path).with_context(|| {
            format!("{}: no footfall runs on --data-dir {}", path.display(), data_dir.display())
        })?;
        serde_json::from_slice(&ready).with_context(|| format!("{}", path.display()))
    }

    /// Writes the file whole. It is removed when the guard is dropped.
    pub fn write(&self, path: &Path) -> anyhow::Result<ReadyFile> {
        write_private(path, &serde_json::to_vec_pretty(self)?)?;
        Ok(ReadyFile(path.to_owned()))
    }

    pub fn banner<'a>(&'a self, data_dir: &'a Path) -> impl fmt::Display + 'a {
        Banner { ready: self, data_dir }
    }
}

/// Exists while the node is ready.
#[derive(Debug)]
pub struct ReadyFile(PathBuf);

impl Drop for ReadyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An address that a browser on this machine can open.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    }
}

struct Banner<'a> {
    ready: &'a Ready,
    data_dir: &'a Path,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ready { ingest, dashboard, demo, clickhouse, kafka, site, login, set_up } = self.ready;
        writeln!(f, "\nFootfall is running.\n")?;
        writeln!(f, "  Dashboard   {dashboard}")?;
        if let Some(set_up) = set_up {
            writeln!(f, "  Set up      {set_up}   (makes the first account)")?;
        }
        writeln!(f, "  Look in     {login}   (without an account, once; `footfall login` makes another)")?;
        writeln!(f, "  Demo site   {demo}")?;
        if let Some(site) = site {
            writeln!(f, "  Snippet     {}", script_tag(ingest, site))?;
        }
        writeln!(
            f,
            "  ClickHouse  curl '{}/?database={}' -u {}:{} \\",
            clickhouse.url, clickhouse.database, clickhouse.user, clickhouse.password
        )?;
        writeln!(
            f,
            "                --data 'SELECT path, count() FROM events GROUP BY path FORMAT PrettyCompact'"
        )?;
        writeln!(f, "  Kafka       {kafka}")?;
        writeln!(f, "  Data        {}", self.data_dir.display())?;
        writeln!(f, "\nCtrl-C stops it; nothing acked is lost.")
    }
}
