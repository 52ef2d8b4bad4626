//! Whoever is known by a key.

use std::collections::HashMap;
use std::sync::Arc;

use super::keys::{PublicKey, ServerKey};
use super::role::Role;
use super::scope::Scope;

/// Somebody who may connect.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// What the audit trail calls it.
    pub name: Arc<str>,
    /// What it is known by.
    pub public_key: PublicKey,
    /// What it may do.
    pub role: Role,
    /// Which sub-processes it may touch.
    pub scope: Scope,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clients(HashMap<PublicKey, Arc<Client>>);

impl Clients {
    /// These; of two with the same key the last counts.
    pub fn of(clients: impl IntoIterator<Item = Client>) -> Self {
        Self(clients.into_iter().map(|client| (client.public_key, Arc::new(client))).collect())
    }

    /// The one with this key.
    pub fn get(&self, key: &PublicKey) -> Option<&Arc<Client>> {
        self.0.get(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody of these is not among those.
    pub fn any_missing_in(&self, others: &Self) -> bool {
        self.0.keys().any(|key| !others.0.contains_key(key))
    }
}

/// Who gets in at a TCP endpoint, and by which key clients know the daemon. It changes with the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// `None`: no keys, everybody.
    pub server: Option<ServerKey>,
    /// Who is known.
    pub clients: Clients,
}
