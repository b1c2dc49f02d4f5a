//! Between the aggregators and ClickHouse: passes everything on, remembers which blocks went through, and misbehaves
//! when told to. What it does to an INSERT of a block is counted.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{AbortHandle, JoinSet},
};

use crate::cluster::free;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What becomes of every INSERT of a block while this is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Taken; the connection is closed instead of an answer.
    AnswerLost,
    /// Taken; the answer is a 500 of somebody in between.
    ServerError,
    /// Taken; the answer ends in the middle.
    AnswerCut,
    /// Not taken; the answer begins with 200 and ends with an exception.
    LateException,
    /// Not taken; ClickHouse's error of that code.
    Refused(u16),
}

/// How far an INSERT that is held has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of it has reached the engine.
    Sent,
    /// The engine has half of it.
    Half,
    /// The engine has answered.
    Answered,
}

/// An INSERT of a block, by what its query id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Insert {
    pub(crate) partition: i32,
    /// First offset and the offset after the last.
    pub(crate) range: (i64, i64),
    pub(crate) member: String,
}

/// An INSERT that waits; dropped, it goes on.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) insert: Insert,
    go: oneshot::Sender<()>,
    status: oneshot::Receiver<Option<StatusCode>>,
}

impl Held {
    /// Lets it go on. What the engine says to it, or `None` when there is none.
    pub(crate) async fn release(self) -> Option<StatusCode> {
        drop(self.go);
        self.status.await.unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    engine: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    felt: BTreeMap<Fault, u64>,
    hold: Option<(String, Stage, oneshot::Sender<Held>)>,
    inserts: Vec<Insert>,
}

impl Proxy {
    pub(crate) async fn start(engine: SocketAddr) -> Self {
        let address = free();
        let listener = TcpListener::bind(address).await.unwrap();
        let shared = Arc::new(Shared { engine, state: Mutex::default() });
        let serving = Some(tokio::spawn(accept(listener, shared.clone())).abort_handle());
        Self { address, shared, serving }
    }

    /// Connections are cut, and new ones refused.
    pub(crate) fn refuse(&mut self) {
        self.serving.take().expect("it serves").abort();
    }

    pub(crate) async fn accept(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(tokio::spawn(accept(listener, self.shared.clone())).abort_handle());
    }

    pub(crate) fn misbehave(&self, fault: Fault) {
        self.shared.state().fault = Some(fault);
    }

    pub(crate) fn behave(&self) {
        self.shared.state().fault = None;
    }

    /// How often a fault has happened.
    pub(crate) fn felt(&self, fault: Fault) -> u64 {
        self.shared.state().felt.get(&fault).copied().unwrap_or(0)
    }

    /// The next block that the member inserts comes to a halt there.
    pub(crate) fn hold(&self, member: &str, stage: Stage) -> oneshot::Receiver<Held> {
        let (sender, held) = oneshot::channel();
        self.shared.state().hold = Some((member.to_owned(), stage, sender));
        held
    }

    /// Every INSERT of a block so far, in the order in which they were sent.
    pub(crate) fn inserts(&self) -> Vec<Insert> {
        self.shared.state().inserts.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Dropped, it takes its connections with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, shared.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// An error closes the connection.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, std::io::Error> {
    let insert = Insert::of(&request);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let (mut fault, mut hold) = (None, None);
    if let Some(insert) = &insert {
        let mut state = shared.state();
        state.inserts.push(insert.clone());
        if state.hold.as_ref().is_some_and(|(member, ..)| *member == insert.member) {
            hold = state.hold.take();
        } else if let Some(on) = state.fault {
            *state.felt.entry(on).or_default() += 1;
            fault = Some(on);
        }
    }
    match fault {
        Some(Fault::Refused(code)) => return Ok(refusal(code)),
        Some(Fault::LateException) => return Ok(late_exception()),
        _ => {}
    }
    let request = Request::from_parts(parts, body);
    let engine = shared.engine;
    // On a task of its own: what is on its way arrives, whatever becomes of its sender.
    let response = match (hold, insert) {
        (Some((_, stage, sender)), Some(insert)) => {
            tokio::spawn(forward_held(engine, request, stage, sender, insert))
        }
        _ => tokio::spawn(async move {
            let (parts, body) = request.into_parts();
            forward(engine, Request::from_parts(parts, full(body))).await
        }),
    };
    let response = response.await.map_err(std::io::Error::other)??;
    match fault {
        Some(Fault::AnswerLost) => Err(std::io::Error::other("the answer is lost")),
        Some(Fault::ServerError) => Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "upstream went away")),
        Some(Fault::AnswerCut) => {
            let frames = [Ok(Frame::data(Bytes::from_static(b"{"))), Err(std::io::Error::other("cut"))];
            Ok(Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync()))
        }
        _ => Ok(response),
    }
}

