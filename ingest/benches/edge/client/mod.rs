//! Clients: connections of visitors, each at an address of its own.

pub mod hold;
pub mod load;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use tokio::{net::TcpSocket, time::timeout};

use crate::{
    bench::wire::Wire,
    frames::{AGENTS, ORIGIN, SITES},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// An ack fits.
const BUFFER: usize = 512;

/// Every visitor has an address of its own, so that neither ports nor the limits by address run out.
pub fn source(visitor: u32) -> Ipv4Addr {
    let (high, middle, low) = (visitor / 62_500, visitor / 250 % 250, visitor % 250);
    Ipv4Addr::new(127, 1 + high as u8, middle as u8, 1 + low as u8)
}

/// Connects as `visitor` and waits for the welcome.
pub async fn open(server: SocketAddr, visitor: u32) -> io::Result<Wire> {
    let (site, agent) = (SITES[visitor as usize % SITES.len()], AGENTS[visitor as usize % AGENTS.len()]);
    let request = format!(
        "GET /ws?k={site} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: footfall.v1\r\nOrigin: {ORIGIN}\r\nUser-Agent: {agent}\r\n\
         Accept-Language: en-GB,en;q=0.8\r\nCache-Control: no-cache\r\n\r\n"
    );
    let opening = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(source(visitor), 0).into())?;
        let mut wire = Wire::upgrade(socket.connect(server).await?, &request, BUFFER).await?;
        let welcome = wire.next().await?;
        match wire.payload(&welcome).starts_with(br#"{"t":"welcome""#) {
            true => Ok(wire),
            false => Err(io::Error::other("no welcome")),
        }
    };
    timeout(CONNECT_WITHIN, opening).await?
}
