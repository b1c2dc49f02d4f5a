//! Asks the engine a question as one of its users, over one connection that is closed afterwards.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// One answer must come within this time; a refused connection answers at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer here is a number or an error text.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// What came of it.
pub(super) enum Answer {
    Accepted,
    /// The engine answered, with an error.
    Refused(String),
    /// Nobody answered, yet.
    Silent(String),
}

pub(super) async fn ask(address: SocketAddr, user: &str, password: &str, query: &'static str) -> Answer {
    match timeout(PATIENCE, exchange(address, user, password, query)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Silent(error.to_string()),
        Err(_) => Answer::Silent(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn exchange(
    address: SocketAddr,
    user: &str,
    password: &str,
    query: &'static str,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post("/")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .header("X-ClickHouse-User", user)
        .header("X-ClickHouse-Key", password)
        .body(Full::new(Bytes::from_static(query.as_bytes())))?;

    // The connection is driven here and ends with this exchange: there is no task to leave behind.
    let response = async {
        let response = sender.send_request(request).await?;
        let ok = response.status().is_success();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER_BYTES).collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        Ok(if ok { Answer::Accepted } else { Answer::Refused(text) })
    };
    tokio::pin!(response);
    tokio::select! {
        answer = &mut response => answer,
        ended = connection => {
            // The server may close before the response is polled; what it sent is buffered by then.
            ended?;
            response.await
        }
    }
}
