//! The engine's process, seen from its parent.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    ENGINE_SUBCOMMAND, EngineError,
    config::{ADMIN, EngineConfig, READER, WRITER},
    login::{Answer, ask},
    sandbox::Need,
    server_config::{ServerPaths, server_xml, start_sql, users_xml},
};

/// Between two looks at a process that is starting.
const POLL: Duration = Duration::from_millis(10);
/// After a kill the kernel needs only its own time.
const REAP: Duration = Duration::from_secs(5);
/// Of the log, into an error.
const LAST_LINES: usize = 12;

/// A running ClickHouse server. Dropped without [`Engine::shutdown`], it stops by itself, because its stdin closes.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    stdin: Option<ChildStdin>,
    pid: u32,
    url: String,
    /// What a start that takes too long is waiting for.
    waiting_for: String,
}

impl Engine {
    /// Starts the engine; comes back once it answers and its three users can log in, with the database created.
    ///
    /// # Errors
    /// Each variant of [`EngineError`] names what is missing or in the way. The process does not outlive an error.
    pub async fn start(config: EngineConfig) -> Result<Self, EngineError> {
        if !config.library.is_file() {
            return Err(EngineError::LibraryMissing { path: config.library });
        }
        let (files, stderr) = Files::claim(&config).await?;
        // The engine reports a taken port among other lines, after seconds of start: ask first.
        std::net::TcpListener::bind(config.listen)
            .map_err(|source| EngineError::AddressInUse { address: config.listen, source })?;

        let mut engine = Self::spawn(&config, &files, stderr)?;
        let started = Instant::now();
        match timeout(config.start_timeout, engine.until_ready(&config, &files)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                engine.stop(Duration::ZERO).await;
                return Err(error);
            }
            Err(_) => {
                let last_lines = files.last_lines();
                engine.stop(Duration::ZERO).await;
                return Err(EngineError::NotReady {
                    after: config.start_timeout,
                    waiting_for: std::mem::take(&mut engine.waiting_for),
                    log: files.log,
                    last_lines,
                });
            }
        }
        // The server has read them; left there, its users could read the hashes back with SQL.
        if let Err(error) = fs::remove_file(&files.users) {
            warn!(path = %files.users.display(), %error, "the engine's user file stays behind");
        }
        info!(
            url = engine.url,
            pid = engine.pid,
            ready_ms = started.elapsed().as_millis() as u64,
            "engine is ready"
        );
        Ok(engine)
    }

    /// Where its HTTP interface is reached from this machine.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the process ends by itself, which it only does by a fault. Cancel safe.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub async fn exited(&mut self) -> io::Result<ExitStatus> {
        // `Child::wait` would close a stdin that it still held, and with it the engine.
        self.child.wait().await
    }

    /// Asks the engine to stop and gives it `grace` to finish; then kills it. Close pooled connections first: an
    /// open one holds the server for a second.
    pub async fn shutdown(mut self, grace: Duration) {
        self.stop(grace).await;
    }

    fn spawn(config: &EngineConfig, files: &Files, stderr: fs::File) -> Result<Self, EngineError> {
        let only_from_here = config.listen.ip().is_loopback() && config.reader_networks.is_empty();
        let need = if only_from_here { Need::Wished } else { Need::Required };
        let mut args: Vec<OsString> =
            vec![ENGINE_SUBCOMMAND.into(), need.as_arg().into(), config.library.clone().into()];
        args.extend(files.writable().map(OsString::from));
        args.push("--".into());
        args.push("--log-level=warning".into());
        for (option, value) in [
            ("--config-file", files.config.as_path()),
            ("--queries-file", files.start.as_path()),
            ("--queries-file", Path::new("/dev/stdin")),
        ] {
            // The second file of queries is never written: reading it is what keeps the process up until it ends.
            args.push(option.into());
            args.push(value.into());
        }

        let mut child = Command::new(&config.executable)
            .args(args)
            // A Ctrl-C in the terminal is for the parent, which stops the engine last.
            .process_group(0)
            // SQL can read the environment of its own process; ours may hold secrets.
            .env_clear()
            .current_dir(&files.store)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(false)
            .spawn()
            .map_err(|source| EngineError::Spawn { executable: config.executable.clone(), source })?;
        let stdin = child.stdin.take();
        let pid = child.id().expect("a child that was not waited for has an id");
        Ok(Self {
            child,
            stdin,
            pid,
            url: String::new(),
            waiting_for: "it has not opened its port".to_owned(),
        })
    }

    async fn until_ready(&mut self, config: &EngineConfig, files: &Files) -> Result<(), EngineError> {
        let port = loop {
            self.still_running(files)?;
            if let Some(port) = files.port() {
                break port;
            }
            sleep(POLL).await;
        };
        let address = SocketAddr::new(reachable(config.listen.ip()), port);
        self.url = format!("http://{address}");

        self.until_login(
            address,
            ADMIN,
            &config.admin_password,
            "CREATE DATABASE IF NOT EXISTS footfall",
            files,
        )
        .await?;
        self.until_login(address, WRITER, &config.writer_password, "SELECT 1", files).await?;
        self.until_login(address, READER, &config.reader_password, "SELECT 1", files).await
    }

    async fn until_login(
        &mut self,
        address: SocketAddr,
        user: &'static str,
        password: &str,
        query: &'static str,
        files: &Files,
    ) -> Result<(), EngineError> {
        loop {
            self.still_running(files)?;
            match ask(address, user, password, query).await {
                Answer::Accepted => return Ok(()),
                Answer::Refused(answer) => return Err(EngineError::Refused { user, answer }),
                Answer::Silent(reason) => {
                    self.waiting_for = format!("{user} could not log in at {address}: {reason}");
                    sleep(POLL).await;
                }
            }
        }
    }

    fn still_running(&mut self, files: &Files) -> Result<(), EngineError> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                Err(EngineError::Exited { status, log: files.log.clone(), last_lines: files.last_lines() })
            }
            // An error here is seen again, and then named, by whoever waits for the process.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    async fn stop(&mut self, grace: Duration) {
        drop(self.stdin.take());
        match timeout(grace, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => warn!(%status, pid = self.pid, "engine stopped with an error"),
            Ok(Err(error)) => warn!(%error, pid = self.pid, "engine cannot be waited for"),
            Err(_) => {
                if grace > Duration::ZERO {
                    warn!(
                        pid = self.pid,
                        grace_ms = grace.as_millis() as u64,
                        "engine did not stop in time and is killed"
                    );
                }
                if let Err(error) = self.child.start_kill() {
                    warn!(%error, pid = self.pid, "engine cannot be killed");
                }
                let _ = timeout(REAP, self.child.wait()).await;
            }
        }
    }
}

