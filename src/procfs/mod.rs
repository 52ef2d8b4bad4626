//! Reading `/proc`: what the kernel says of processes, and which of them belong to which run.
//!
//! Known by `subprocess`, `status` and `host`; knows nobody of the crate. Everything here blocks for as long as the kernel takes, except
//! [`Forest::look`] and [`Forest::look_within`], which are for the async runtime and read on a thread of their own.
//!
//! - [`stat`]: one process as `/proc/PID/stat` tells it, and its [`Identity`];
//! - [`words`]: command lines, and one variable of an environment;
//! - [`table`]: every process of the host, from one pass over `/proc`;
//! - [`clock`]: ticks, the boot's date, the clock that process ages are counted on;
//! - [`forest`]: the trees of the runs, from one table at a time; `attribution` decides, purely, who belongs to whom;
//!   `environ` reads environments without waiting for a stuck process, `group` the control groups;
//! - [`mod@file`]: opening and reading, without allocating; [`ProcessDir`], which never speaks of a PID's next owner.

pub mod clock;
pub mod file;
pub mod forest;
pub mod stat;
pub mod table;
pub mod words;

mod attribution;
mod environ;
mod group;
mod owner;

pub use clock::{boot_id, boot_time, clock_ticks, monotonic, nanoseconds_at, page_size, since_boot};
pub use environ::{Marked, marked};
pub use file::{ProcessDir, is_gone};
pub use forest::{Forest, Look, MARKER, OWNER, Root};
pub use owner::{Owner, read_real_user};
pub use stat::{Identity, Stat, read_exit_code, read_stat};
pub use table::Table;
pub use words::{read_cmdline, read_environ_value};

#[cfg(test)]
pub(crate) mod testing;
