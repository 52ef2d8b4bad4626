//! Asking a service one question. The daemon hands an [`Asker`] to those who watch over runs ([`crate::subprocess::vigil`]).
//!
//! - `zmq`: a request to a ZeroMQ socket; `http`: a `GET`; `connect`: a connection that is closed again at once;
//! - `slow`: questions to the system that nobody can take back (a name's addresses, a file on a dead mount).
//!
//! A TCP service is never sent a byte: some die of what they do not understand, and none of a connection that is closed again.

mod connect;
mod http;
mod slow;
#[cfg(test)]
mod tests;
mod zmq;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

use crate::cgse::watch::Seen;
use crate::cgse::{Registry, Watch};
use crate::protocol::Name;
use crate::subprocess::spec::probe::{Probe, ZmqRequest, ZmqSocket};
use crate::subprocess::vigil::{Ask, Listing};

use slow::Slow;

/// Asks services. All clones are one.
#[derive(Clone)]
pub struct Asker(Arc<Shared>);

struct Shared {
    context: ::zmq::Context,
    names: Slow<Result<Vec<SocketAddr>, String>>,
    files: Slow<Result<(), String>>,
    cgse: Option<Cgse>,
}

/// Who asks the registry of CGSE.
#[derive(Clone, Debug)]
pub struct Cgse {
    /// One question.
    pub registry: Arc<Registry>,
    /// One for all, again and again.
    pub watch: Arc<Watch>,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Default for Asker {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Asker {
    /// One that asks. Its ZeroMQ context starts a thread with the first question that needs it.
    pub fn new(cgse: Option<Cgse>) -> Self {
        Self(Arc::new(Shared { context: ::zmq::Context::new(), names: Slow::default(), files: Slow::default(), cgse }))
    }

    /// The addresses behind `HOST:PORT`, at least one.
    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let name = address.to_owned();
        let look_up = move || {
            let found = std::net::ToSocketAddrs::to_socket_addrs(name.as_str()).map(Iterator::collect::<Vec<_>>);
            found.map_err(|error| format!("{name}: {error}")).and_then(|found| match found.is_empty() {
                true => Err(format!("{name}: no address")),
                false => Ok(found),
            })
        };
        self.0.names.ask(address, look_up).await.unwrap_or_else(|| Err(format!("{address}: nobody could look it up")))
    }

    /// Whether a file is there.
    async fn file(&self, path: &Path) -> Result<(), String> {
        let file = path.to_owned();
        let look = move || match std::fs::metadata(&file) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{}: {error}", file.display())),
        };
        let key = path.display().to_string();
        self.0.files.ask(&key, look).await.unwrap_or_else(|| Err(format!("{key}: nobody could look")))
    }

    async fn once(self, probe: Probe) -> Result<(), String> {
        match &probe {
            Probe::Zmq(request) => zmq::ask(&self, request).await,
            Probe::Tcp(address) => connect::tcp(&self.resolve(address).await?).await.map(drop),
            Probe::Unix(path) => connect::unix(path).await,
            Probe::Http(url) => http::ask(&self, url).await,
            Probe::File(path) => self.file(path).await,
            Probe::Cgse(service_type) => match &self.0.cgse {
                Some(cgse) => cgse.registry.passing(service_type).await,
                None => Err("the daemon knows no registry of CGSE: there is no [cgse] in its configuration".to_owned()),
            },
            Probe::CgseTerminate { service_type, id } => match &self.0.cgse {
                Some(cgse) => zmq::ask(&self, &terminate(cgse.registry.commands_at(service_type, id.as_deref()).await?)).await,
                None => Err("the daemon knows no registry of CGSE: there is no [cgse] in its configuration".to_owned()),
            },
            Probe::Exec(_) => Err("a program is not asked by this way".to_owned()),
        }
    }
}

/// What has a control server of CGSE (`egse.async_control` of CGSE 0.25) end. One of the older kind has another protocol, and throws this away unread.
fn terminate(endpoint: String) -> ZmqRequest {
    let frames = ["1", "MESSAGE_TYPE:STRING", "terminate"].map(str::to_owned).to_vec();
    ZmqRequest { endpoint, socket: ZmqSocket::Dealer, frames, expect: Some("\"success\": true".to_owned()) }
}

impl Ask for Asker {
    fn ask(&self, probe: &Probe, within: Duration) -> BoxFuture<'static, Result<(), String>> {
        let (asker, probe) = (self.clone(), probe.clone());
        async move {
            match tokio::time::timeout(within, asker.once(probe)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {} s", within.as_secs_f64())),
            }
        }
        .boxed()
    }

    fn follow(&self, name: &Name, service_type: &str, was_passing: bool) -> Option<BoxStream<'static, Listing>> {
        let seen = self.0.cgse.as_ref()?.watch.follow(name.as_str(), service_type, was_passing);
        let next = |mut seen: tokio::sync::watch::Receiver<Option<Seen>>| async move {
            let listing = loop {
                seen.changed().await.ok()?;
                if let Some(seen) = &*seen.borrow_and_update() {
                    break listing(seen);
                }
            };
            Some((listing, seen))
        };
        Some(futures_util::stream::unfold(seen, next).boxed())
    }
}

fn listing(seen: &Seen) -> Listing {
    let Seen { look, since } = seen.clone();
    Listing { id: look.id, health: look.health, since, problem: look.problem, ill: look.ill }
}
