//! Many sub-processes: name → handle, groups, the order of leaving.
//!
//! Callers hold a [`SupervisorHandle`]; nothing here waits for a sub-process on behalf of anybody but the caller who asked.
//!
//! - [`registry`]: registering, finding, unregistering;
//! - [`schedule`]: starts by the clock on the wall;
//! - [`leave`]: quitting all of them in reverse order of their start.

pub mod leave;
pub mod registry;
pub mod schedule;

pub use registry::{RegisterError, SupervisorHandle};
