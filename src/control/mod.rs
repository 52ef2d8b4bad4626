//! The ZeroMQ door: requests in, exactly one reply frame out for each; events out.
//!
//! - [`transport`]: ROUTER sockets in the runtime, envelopes, back-pressure; knows no command;
//! - [`publisher`]: the PUB socket, for events;
//! - [`service`]: decode → authorise → supervisor → reply; [`answers`]: each command's answer; [`logs`](self) that of `logs`;
//! - [`repeats`]: what was asked before, pure; `once`: nothing of that is done twice;
//! - [`upkeep`]: what only the daemon itself can do;
//! - [`authorize`]: which role each command needs;
//! - [`caller`]: who asks; [`audit`]: who had what changed, and the answer of `audit`;
//! - [`refusals`]: every error of the rooms below, translated once into the protocol's codes.

pub mod answers;
pub mod audit;
pub mod authorize;
pub mod caller;
mod logs;
mod once;
pub mod publisher;
pub mod refusals;
pub mod repeats;
pub mod service;
pub mod transport;
pub mod upkeep;

pub use audit::Auditor;
pub use caller::Caller;
pub use once::{Journal, Known};
pub use publisher::Publisher;
pub use service::{Answer, Identity, Neighbours, Observer, Records, Served, Service};
pub use transport::{BindError, Bound, Limits};
pub use upkeep::{CgseProblems, Definitions, Upkeep};
