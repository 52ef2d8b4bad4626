//! A `GET`, and its status. The body is not read.

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;

use super::{Asker, connect};

/// The most that the status line and headers of an answer may take, in bytes; hyper allows no less than 8 KiB.
const MAX_HEAD: usize = 64 * 1024;

/// Asks; 200 to 399 is good.
pub(super) async fn ask(asker: &Asker, url: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no address: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url:?} names no host"))?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = connect::tcp(&asker.resolve(&address).await?).await?;

    let broken = |error: hyper::Error| match std::error::Error::source(&error) {
        Some(source) => format!("no answer from {address}: {error}: {source}"),
        None => format!("no answer from {address}: {error}"),
    };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("procman/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{url:?} cannot be asked for: {error}"))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection has ended, and the answer knows by now what became of it.
        _ = &mut connection => answer.await,
    };
    judge(answer.map_err(broken)?.status(), url)
}

fn judge(status: StatusCode, url: &str) -> Result<(), String> {
    match status.as_u16() {
        200..=399 => Ok(()),
        _ => Err(format!("{url} answered {status}")),
    }
}
