//! What every request and every reply has in common.

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::MAX_REQUEST_ID;
use super::error::WireError;

/// What a client calls its request; the reply repeats it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// A number from 0 up.
    Unsigned(u64),
    /// A negative number.
    Signed(i64),
    /// A text of at most [`MAX_REQUEST_ID`] bytes.
    Text(String),
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a string or an integer")]
        enum Any {
            Unsigned(u64),
            Signed(i64),
            Text(String),
        }
        match Any::deserialize(deserializer)? {
            Any::Unsigned(number) => Ok(Self::Unsigned(number)),
            Any::Signed(number) => Ok(Self::Signed(number)),
            Any::Text(text) if text.len() <= MAX_REQUEST_ID => Ok(Self::Text(text)),
            Any::Text(text) => Err(D::Error::custom(format!("{} bytes are too long, at most {MAX_REQUEST_ID} are allowed", text.len()))),
        }
    }
}

/// A reply as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply<T> {
    /// Whether `result` or `error` follows.
    pub success: bool,
    /// What the command answers.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub result: Option<T>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
    /// What the client called its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// `None` without asking that `T` has a default.
const fn none<T>() -> Option<T> {
    None
}
