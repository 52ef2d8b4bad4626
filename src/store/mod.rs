//! What must outlive the daemon, and who may write it.
//!
//! - [`state_dir`]: the state directory, held by one daemon at a time;
//! - [`audit`]: the commands that were to change something, in memory in this version;
//! - [`history`]: the runs that have ended, in memory in this version.

pub mod audit;
pub mod history;
pub mod state_dir;

pub use audit::AuditRing;
pub use history::{History, InMemory};
pub use state_dir::{StateDir, StateDirError};
