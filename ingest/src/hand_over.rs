//! Closes the listeners without a reset for anybody who has connected.
//!
//! The kernel resets what is in a listening socket when it closes: connections that nobody has accepted, and handshakes
//! that are half done. So the socket first takes no new handshakes, which then wait for another process on the port or
//! are tried again; then those under way get their time; then everything in the queue is accepted, and only then it
//! closes.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockFilter, SockRef};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::debug;

use crate::listener::{ACCEPT_PAUSE, Listener, Listeners, Speaks};

/// For the handshakes under way. Less than the second after which a client tries a lost one again.
const HANDSHAKES: Duration = Duration::from_millis(500);

/// A classic BPF program over the TCP header: a packet that opens a connection (SYN without ACK) is dropped, every other
/// one passes.
const NO_NEWCOMERS: [SockFilter; 5] = [
    SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
    SockFilter::new(AND, 0, 0, SYN | ACK),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];
/// linux/filter.h and linux/bpf_common.h.
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// RFC 9293 §3.1.
const FLAGS_OFFSET: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

pub(crate) async fn close(
    listeners: Listeners,
    admit: &impl Fn(Speaks, TcpStream, SocketAddr),
) -> io::Result<()> {
    if turn_away_newcomers(&listeners) {
        accept_for(HANDSHAKES, &listeners, admit).await;
    }
    for Listener { socket, speaks } in listeners.0 {
        let socket = socket.into_std()?;
        let mut last = Vec::new();
        while let Ok(accepted) = socket.accept() {
            last.push(accepted);
        }
        drop(socket);
        for (stream, address) in last {
            stream.set_nonblocking(true)?;
            admit(speaks, TcpStream::from_std(stream)?, address);
        }
    }
    Ok(())
}

/// Only where another process may take over: whoever is turned away waits a second before he tries again.
fn turn_away_newcomers(listeners: &Listeners) -> bool {
    let mut any = false;
    for Listener { socket, .. } in &listeners.0 {
        if is_shared(socket) {
            match SockRef::from(socket).attach_filter(&NO_NEWCOMERS) {
                Ok(()) => any = true,
                Err(error) => debug!(%error, "newcomers cannot be turned away"),
            }
        }
    }
    any
}

fn is_shared(socket: &TcpListener) -> bool {
    SockRef::from(socket).reuse_port().unwrap_or(false)
}

async fn accept_for(time: Duration, listeners: &Listeners, admit: &impl Fn(Speaks, TcpStream, SocketAddr)) {
    let (mut turn, over) = (0, sleep(time));
    tokio::pin!(over);
    while !over.is_elapsed() {
        tokio::select! {
            () = over.as_mut() => {}
            (speaks, accepted) = listeners.accept(&mut turn, false) => match accepted {
                Ok((stream, address)) => admit(speaks, stream, address),
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{net::TcpSocket, time::Instant};

    fn bind_shared(address: &str) -> TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        socket.listen(16).unwrap()
    }

    #[tokio::test]
    async fn who_comes_while_a_shared_port_closes_waits_for_the_next_process() {
        let old = bind_shared("127.0.0.1:0");
        let address = old.local_addr().unwrap();
        let closing = async {
            let began = Instant::now();
            let listeners = vec![Listener { socket: old, speaks: Speaks::Http }].into();
            close(listeners, &|_, _, _| panic!("admitted")).await.unwrap();
            began.elapsed()
        };
        let coming = async {
            let newcomer = tokio::spawn(TcpStream::connect(address));
            sleep(HANDSHAKES / 2).await;
            assert!(!newcomer.is_finished());
            let _new = bind_shared(&address.to_string());
            newcomer.await.unwrap().expect("neither refused nor reset");
        };
        let (took, ()) = tokio::join!(closing, coming);
        assert!(took >= HANDSHAKES, "handshakes under way had their time");
    }
}
