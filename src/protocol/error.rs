//! Why a request was refused: a closed list of codes for programs, a sentence for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Every code a reply may carry. Programs decide by it; the sentence beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a map, missing or ill-typed or unknown argument, limits exceeded.
    BadRequest,
    /// `version` is not one that this daemon speaks.
    UnsupportedVersion,
    /// No such command.
    UnknownCommand,
    /// No such sub-process.
    NotFound,
    /// `register` with another definition under a known name.
    AlreadyExists,
    /// `execute` while it runs.
    AlreadyRunning,
    /// `signal` while it does not run.
    NotRunning,
    /// The operating system refused to start it.
    SpawnFailed,
    /// The caller's role does not allow it.
    PermissionDenied,
    /// A queue is full; try again.
    Busy,
    /// The caller's deadline passed before the work was done; the work goes on.
    Timeout,
    /// The daemon is leaving.
    ShuttingDown,
    /// A fault of the daemon, logged with the same `request_id`.
    Internal,
}

impl ErrorCode {
    /// Every code, in its documented order.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::UnsupportedVersion,
        Self::UnknownCommand,
        Self::NotFound,
        Self::AlreadyExists,
        Self::AlreadyRunning,
        Self::NotRunning,
        Self::SpawnFailed,
        Self::PermissionDenied,
        Self::Busy,
        Self::Timeout,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The code as it stands on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnsupportedVersion => "unsupported_version",
            Self::UnknownCommand => "unknown_command",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::AlreadyRunning => "already_running",
            Self::NotRunning => "not_running",
            Self::SpawnFailed => "spawn_failed",
            Self::PermissionDenied => "permission_denied",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The key of `details` that holds every mistake of a configuration, a text each.
pub const MISTAKES: &str = "mistakes";

/// One value of an error's `details`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Detail {
    /// A number: a PID, an errno.
    Int(i64),
    /// A text: the name of an errno, the nearest command.
    Text(String),
    /// Several of them: the supported versions.
    List(Vec<Detail>),
}

impl From<i64> for Detail {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u32> for Detail {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}
impl From<i32> for Detail {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}
impl From<&str> for Detail {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Detail {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// A refusal as it stands in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct WireError {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// A sentence for a person that names the thing and, where there is one, the remedy.
    pub message: String,
    /// Facts for a program, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Detail>,
}

impl WireError {
    /// A refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: BTreeMap::new() }
    }

    /// A `bad_request`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The same with one more fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Detail>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_on_the_wire_is_the_code_in_metrics() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), serde_json::json!(code.as_str()));
        }
    }
}
