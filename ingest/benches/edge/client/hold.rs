//! Opens connections and keeps them: one message each, then nothing but pongs.

use std::{
    cell::Cell,
    io::{self, Write as _},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::Semaphore,
    task::{LocalSet, spawn_blocking},
    time::sleep,
};

use super::open;
use crate::bench::wire::{CLOSE, TEXT, Wire, runtime, small};

/// Connections that are being opened at a time.
const OPENING: usize = 64;
const HERE: &[u8] = br#"{"t":"here","path":"/pricing","visible":true}"#;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(long)]
    pub server: SocketAddr,
    #[arg(long)]
    pub connections: u32,
    /// Number of the first visitor; each has an address of its own
    #[arg(long, default_value_t = 0)]
    pub first_visitor: u32,
}

/// Printed when all are there, and for every line on stdin. The end of stdin ends the client, and with it the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub open: u32,
    pub lost: u32,
}

#[derive(Debug, Default)]
struct Tally {
    open: Cell<u32>,
    lost: Cell<u32>,
}

pub fn run(args: &Args) {
    runtime().block_on(LocalSet::new().run_until(async move {
        let tally = Rc::new(Tally::default());
        let opening = Arc::new(Semaphore::new(OPENING));
        for visitor in args.first_visitor..args.first_visitor + args.connections {
            let (tally, opening, server) = (Rc::clone(&tally), Arc::clone(&opening), args.server);
            tokio::task::spawn_local(async move {
                let permit = opening.acquire_owned().await;
                let wire = open(server, visitor).await.unwrap_or_else(|error| panic!("{server}: {error}"));
                drop(permit);
                tally.open.set(tally.open.get() + 1);
                let _ = keep(wire).await;
                tally.open.set(tally.open.get() - 1);
                tally.lost.set(tally.lost.get() + 1);
            });
        }
        while tally.open.get() + tally.lost.get() < args.connections {
            sleep(Duration::from_millis(20)).await;
        }
        say(&tally);
        // The pongs go on meanwhile.
        let asked = || spawn_blocking(|| io::stdin().lines().next());
        while let Ok(Some(Ok(_))) = asked().await {
            say(&tally);
        }
    }));
}

async fn keep(mut wire: Wire) -> io::Result<()> {
    wire.send(&small(TEXT, HERE)).await?;
    while wire.next().await?.opcode != CLOSE {}
    Ok(())
}

fn say(tally: &Tally) {
    let held = Held { open: tally.open.get(), lost: tally.lost.get() };
    println!("{}", serde_json::to_string(&held).unwrap());
    io::stdout().flush().unwrap();
}
