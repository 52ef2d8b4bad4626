//! Many sub-processes: name → handle, groups, the order of starting and ending.
//!
//! Callers hold a [`SupervisorHandle`]; nothing here waits for a sub-process on behalf of anybody but the caller who asked.
//!
//! - [`registry`]: who there is; [`definitions`]: registering and unregistering;
//! - [`order`]: who is started after whom, pure; `gate`: what a single start waits for;
//! - [`start`]: starting some of them with all that they require; [`stop`]: ending some of them after all that requires them;
//! - `requirements`: whom the end of one takes along;
//! - [`plan`]: what a configuration that was read again asks for, pure; [`reload`]: doing that;
//! - [`schedule`]: starts by the clock on the wall;
//! - [`leave`]: quitting all of them.

pub mod definitions;
mod gate;
pub mod leave;
pub mod order;
pub mod plan;
pub mod registry;
pub mod reload;
mod requirements;
pub mod schedule;
pub mod start;
pub mod stop;

pub use definitions::{RegisterError, UnregisterError};
pub use registry::SupervisorHandle;
pub use reload::{ReloadError, Replaced};
pub use start::StartError;
