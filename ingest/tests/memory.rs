//! What an idle connection costs, and that nothing of it stays. Alone in its process: the allocator counts everything.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use support::*;
use tokio::task::spawn_blocking;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Both ends are in this process, which may open 20,000 files.
const CONNECTIONS: usize = 6_000;

/// What is allocated now, in bytes.
fn allocated() -> usize {
    tikv_jemalloc_ctl::epoch::advance().unwrap();
    tikv_jemalloc_ctl::stats::allocated::read().unwrap()
}

/// Connects from an address of its own, waits for the welcome and says where it is. Holds no heap.
fn connect(ingest: SocketAddr, number: usize) -> TcpStream {
    let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + number as u32);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&ingest.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"GET /ws?k=shop HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
              user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut answer = [0; 2_048];
    let mut read = 0;
    while !answer[..read].windows(9).any(|part| part == b"\"welcome\"") {
        let count = stream.read(&mut answer[read..]).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer[..read]));
        read += count;
    }
    let here = br#"{"t":"here","path":"/shop","visible":true}"#;
    // A mask of zeros.
    let mut frame = [0; 128];
    frame[..6].copy_from_slice(&[0x81, 0x80 | here.len() as u8, 0, 0, 0, 0]);
    frame[6..6 + here.len()].copy_from_slice(here);
    stream.write_all(&frame[..6 + here.len()]).unwrap();
    stream
}

async fn connect_all(ingest: SocketAddr) -> Vec<TcpStream> {
    spawn_blocking(move || (0..CONNECTIONS).map(|number| connect(ingest, number)).collect()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_costs_less_than_a_kilobyte_and_leaves_nothing() {
    let kafka = Kafka::start();
    let ingest = Ingest::start_with(&kafka, |config| {
        config.limits.limit_loopback = true;
        config.limits.connects_per_address = footfall_ingest::config::Rate::new(1_000, 1_000);
    })
    .await;
    eventually("ready", async || ingest.get("/readyz").await.status == 200).await;
    let online = |count: u32| kafka.report("node-1", move |report| report.online == count);
    // What grows with use and is used again: buffers of threads, tables, the allocator's caches, which count as
    // allocated and fill over several rounds.
    for _ in 0..6 {
        drop(connect_all(ingest.address).await);
        online(0).await;
    }
    let before = allocated();

    let connections = connect_all(ingest.address).await;
    online(CONNECTIONS as u32).await;
    let each = (allocated() - before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} idle connections");
    assert!(each <= 1_024, "{each} bytes");

    drop(connections);
    online(0).await;
    eventually("all of it is given back", async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Less than the smallest thing that a connection could leave behind.
        allocated() < before + CONNECTIONS * 32
    })
    .await;
    ingest.stop().await;
}
