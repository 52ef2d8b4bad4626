//! One supervised sub-process. One actor owns its process; everyone else holds a [`SubProcessHandle`].
//!
//! Pure, without runtime, clock or I/O:
//! - [`spec`]: the definition, checked and complete;
//! - [`machine`]: states × events → effects; [`restart`]: when and how often the policy starts it again.
//!
//! The rim:
//! - [`actor`]: the task that feeds the machine and carries out its effects; [`handle`]: the door to it;
//! - [`gate`]: what a start waits for; [`vigil`]: what watches over a run: is it ready, is it well, what does it say of itself;
//! - [`spawn`]: starting a run on threads that may wait; `reserve`: what they leave over; [`strays`]: what is in the way of a start; `late`: times that are noticed late; [`tree`]: finding and ending all its processes;
//! - [`account`], [`env_file`]: the user, the groups and the environment of a run; [`containment`]: its control group;
//! - [`published`]: what everybody may see; [`report`]: what is told to the rest of the daemon; [`ledger`]: what is written down, so that a later
//!   daemon finds it again; [`adopt`]: what such a daemon found.

pub mod account;
pub mod actor;
pub mod adopt;
pub mod containment;
pub mod env_file;
pub mod gate;
pub mod handle;
mod late;
pub mod ledger;
pub mod machine;
pub mod published;
pub mod report;
mod reserve;
pub mod restart;
pub mod spawn;
pub mod spec;
pub mod strays;
mod streams;
pub mod tree;
pub mod vigil;

pub use handle::{CommandError, SubProcessHandle};
pub use published::Published;
pub use report::{Notice, Reporter, RunRecord};
pub use spawn::{Launch, SpawnFailure};
pub use spec::Spec;
