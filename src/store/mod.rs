//! What must outlive the daemon, and who may write it.
//!
//! - [`state_dir`]: the state directory, held by one daemon at a time.

pub mod state_dir;

pub use state_dir::{StateDir, StateDirError};
