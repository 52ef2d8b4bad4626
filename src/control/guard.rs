//! What keeps whom out at one endpoint: the permissions of a Unix socket, or keys; and what may be done by those who get in.

use std::sync::Arc;

use tokio::sync::watch;

use crate::access::{Access, Client, PublicKey, Role, Scope, ServerKey};

use super::zap;

/// How an endpoint is guarded.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The most that may be done there.
    role: Role,
    /// To which sub-processes.
    scope: Arc<Scope>,
    /// Who gets in; `None`: whoever reaches it.
    keys: Option<watch::Receiver<Arc<Access>>>,
}

/// What one caller may do.
#[derive(Clone, Debug)]
pub struct Rights {
    /// Which commands.
    pub role: Role,
    /// To which sub-processes.
    pub reach: Reach,
    /// Its name, where it is known by a key.
    pub client: Option<Arc<str>>,
}

/// The sub-processes that somebody may touch: those that the endpoint lets everybody touch, and its own key lets it.
#[derive(Clone, Debug)]
pub struct Reach {
    of_endpoint: Arc<Scope>,
    of_client: Option<Arc<Client>>,
}

/// A client that got in, and is known no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl Rights {
    /// Of somebody who may only be told so.
    pub(super) fn none() -> Self {
        let nothing = Reach { of_endpoint: Arc::new(Scope::default()), of_client: None };
        Self { role: Role::Read, reach: nothing, client: None }
    }
}

/// Follows the daemon's own key.
#[derive(Debug)]
pub(super) struct ServerKeys {
    keys: Option<watch::Receiver<Arc<Access>>>,
    known: Option<ServerKey>,
}

impl ServerKeys {
    /// Of the present one on.
    pub(super) fn of(guard: &Guard) -> Self {
        let mut keys = guard.keys.clone();
        let known = keys.as_mut().and_then(|keys| keys.borrow_and_update().server.clone());
        Self { keys, known }
    }

    /// Resolves when there is another one; never without keys.
    pub(super) async fn changed(&mut self) {
        if let Some(keys) = &mut self.keys {
            while keys.changed().await.is_ok() {
                let now = keys.borrow_and_update().server.clone();
                if now.is_some() && now != self.known {
                    self.known = now;
                    return;
                }
            }
        }
        std::future::pending().await
    }
}

impl Guard {
    /// Whoever reaches it may do everything.
    pub fn none() -> Self {
        Self::within(Role::Admin, Scope::ALL)
    }

    /// Whoever reaches it may do this much.
    pub fn within(role: Role, scope: Scope) -> Self {
        Self { role, scope: Arc::new(scope), keys: None }
    }

    /// The same, for those who have a key.
    pub fn by_keys(self, keys: watch::Receiver<Arc<Access>>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// The keys as they are, and as they change; `None` without.
    pub fn keys(&self) -> Option<watch::Receiver<Arc<Access>>> {
        self.keys.clone()
    }

    /// Prepares a socket for endpoints that are bound from now on.
    ///
    /// # Errors
    /// libzmq has no CURVE.
    pub fn prepare(&self, socket: &zmq::Socket) -> zmq::Result<()> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let access = keys.borrow().clone();
        let Some(server) = &access.server else { return Err(zmq::Error::EACCES) };
        // Without a domain libzmq asks nobody.
        socket.set_zap_domain(zap::DOMAIN)?;
        socket.set_curve_server(true)?;
        socket.set_curve_secretkey(server.secret.bytes())
    }

    /// What whoever has sent this frame may do.
    ///
    /// # Errors
    /// It is known no more.
    pub fn rights(&self, frame: Option<&mut zmq::Message>) -> Result<Rights, Unknown> {
        let Some(keys) = &self.keys else {
            return Ok(Rights { role: self.role, reach: Reach { of_endpoint: self.scope.clone(), of_client: None }, client: None });
        };
        // What the handshake found out, and no client can say.
        let key = frame.and_then(|frame| frame.gets(zap::USER_ID)?.parse::<PublicKey>().ok()).ok_or(Unknown)?;
        let client = keys.borrow().clients.get(&key).cloned().ok_or(Unknown)?;
        Ok(Rights {
            role: client.role.min(self.role),
            client: Some(client.name.clone()),
            reach: Reach { of_endpoint: self.scope.clone(), of_client: Some(client) },
        })
    }
}

impl Reach {
    /// Everything.
    #[cfg(test)]
    pub fn all() -> Self {
        Self { of_endpoint: Arc::new(Scope::ALL), of_client: None }
    }

    fn scopes(&self) -> impl Iterator<Item = &Scope> {
        std::iter::once(&*self.of_endpoint).chain(self.of_client.as_deref().map(|client| &client.scope))
    }

    /// Whether nothing is left out, the daemon itself neither.
    pub fn is_all(&self) -> bool {
        self.scopes().all(Scope::is_all)
    }

    /// Whether a sub-process of this name and group is in it.
    pub fn covers(&self, name: &str, group: Option<&str>) -> bool {
        self.scopes().all(|scope| scope.covers(name, group))
    }

    /// What is in it, for people.
    pub fn shown(&self) -> String {
        self.scopes().filter(|scope| !scope.is_all()).map(ToString::to_string).collect::<Vec<_>>().join(" and ")
    }
}
