//! What is listed in the registry: who is there, and what a dead one has left.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::sys::addresses;

use super::exchange::{Door, Exchange};
use super::words::{Action, Entry};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it may take to see whether somebody listens where an entry says.
const CONNECT: Duration = Duration::from_millis(200);

/// Asks the registry. Each question goes out on a connection of its own: one that is not answered holds no other one up.
pub struct Registry {
    context: zmq::Context,
    endpoint: String,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What was listed of one type before a start.
#[derive(Debug, Default)]
pub struct Cleared {
    /// The ids of those that a dead service had left; they are not listed any more.
    pub taken_out: Vec<String>,
    /// The others: somebody lives there, or nobody can tell.
    pub left: Vec<Entry>,
}

impl Registry {
    /// The one that takes requests at this endpoint.
    pub fn new(endpoint: &str) -> Self {
        Self { context: zmq::Context::new(), endpoint: endpoint.to_owned() }
    }

    /// Whether a service of this type is listed as passing.
    ///
    /// # Errors
    /// None is, or nobody can tell, in words for people.
    pub async fn passing(&self, service_type: &str) -> Result<(), String> {
        let entries = self.list(&mut self.exchange(), Some(service_type), PATIENCE).await?;
        match &entries[..] {
            [] => Err(format!("no service of type {service_type} is listed in the registry of CGSE")),
            entries if entries.iter().any(Entry::is_passing) => Ok(()),
            [first, ..] => {
                let health = first.health.as_deref().unwrap_or("of unknown health");
                Err(format!("{service_type} is listed in the registry of CGSE as {health}"))
            }
        }
    }

    /// Where the service of this type, and of this id where that is known, takes commands to itself: the host of its entry, and the port in its metadata.
    ///
    /// # Errors
    /// None is listed that does, it is on another host, or nobody can tell, in words for people.
    pub async fn commands_at(&self, service_type: &str, id: Option<&str>) -> Result<String, String> {
        let entries = self.list(&mut self.exchange(), Some(service_type), PATIENCE).await?;
        let Some((entry, port)) =
            entries.iter().filter(|entry| id.is_none_or(|id| entry.id == id)).find_map(|entry| Some((entry, entry.service_port()?)))
        else {
            return Err(format!("no service of type {service_type} that takes commands is listed in the registry of CGSE"));
        };
        let found = tokio::net::lookup_host((entry.host.as_str(), port)).await.map_err(|error| format!("{}: {error}", entry.host))?;
        let own = found.filter(|address| is_own(address.ip())).min_by_key(|address| !address.is_ipv4());
        own.map(|address| format!("tcp://{address}"))
            .ok_or_else(|| format!("{service_type} is listed at {}, which is another host", entry.host))
    }

    /// Takes out what a dead service of this type has left on this host: an entry where nobody listens any more. It would keep the next one from being
    /// entered, as types are unique. What is left on another host is another one's.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub async fn clear(&self, service_type: &str) -> Result<Cleared, String> {
        let mut exchange = self.exchange();
        let mut cleared = Cleared::default();
        for entry in self.list(&mut exchange, Some(service_type), PATIENCE).await? {
            let is_out =
                is_abandoned(&entry, is_own).await && exchange.ask(&Action::Deregister { service_id: &entry.id }, PATIENCE).await?.success;
            if is_out { cleared.taken_out.push(entry.id) } else { cleared.left.push(entry) }
        }
        Ok(cleared)
    }

    /// What questions are asked with.
    pub(super) fn exchange(&self) -> Exchange {
        Exchange::new(self.context.clone(), &self.endpoint, Door::Requests)
    }

    /// All entries, or those of one type.
    pub(super) async fn list(&self, exchange: &mut Exchange, service_type: Option<&str>, within: Duration) -> Result<Vec<Entry>, String> {
        let answer = exchange.ask(&Action::List { service_type }, within).await?;
        if answer.success { Ok(answer.services) } else { Err(format!("the registry of CGSE does not list: {}", answer.refusal())) }
    }
}

/// Whether this host has that address; what cannot be told is no.
pub(super) fn is_own(address: IpAddr) -> bool {
    addresses::is_own(address).unwrap_or(false)
}

/// Whether nobody listens where the entry says, and that is on this host. A connection that is closed again at once does a service of CGSE no harm; what
/// cannot be told is no.
pub(super) async fn is_abandoned(entry: &Entry, is_own: impl Fn(IpAddr) -> bool) -> bool {
    let Some(port) = entry.port() else { return false };
    let looking = async {
        let found: Vec<SocketAddr> = match tokio::net::lookup_host((entry.host.as_str(), port)).await {
            Ok(found) => found.collect(),
            Err(_) => return false,
        };
        // Elsewhere, a closed port tells of somebody else's service, or of a way that is closed.
        if found.is_empty() || !found.iter().all(|address| is_own(address.ip())) {
            return false;
        }
        for address in found {
            match tokio::net::TcpStream::connect(address).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    };
    tokio::time::timeout(CONNECT, looking).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(host: &str, port: u16) -> Entry {
        serde_json::from_value(serde_json::json!({"id": "x", "host": host, "port": port})).unwrap()
    }

    #[tokio::test]
    async fn only_what_was_left_on_this_host_is_abandoned() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_abandoned(&entry("127.0.0.1", port), is_own).await, "somebody listens");
        assert!(!is_abandoned(&entry("192.0.2.1", port), is_own).await, "another host");
        assert!(!is_abandoned(&entry("no-such-host.invalid", port), is_own).await);
        assert!(!is_abandoned(&entry("", port), is_own).await);
        drop(listener);
        assert!(is_abandoned(&entry("127.0.0.1", port), is_own).await);
        assert!(is_abandoned(&entry("localhost", port), is_own).await);
        assert!(!is_abandoned(&entry("127.0.0.1", port), |_| false).await, "were it another host");
    }
}
