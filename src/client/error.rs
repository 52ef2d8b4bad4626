//! What can go wrong between a question and its answer.

use std::io;
use std::time::Duration;

use super::endpoint::Endpoint;
use crate::protocol::WireError;

/// Why there is no result. Each says what to do about it, for it is shown to people.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or this user may not ask. Nothing was sent.
    #[error("no daemon reached at {endpoint}: {source}{}", remedy(source))]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// What the operating system says.
        source: io::Error,
    },
    /// Somebody listens there, and the greeting came to nothing because of keys. Nothing was sent.
    #[error("{}", refused(endpoint, *refusal, key.as_deref()))]
    KeyRefused {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        refusal: Refusal,
        /// The client's public key, where it has used one.
        key: Option<String>,
    },
    /// The connection broke after the request was sent and before its reply came.
    #[error("the daemon at {endpoint} went away before it answered; whether the command was carried out is not known")]
    Disconnected {
        /// Where.
        endpoint: Endpoint,
    },
    /// The deadline passed.
    #[error("{}", late(endpoint, *waited, *greeted))]
    Timeout {
        /// Where.
        endpoint: Endpoint,
        /// How long was waited.
        waited: Duration,
        /// A ZeroMQ connection stood, so that the request was sent; without one, nothing was.
        greeted: bool,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(WireError),
    /// What came back is no reply to what was asked.
    #[error("what answers at {endpoint} does not speak procman's protocol as this client does: {what}")]
    Protocol {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        what: String,
    },
    /// libzmq or the operating system refused this client something it needs.
    #[error("failed to {operation}: {source}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// What came of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The daemon does not know the client's key.
    Key,
    /// One of the two uses keys, and the other does not; or it is no ZeroMQ.
    Mechanism,
}

/// The sentence of [`ClientError::KeyRefused`].
fn refused(endpoint: &Endpoint, refusal: Refusal, key: Option<&str>) -> String {
    match (refusal, key) {
        (Refusal::Key, key) => format!(
            "the daemon at {endpoint} does not know this client's key {}: it has to stand in a [[control.client]] of its configuration, which a reload takes over",
            key.unwrap_or("(there is none)")
        ),
        (Refusal::Mechanism, Some(_)) => {
            format!(
                "the daemon at {endpoint} does not use the key that it is said to have, or none: is --server-key the text of its .public file?"
            )
        }
        (Refusal::Mechanism, None) => format!(
            "the daemon at {endpoint} takes known clients alone: give --server-key and --secret-key-file, or say server_key and secret_key_file in client.toml \
             (procmanctl --help)"
        ),
    }
}

/// What to do when nobody is reached.
fn remedy(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; only root and the members of the socket's group may use it"
    } else {
        "; is procmand running? --endpoint or PROCMAN_ENDPOINT name another one"
    }
}

/// The sentence of [`ClientError::Timeout`].
fn late(endpoint: &Endpoint, waited: Duration, greeted: bool) -> String {
    let seconds = (waited.as_secs_f64() * 1000.0).round() / 1000.0;
    if greeted {
        format!("no answer from {endpoint} within {seconds} s; the daemon goes on with the command, --timeout lets the client wait longer")
    } else {
        format!(
            "no ZeroMQ greeting from {endpoint} within {seconds} s: what listens there hangs, wants another kind of client, or is no procmand"
        )
    }
}