/// A wildcard address listens everywhere and is reached by loopback.
const fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    }
}

/// The engine's files under the data directory.
struct Files {
    /// Tables.
    store: PathBuf,
    /// Of the running process.
    run: PathBuf,
    logs: PathBuf,
    config: PathBuf,
    users: PathBuf,
    start: PathBuf,
    port: PathBuf,
    /// stderr of the process: what goes wrong before, or instead of, its own log.
    log: PathBuf,
}

impl Files {
    /// Waits until no engine runs on the directory, then writes what the next one reads.
    ///
    /// The file that comes back is the engine's stderr, and locked. The process inherits the lock and the kernel takes
    /// it away when the process is gone, which after the kill of a parent is later than the loss of its port.
    async fn claim(config: &EngineConfig) -> Result<(Self, fs::File), EngineError> {
        let files = Self::under(config)?;
        let stderr = files.lock_log(config.start_timeout).await?;
        files.write(config)?;
        Ok((files, stderr))
    }

    fn under(config: &EngineConfig) -> Result<Self, EngineError> {
        let root = &config.data_dir;
        private_dir(root)?;
        // The process has another working directory.
        let root = root.canonicalize().map_err(failed("cannot resolve", root))?;
        let files = Self {
            store: root.join("store"),
            run: root.join("run"),
            logs: root.join("log"),
            config: root.join("run/config.xml"),
            users: root.join("run/users.xml"),
            start: root.join("run/start.sql"),
            port: root.join("run/port"),
            log: root.join("log/stderr.log"),
        };
        for dir in [&files.store, &files.run, &files.logs] {
            private_dir(dir)?;
        }
        Ok(files)
    }

    fn write(&self, config: &EngineConfig) -> Result<(), EngineError> {
        let paths =
            ServerPaths { store: &self.store, users: &self.users, log: &self.logs.join("engine.log") };
        private_file(&self.config, &server_xml(config, paths))?;
        private_file(&self.users, &users_xml(config)?)?;
        private_file(&self.start, &start_sql(&self.port))?;
        // A port file of an earlier run would send us to whoever has that port now.
        match fs::remove_file(&self.port) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove the stale port file", &self.port)(error))
            }
            _ => Ok(()),
        }
    }

    fn writable(&self) -> impl Iterator<Item = &Path> {
        [&self.store, &self.run, &self.logs].into_iter().map(PathBuf::as_path)
    }

    /// One run's words: an old complaint must not explain a new failure.
    async fn lock_log(&self, within: Duration) -> Result<fs::File, EngineError> {
        let file = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.log)
            .map_err(failed("cannot write", &self.log))?;
        let started = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::Error(error)) => return Err(failed("cannot lock", &self.log)(error)),
                Err(fs::TryLockError::WouldBlock) if started.elapsed() >= within => {
                    return Err(EngineError::DirectoryInUse { directory: self.store.clone(), after: within });
                }
                Err(fs::TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        info!(directory = %self.store.display(), "waiting for an earlier engine to end");
                    }
                    sleep(POLL).await;
                }
            }
        }
        file.set_len(0).map_err(failed("cannot empty", &self.log))?;
        Ok(file)
    }

    /// Complete only with its line end.
    fn port(&self) -> Option<u16> {
        fs::read_to_string(&self.port).ok()?.strip_suffix('\n')?.trim().parse().ok()
    }

    fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            return "  (none)".to_owned();
        }
        lines[lines.len().saturating_sub(LAST_LINES)..]
            .iter()
            .map(|line| format!("  {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn private_dir(path: &Path) -> Result<(), EngineError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("cannot make the directory", path))
}

fn private_file(path: &Path, text: &str) -> Result<(), EngineError> {
    fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed("cannot write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Files { action, path, source }
}
