//! The ZeroMQ door: requests in, exactly one reply frame out for each; events out.
//!
//! - [`transport`]: ROUTER sockets in the runtime, envelopes, back-pressure; knows no command;
//! - [`publisher`]: the PUB socket, for events;
//! - [`service`]: decode → authorise → supervisor → reply; [`answers`]: each command's answer; [`logs`](self) that of `logs`;
//! - [`authorize`]: which role each command needs;
//! - [`refusals`]: every error of the rooms below, translated once into the protocol's codes.

pub mod answers;
pub mod authorize;
mod logs;
pub mod publisher;
pub mod refusals;
pub mod service;
pub mod transport;

pub use publisher::Publisher;
pub use service::{Identity, Observer, Records, Served, Service};
pub use transport::{BindError, Bound, Limits};
