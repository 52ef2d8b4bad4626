//! The client: a REQ client for programs, and all of `procmanctl` but its `main`.
//!
//! Knows [`crate::protocol`], and of [`crate::access`] what keys are.
//!
//! - [`endpoint`]: where the daemon is, and which one is meant when nobody says;
//! - [`peer`]: by which keys it is known, and the file of a user that says so;
//! - [`connection`]: [`Client`], one request at a time under a deadline; [`probe`](self) asks the operating system whether anybody listens;
//! - [`error`]: [`ClientError`], what can go wrong between the question and its answer;
//! - [`cli`]: the verbs and their arguments, and the [`cli::Task`] each one stands for;
//! - `events`: the sequence of events, also as it grows; `cursor` counts it, so that nothing is missed unheard;
//! - [`definitions`]: the `[[process]]` tables of a file, for `register`;
//! - [`render`]: answers as tables for people, as JSON for programs;
//! - [`follow`](self): `logs -f`; `upgrade`: an upgrade, until the new program answers;
//! - [`run`]: one call of `procmanctl`, from its arguments to its exit code;
//! - [`exit`]: the table of exit codes.

pub mod cli;
pub mod connection;
mod cursor;
pub mod definitions;
pub mod endpoint;
pub mod error;
mod events;
pub mod exit;
mod follow;
pub mod peer;
mod probe;
pub mod render;
pub mod run;
mod upgrade;

pub use connection::{Answer, Client, ClientOptions};
pub use endpoint::Endpoint;
pub use error::ClientError;
pub use exit::Exit;
pub use peer::Peer;