async fn forward(engine: SocketAddr, mut request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
    let stream = TcpStream::connect(engine).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::CONNECTION] {
        request.headers_mut().remove(name);
    }
    let (mut parts, body) = sender.send_request(request).await.map_err(std::io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::CONNECTION] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, full(body)))
}

async fn forward_held(
    engine: SocketAddr,
    request: Request<Bytes>,
    stage: Stage,
    sender: oneshot::Sender<Held>,
    insert: Insert,
) -> Result<Response<Body>, std::io::Error> {
    let ((go, wait), (told, status)) = (oneshot::channel(), oneshot::channel());
    let pause = async move {
        let _ = sender.send(Held { insert, go, status });
        let _ = wait.await;
    };
    let (parts, body) = request.into_parts();
    let response = match stage {
        Stage::Sent => {
            pause.await;
            forward(engine, Request::from_parts(parts, full(body))).await
        }
        Stage::Half => {
            let (first, rest) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
            let rest = stream::once(async move {
                pause.await;
                Ok(Frame::data(rest))
            });
            let frames = stream::iter([Ok(Frame::data(first))]).chain(rest);
            forward(engine, Request::from_parts(parts, StreamBody::new(frames).boxed_unsync())).await
        }
        Stage::Answered => {
            let response = forward(engine, Request::from_parts(parts, full(body))).await;
            pause.await;
            response
        }
    };
    let _ = told.send(response.as_ref().ok().map(Response::status));
    response
}

fn full(body: Bytes) -> Body {
    Full::from(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}

/// As ClickHouse 26 words it.
fn refusal(code: u16) -> Response<Body> {
    let (status, words) = match code {
        164 => (403, "footfall_writer: Cannot execute query in readonly mode. (READONLY)"),
        241 => (500, "Query memory limit exceeded: would use 2.00 GiB. (MEMORY_LIMIT_EXCEEDED)"),
        242 => (500, "Table is in readonly mode: replica_path=/replicas/r1. (TABLE_IS_READ_ONLY)"),
        252 => (
            500,
            "Too many parts (3000). Merges are processing significantly slower than inserts. (TOO_MANY_PARTS)",
        ),
        _ => panic!("no words for code {code}"),
    };
    let text = format!("Code: {code}. DB::Exception: {words} (version 26.7.3.1 (official build))\n");
    let mut response = plain(StatusCode::from_u16(status).unwrap(), &text);
    response.headers_mut().insert("x-clickhouse-exception-code", code.into());
    response
}

fn late_exception() -> Response<Body> {
    let tag = "stubstubstubstub";
    let words = "Code: 395. DB::Exception: it failed after all. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO)\n";
    let text = format!("\r\n__exception__\r\n{tag}\r\n{words}{} {tag}\r\n__exception__\r\n", words.len());
    let mut response = plain(StatusCode::OK, &text);
    response
        .headers_mut()
        .insert("x-clickhouse-exception-tag", header::HeaderValue::from_static("stubstubstubstub"));
    response
}

impl Insert {
    /// Query ids of blocks are `topic/partition/start-end[/round]/member-started/number`.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        let mut parameters = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
        let id = parameters.find(|(name, _)| *name == "query_id")?.1.replace("%2F", "/");
        let parts: Vec<&str> = id.split('/').collect();
        let (start, end) = parts.get(2)?.split_once('-')?;
        let member = parts[parts.len() - 2].split_once('-')?.0.to_owned();
        let range = (start.parse().ok()?, end.parse().ok()?);
        Some(Self { partition: parts[1].parse().ok()?, range, member })
    }
}
