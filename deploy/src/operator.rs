//! What an aggregator in a process of its own tells its operator over HTTP: `/metrics`, `/healthz`, and `/status`, which
//! says how each partition is doing and why something is being tried again.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use footfall_aggregator::Status;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::telemetry::MetricsText;

/// Connections served at once; others wait in the kernel's queue.
const AT_ONCE: usize = 32;
/// A connection is one request, and over by then.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Runs until `stop`. It answers whoever reaches it.
///
/// # Errors
/// When the socket has no address.
pub async fn serve(
    listener: TcpListener,
    status: Arc<Status>,
    metrics: MetricsText,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    info!(address = %listener.local_addr().context("listen.aggregator")?, "the aggregator tells how it is doing");
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let permit = room.clone().acquire_owned().await.context("nobody closes the semaphore")?;
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (status, metrics) = (status.clone(), metrics.clone());
                tokio::spawn(async move {
                    // Whoever hangs up early has missed the answer, and knows.
                    let _ = timeout(PATIENCE, converse(stream, &status, &metrics)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "listen.aggregator: cannot accept; out of file descriptors?");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, status: &Status, metrics: &MetricsText) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), status, metrics);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), service).await
}

fn answer(method: &Method, path: &str, status: &Status, metrics: &MetricsText) -> Response<Full<Bytes>> {
    if method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match path {
        "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", metrics()),
        "/healthz" => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/status" => {
            let partitions = serde_json::json!({ "partitions": status.partitions() });
            text(StatusCode::OK, "application/json", partitions.to_string())
        }
        _ => text(StatusCode::NOT_FOUND, "text/plain", "/metrics, /healthz, /status\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Method::GET, "/healthz", 200)]
    #[case(Method::GET, "/metrics", 200)]
    #[case(Method::GET, "/status", 200)]
    #[case(Method::GET, "/", 404)]
    #[case(Method::POST, "/status", 405)]
    fn it_answers_what_it_knows(#[case] method: Method, #[case] path: &str, #[case] expected: u16) {
        let metrics: MetricsText = Arc::new(String::new);
        let answer = answer(&method, path, &Status::default(), &metrics);
        assert_eq!(answer.status().as_u16(), expected);
    }
}
