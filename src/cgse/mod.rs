//! The service registry of CGSE (Common-EGSE): the daemon is listed there like any other of its services.
//!
//! - [`words`]: what is said there, purely; nothing else is ever sent to an endpoint of CGSE, some of which die of what they do not know;
//! - [`exchange`]: one question, one answer;
//! - [`registry`]: who is listed, and what the dead have left there;
//! - [`course`]: what the lists tell of one service over time, purely; [`watch`]: one question for all that are followed;
//! - [`member`]: the daemon's own entry, for as long as it lives.

pub mod course;
pub mod exchange;
pub mod member;
pub mod registry;
pub mod watch;
pub mod words;

pub use member::{Member, Standing};
pub use registry::Registry;
pub use watch::Watch;
