//! The least that a server can do: one frame is made, header and all, and written to every socket. No protocol above the
//! handshake, no timers, nothing is read. What it costs is the kernel's.

use std::{
    cell::RefCell,
    env, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
    time::{MissedTickBehavior, interval},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    bench::{
        process::{Process, free_address, wait_until},
        wire::runtime,
    },
    frames::{Recording, Stamp, wall},
    run::{self, Server},
    subscriber::{Door, Speaks},
};

/// The process.
#[derive(Debug)]
pub struct Floor {
    process: Process,
    address: SocketAddr,
}

impl Floor {
    pub fn start(args: &run::Args, recording: &Path, directory: &Path) -> Self {
        let address = free_address();
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("floor").args(["--listen", &address.to_string(), "--rate", &args.rate.to_string()]);
        command.arg("--recording").arg(recording);
        let process = Process::start(&mut command, &directory.join("floor.log"));
        wait_until("the bare loop listens", || std::net::TcpStream::connect(address).is_ok());
        Self { process, address }
    }
}

impl Server for Floor {
    fn name(&self) -> &'static str {
        "Bare loop"
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn door(&self) -> Door {
        Door { server: self.address, speaks: Speaks::Bare, cookie: None }
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    listen: SocketAddr,
    /// Changes to publish, a line each
    #[arg(long)]
    recording: PathBuf,
    /// Changes a second
    #[arg(long)]
    rate: f64,
}

type Sockets = Rc<RefCell<Vec<TcpStream>>>;

pub fn run(args: &Args) {
    let recording = Recording::read(&args.recording);
    runtime().block_on(LocalSet::new().run_until(async move {
        let sockets = Sockets::default();
        let listener = TcpListener::bind(args.listen).await.unwrap();
        spawn_local(accept(listener, sockets.clone()));
        let mut ticks = interval(Duration::from_secs_f64(1.0 / args.rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for seq in 1.. {
            ticks.tick().await;
            let change = recording.change(Stamp { seq, now: wall() as i64 });
            let frame = text_frame(&change);
            // Who does not take a frame whole is gone: a part of one would be no frame.
            sockets
                .borrow_mut()
                .retain(|socket| matches!(socket.try_write(&frame), Ok(written) if written == frame.len()));
        }
    }));
}

async fn accept(listener: TcpListener, sockets: Sockets) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let sockets = sockets.clone();
        spawn_local(async move {
            // Who goes away in between is no subscriber.
            if let Ok(stream) = shake_hands(stream).await {
                sockets.borrow_mut().push(stream);
            }
        });
    }
}

async fn shake_hands(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(1_024);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream)
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(length as u8),
        length => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}
