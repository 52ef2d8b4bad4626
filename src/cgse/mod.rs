//! CGSE (Common-EGSE): the daemon is listed in its service registry like any other of its services, and tells its hubs what happens.
//!
//! - [`words`]: what is said to the registry, purely; nothing else is ever sent to an endpoint of CGSE, some of which die of what they do not know;
//! - [`exchange`]: one question, one answer;
//! - [`registry`]: who is listed, and what the dead have left there;
//! - [`course`]: what the lists tell of one service over time, purely; [`watch`]: one question for all that are followed;
//! - [`member`]: the daemon's own entry, for as long as it lives;
//! - [`notification`], [`point`]: what the hubs are sent, purely; [`hub`]: the way there; [`link`]: whether it is open.

pub mod course;
pub mod exchange;
pub mod hub;
pub mod link;
pub mod member;
pub mod notification;
pub mod point;
pub mod registry;
pub mod watch;
pub mod words;

pub use hub::Hub;
pub use link::Reach;
pub use member::{Member, Standing};
pub use point::DataPoint;
pub use registry::Registry;
pub use watch::Watch;
