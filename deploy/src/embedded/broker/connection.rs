//! A client's connection: frames in, answers out in the same order.
//!
//! Requests are begun as they are read, and a produce request is in its partitions' queues once it is begun, so a
//! pipelining producer shares syncs with itself. All other requests run when the answers before them are out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::api::Api;
use super::node::Node;
use super::requests;

/// Answers that wait for their turn. Full: the socket is not read, so TCP slows the client.
const PENDING_ANSWERS: usize = 16;
/// A connection on which nothing is asked for this long is closed; clients open a new one when they need it.
const IDLE: Duration = Duration::from_secs(600);
/// A frame that was begun must have come by then, an answer must have been taken by then.
const TRANSFER: Duration = Duration::from_secs(60);
/// The unit in which request memory is accounted for.
pub(super) const PERMIT_BYTES: usize = 1 << 10;

/// An answer's frame without its length; `None` where the client wants no answer.
pub(super) type Answer = Pin<Box<dyn Future<Output = Option<ResponseKind>> + Send>>;

/// What a request's handler needs to know besides the request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub client_id: String,
    pub client_host: String,
    pub version: i16,
    /// Where the client reached the broker.
    pub local: SocketAddr,
}

/// A connection's end, for the debug log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the client closed it")]
    Closed,
    #[error("it was silent")]
    Silent,
    #[error("{0}")]
    Nonsense(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

struct Pending {
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    answer: Answer,
}

/// Serves a connection until either side ends it.
pub(super) async fn serve(node: Arc<Node>, stream: TcpStream) -> Ended {
    if let Err(error) = stream.set_nodelay(true) {
        return error.into();
    }
    let (peer, local) = match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(local)) => (peer, local),
        (Err(error), _) | (_, Err(error)) => return error.into(),
    };
    let (reader, writer) = stream.into_split();
    let (answers, queue) = mpsc::channel(PENDING_ANSWERS);
    // Whichever side ends first ends the other: nobody waits for an answer that cannot be delivered.
    tokio::select! {
        ended = read_requests(&node, reader, peer, local, answers) => ended,
        ended = write_answers(writer, queue) => ended,
    }
}

async fn read_requests(
    node: &Arc<Node>,
    mut reader: OwnedReadHalf,
    peer: SocketAddr,
    local: SocketAddr,
    answers: mpsc::Sender<Pending>,
) -> Ended {
    loop {
        let pending = match next_request(node, &mut reader, peer, local).await {
            Ok(pending) => pending,
            Err(ended) => return ended,
        };
        if answers.send(pending).await.is_err() {
            return Ended::Closed;
        }
    }
}

async fn next_request(
    node: &Arc<Node>,
    reader: &mut OwnedReadHalf,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<Pending, Ended> {
    let length = tokio::time::timeout(IDLE, reader.read_i32()).await.map_err(|_| Ended::Silent)??;
    let limit = node.config.max_frame_bytes;
    let length = usize::try_from(length).ok().filter(|length| (8..=limit).contains(length));
    let length =
        length.ok_or_else(|| Ended::Nonsense(format!("a frame's length is not between 8 and {limit}")))?;
    let permits = u32::try_from((length / PERMIT_BYTES + 1).min(node.in_flight_permits)).unwrap_or(u32::MAX);
    let memory = Arc::clone(&node.in_flight).acquire_many_owned(permits).await.map_err(|_| Ended::Closed)?;
    let mut frame = vec![0; length];
    tokio::time::timeout(TRANSFER, reader.read_exact(&mut frame)).await.map_err(|_| Ended::Silent)??;
    let mut frame = Bytes::from(frame);
    let (key, mut version) = ((&frame[..2]).get_i16(), (&frame[2..4]).get_i16());
    let correlation_id = (&frame[4..8]).get_i32();
    let unknown =
        || Ended::Nonsense(format!("request {key} in version {version} is not one this broker answers"));
    let api = Api::of(key).ok_or_else(unknown)?;
    let answer: Answer = if api.supports(version) {
        let nonsense =
            |error: &dyn std::fmt::Display| Ended::Nonsense(format!("{:?} v{version}: {error}", api.key));
        let header = RequestHeader::decode(&mut frame, api.key.request_header_version(version))
            .map_err(|error| nonsense(&error))?;
        if !api.is_shaped(version, &frame) {
            return Err(nonsense(&"the request does not have its fields"));
        }
        let request = RequestKind::decode(api.key, &mut frame, version).map_err(|error| nonsense(&error))?;
        let client_id = header.client_id.map(|id| id.to_string()).unwrap_or_default();
        let caller = Caller { client_id, client_host: format!("/{}", peer.ip()), version, local };
        let answer = requests::begin(Arc::clone(node), caller, request).await;
        Box::pin(async move {
            let response = answer.await;
            drop(memory);
            response
        })
    } else if api.key == ApiKey::ApiVersions {
        // A client that is newer than the broker learns from this in which version to ask again.
        version = 0;
        Box::pin(async { Some(requests::unsupported_api_versions()) })
    } else {
        return Err(unknown());
    };
    Ok(Pending { correlation_id, key: api.key, version, answer })
}

async fn write_answers(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Pending>) -> Ended {
    while let Some(pending) = queue.recv().await {
        let Some(response) = pending.answer.await else { continue };
        let frame = match encode(pending.correlation_id, pending.key, pending.version, &response) {
            Ok(frame) => frame,
            Err(error) => return Ended::Nonsense(format!("{:?} v{}: {error}", pending.key, pending.version)),
        };
        match tokio::time::timeout(TRANSFER, writer.write_all(&frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Ended::Silent,
        }
    }
    Ended::Closed
}

fn encode(
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    response: &ResponseKind,
) -> Result<BytesMut, Box<dyn std::error::Error + Send + Sync>> {
    let mut frame = BytesMut::with_capacity(512);
    frame.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation_id)
        .encode(&mut frame, key.response_header_version(version))?;
    response.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}
