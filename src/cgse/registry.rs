//! What is listed in the registry: who is there, and what a dead one has left.

use std::time::Duration;

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
        let entries = self.list(&mut self.exchange(), service_type).await?;
        match &entries[..] {
            [] => Err(format!("no service of type {service_type} is listed in the registry of CGSE")),
            entries if entries.iter().any(|entry| entry.health.as_deref() == Some("passing")) => Ok(()),
            [first, ..] => {
                let health = first.health.as_deref().unwrap_or("of unknown health");
                Err(format!("{service_type} is listed in the registry of CGSE as {health}"))
            }
        }
    }

    /// Takes out what a dead service of this type has left: an entry where nobody listens any more. It would keep the next one from being entered, as types
    /// are unique. Returns the ids.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub async fn clear(&self, service_type: &str) -> Result<Vec<String>, String> {
        let mut exchange = self.exchange();
        let mut taken_out = Vec::new();
        for entry in self.list(&mut exchange, service_type).await? {
            if is_abandoned(&entry).await {
                let answer = exchange.ask(&Action::Deregister { service_id: &entry.id }, PATIENCE).await?;
                taken_out.extend(answer.success.then_some(entry.id));
            }
        }
        Ok(taken_out)
    }

    fn exchange(&self) -> Exchange {
        Exchange::new(self.context.clone(), &self.endpoint, Door::Requests)
    }

    async fn list(&self, exchange: &mut Exchange, service_type: &str) -> Result<Vec<Entry>, String> {
        let answer = exchange.ask(&Action::List { service_type }, PATIENCE).await?;
        if answer.success { Ok(answer.services) } else { Err(format!("the registry of CGSE does not list: {}", answer.refusal())) }
    }
}

/// Whether nobody listens where the entry says. A connection that is closed again at once does a service of CGSE no harm; what cannot be told is no.
pub(super) async fn is_abandoned(entry: &Entry) -> bool {
    let Some(port) = entry.port() else { return false };
    let connecting = tokio::net::TcpStream::connect((entry.host.as_str(), port));
    matches!(tokio::time::timeout(CONNECT, connecting).await, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}
