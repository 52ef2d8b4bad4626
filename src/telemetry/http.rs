//! The HTTP door: metrics for Prometheus, health and readiness for whoever watches the daemon. It only reads.
//!
//! No client can hurt: a fixed number of connections and of pages at a time, a deadline for every request head and every response, and what waits
//! behind a full house waits in the kernel. When the house is full, idle connections are asked to leave.

mod deadline;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::deadline::WriteDeadline;
use super::page::Exporter;

/// Connections served at a time.
const MAX_CONNECTIONS: usize = 64;
/// Pages that are being made or sent at a time; with 1000 sub-processes each takes 1.6 MB.
const MAX_PAGES: usize = 8;
/// How long a client may take to send the head of its next request. It bounds idle connections too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a scrape waits for one of the pages.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long responses that are under way may take when the daemon leaves.
const GRACE: Duration = Duration::from_secs(1);
/// The largest request head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How long to wait when the kernel has no descriptor left for a connection: it has told, and accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/readyz` answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet ready.
    #[default]
    Starting,
    /// Takes requests.
    Ready,
    /// On its way out.
    Stopping,
}

/// The durations that tests make short.
#[derive(Clone, Copy, Debug)]
struct Timing {
    head: Duration,
    write: Duration,
}

/// Everything that answering takes.
struct Door {
    exporter: Arc<Exporter>,
    readiness: watch::Receiver<Readiness>,
    pages: Arc<Semaphore>,
    /// True while a connection waits for another to end.
    crowded: watch::Receiver<bool>,
    leaving: watch::Receiver<bool>,
    timing: Timing,
}

/// Serves until `shutdown` completes, then lets responses that are under way end.
///
/// `/readyz` can say that the daemon is leaving only while this runs: let `shutdown` complete last.
pub async fn serve(
    listener: TcpListener,
    exporter: Arc<Exporter>,
    readiness: watch::Receiver<Readiness>,
    shutdown: impl Future<Output = ()>,
) {
    serve_timed(listener, exporter, readiness, shutdown, Timing { head: HEAD_TIMEOUT, write: WRITE_TIMEOUT }).await;
}

async fn serve_timed(
    listener: TcpListener,
    exporter: Arc<Exporter>,
    readiness: watch::Receiver<Readiness>,
    shutdown: impl Future<Output = ()>,
    timing: Timing,
) {
    let mut shutdown = pin!(shutdown);
    let (crowded, crowded_seen) = watch::channel(false);
    let (leaving, leaving_seen) = watch::channel(false);
    let pages = Arc::new(Semaphore::new(MAX_PAGES));
    let door = Arc::new(Door { exporter, readiness, pages, crowded: crowded_seen, leaving: leaving_seen, timing });
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let accept = async {
        let mut failing = false;
        loop {
            while connections.try_join_next().is_some() {}
            let stream = match listener.accept().await {
                Ok((stream, _)) => {
                    failing = false;
                    stream
                }
                Err(error) => {
                    // Once, not ten times a second for as long as it lasts.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %error, "failed to accept a connection for metrics, trying again");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let slot = match slots.clone().try_acquire_owned() {
                Ok(slot) => slot,
                Err(_) => {
                    crowded.send_replace(true);
                    let slot = slots.clone().acquire_owned().await;
                    crowded.send_replace(false);
                    // The semaphore is never closed.
                    let Ok(slot) = slot else { return };
                    slot
                }
            };
            connections.spawn(connection(stream, slot, door.clone()));
        }
    };
    tokio::select! {
        () = accept => {}
        () = &mut shutdown => {}
    }
    drop(listener);
    leaving.send_replace(true);
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
}

/// Serves one connection.
async fn connection(stream: TcpStream, _slot: OwnedSemaphorePermit, door: Arc<Door>) {
    // Otherwise the last piece of a page waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let served = AtomicBool::new(false);
    let service = service_fn(|request| {
        let (door, served) = (&door, &served);
        async move {
            let mut response = answer(request, door).await;
            served.store(true, Ordering::Relaxed);
            if *door.crowded.borrow() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(door.timing.head)
            .max_buf_size(MAX_HEAD)
            .serve_connection(WriteDeadline::new(TokioIo::new(stream), door.timing.write), service)
    );
    let (mut crowded, mut leaving) = (door.crowded.clone(), door.leaving.clone());
    loop {
        tokio::select! {
            // A client that breaks off or says something that is no HTTP is its own affair: hyper has answered it, where that was possible.
            _ = connection.as_mut() => return,
            Ok(()) = crowded.changed() => {
                // A connection that has not been answered yet is not idle, and would be closed unanswered.
                if *crowded.borrow_and_update() && served.load(Ordering::Relaxed) {
                    connection.as_mut().graceful_shutdown();
                }
            }
            Ok(()) = leaving.changed() => connection.as_mut().graceful_shutdown(),
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str =
    "procmand\n\n/metrics  metrics for Prometheus\n/healthz  200 while the daemon lives\n/readyz   200 while it takes requests\n";

/// Answers one request.
async fn answer(request: Request<Incoming>, door: &Door) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/" | "/metrics" | "/healthz" | "/readyz") {
        return respond(StatusCode::NOT_FOUND, TEXT, "there is nothing here; see / for what there is\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => metrics(door).await,
        "/healthz" => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match *door.readiness.borrow() {
            Readiness::Ready => respond(StatusCode::OK, TEXT, "ready\n"),
            Readiness::Starting => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: the daemon is starting\n"),
            Readiness::Stopping => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready: the daemon is leaving\n"),
        },
        _ => respond(StatusCode::OK, TEXT, INDEX),
    }
}

/// A page that counts among [`MAX_PAGES`] until its last byte was sent.
struct Page {
    text: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Makes a page, off the runtime's threads: with 1000 sub-processes it takes milliseconds.
async fn metrics(door: &Door) -> Response<Full<Bytes>> {
    let Ok(Ok(permit)) = timeout(PAGE_TIMEOUT, door.pages.clone().acquire_owned()).await else {
        return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many scrapes at a time; try again\n");
    };
    let exporter = door.exporter.clone();
    let text = match tokio::task::spawn_blocking(move || exporter.render()).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return fault(&error),
        Err(error) => return fault(&error),
    };
    respond(StatusCode::OK, Exporter::CONTENT_TYPE, Bytes::from_owner(Page { text, _permit: permit }))
}

fn fault(error: &(dyn std::error::Error + 'static)) -> Response<Full<Bytes>> {
    tracing::error!(error, "failed to make a metrics page");
    respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the page could not be made; the daemon's log says why\n")
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
