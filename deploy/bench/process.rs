//! Processes that a bench starts: roles of the binary, and the bench's own program again as a client.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;

use super::machine::{self, Cpu};

const START_WITHIN: Duration = Duration::from_secs(90);

/// Killed when it is dropped; nothing here is worth a drain.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// What it says on stderr is added to `log`; stdout is left out.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let started = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Of it and of those that it started.
    pub fn cpu(&self) -> Cpu {
        self.family().into_iter().map(Cpu::of).fold(Cpu::default(), Cpu::and)
    }

    /// Of it and of those that it started.
    pub fn resident(&self) -> u64 {
        self.family().into_iter().map(machine::resident).sum()
    }

    fn family(&self) -> impl IntoIterator<Item = u32> {
        [self.pid()].into_iter().chain(machine::children(self.pid()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program again, as a client that says JSON, a line each. It ends when this handle is dropped.
#[derive(Debug)]
pub struct Client {
    process: Process,
    said: Lines<BufReader<ChildStdout>>,
    asked: Option<ChildStdin>,
}

impl Client {
    pub fn start(command: &str, args: &[(&str, String)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(command)
            .args(args.iter().flat_map(|(name, value)| [format!("--{name}"), value.clone()]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let asked = child.stdin.take();
        Self { process: Process(child), said, asked }
    }

    /// Its next line.
    pub fn hear<T: DeserializeOwned>(&mut self) -> T {
        let line = self.said.next().expect("the client has ended; what it says is above").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub fn ask(&mut self) {
        self.asked.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn cpu(&self) -> Cpu {
        self.process.cpu()
    }
}

/// An address of this machine that is free now; nothing else here asks for ports in between.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The answer, head and body; `None` when nobody is there.
pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
}

/// As [`get`], with a request that asks for the connection's end.
pub fn exchange(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Whether a process has written its ready file.
pub fn is_ready(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| file.len() > 0)
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + START_WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {START_WITHIN:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}
