//! Who may do what: roles, sets of sub-processes, and the keys by which clients are known.
//!
//! - [`role`]: look, operate, administer;
//! - [`scope`]: which sub-processes somebody may touch;
//! - [`programs`]: which programs may be registered by TCP;
//! - [`keys`]: CURVE keys (RFC 26 of ZeroMQ), and the files that they lie in;
//! - [`clients`]: whoever is known by a key, with a role and a scope.

pub mod clients;
pub mod keys;
pub mod programs;
pub mod role;
pub mod scope;

pub use clients::{Access, Client, Clients};
pub use keys::{PublicKey, SecretKey, ServerKey};
pub use programs::Programs;
pub use role::Role;
pub use scope::Scope;
