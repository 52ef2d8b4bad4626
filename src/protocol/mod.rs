//! The words both sides say: requests, replies, their names and their MessagePack form.
//!
//! Everyone may know this room; it knows nobody in the crate. `proto/PROTOCOL.md` is its prose, `proto/golden/v1` its frozen bytes.
//!
//! - [`names`]: closed lists of words (commands, states, causes, signals) and the [`Name`] of a sub-process;
//! - [`definition`]: what a client or the configuration file says of one sub-process;
//! - [`request`]: one type for the arguments of each command;
//! - [`reply`]: one type for the result of each command;
//! - [`event`]: what happened, as it is replayed and published;
//! - [`error`]: the closed list of error codes;
//! - [`envelope`]: what is common to all requests and replies;
//! - [`codec`]: bytes to request and reply to bytes, with the limits.

pub mod codec;
pub mod definition;
pub mod envelope;
pub mod error;
pub mod event;
pub mod names;
pub mod reply;
pub mod request;

pub use error::{Detail, ErrorCode, MISTAKES, WireError};
pub use names::{Cause, CommandName, EndedBy, EventName, Name, Origin, Overlap, RegistryHealth, RestartPolicy, Signal, StateName, Wanted};

/// The version of the protocol that this build speaks; a request that names another one is refused.
pub const VERSION: u64 = 1;

/// The largest number of levels of arrays and maps in one request.
pub const MAX_DEPTH: usize = 32;

/// The largest `request_id` in bytes, where it is a string.
pub const MAX_REQUEST_ID: usize = 64;

/// The default of `control.max_request_bytes`.
pub const DEFAULT_MAX_REQUEST_BYTES: usize = 1 << 20;

/// The longest time, in seconds, that any argument or key may hold: about 31 years, far from every overflow.
pub const MAX_SECONDS: f64 = 1e9;
