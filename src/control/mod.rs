//! The ZeroMQ door: requests in, exactly one reply frame out for each; events out.
//!
//! - [`transport`]: ROUTER sockets in the runtime, envelopes, back-pressure; knows no command; `rate`: how fast one client may ask;
//! - [`dialect`]: how requests and replies are framed, for clients of ours and of CGSE's control servers; `json`: what the latter say;
//! - [`publisher`]: the PUB socket, for events;
//! - [`service`]: decode → authorise → supervisor → reply; [`answers`]: each command's answer; [`logs`](self) that of `logs`;
//! - [`repeats`]: what was asked before, pure; `once`: nothing of that is done twice;
//! - [`upkeep`]: what only the daemon itself can do;
//! - [`authorize`]: which role each command needs;
//! - [`guard`]: who gets in at an endpoint, and what for; [`zap`]: who has a key; `reach`: which sub-processes a command touches;
//! - [`caller`]: who asks; [`audit`]: who had what changed, and the answer of `audit`;
//! - [`refusals`]: every error of the rooms below, translated once into the protocol's codes.

pub mod answers;
pub mod audit;
pub mod authorize;
pub mod caller;
pub mod dialect;
pub mod guard;
mod json;
mod logs;
mod once;
pub mod publisher;
mod rate;
mod reach;
pub mod refusals;
pub mod repeats;
pub mod service;
pub mod transport;
pub mod upkeep;
pub mod zap;

pub use audit::Auditor;
pub use caller::Caller;
pub use dialect::Dialect;
pub use guard::Guard;
pub use once::{Journal, Known};
pub use publisher::Publisher;
pub use service::{Answer, Bounds, Identity, Neighbours, Observer, Records, Served, Service};
pub use transport::{BindError, Bound, Limits};
pub use upkeep::{CgseProblems, Definitions, Upkeep};
pub use zap::Doorkeeper;
