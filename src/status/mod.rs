//! Living status of processes: the daemon's own and that of each sub-process.
//!
//! A [`Monitor`] refreshes everything in the background, for the metrics; who wants a status that is true now asks a [`Watched`] for a fresh
//! one. Readers take what was published last and never wait for a reading in progress; nothing here blocks the async runtime, and one process
//! that is stuck in the kernel holds up nobody but itself.
//!
//! - `parse`: the files of `/proc/PID` that only a status needs;
//! - `share`: shares of a processor, over times long enough to mean something;
//! - `sampler`: reads one process;
//! - [`watched`]: publishes what its sampler read, and brings it up to date on demand;
//! - [`monitor`]: all of them, and the background refresh.

pub mod monitor;
pub mod watched;

mod parse;
mod sampler;
mod share;

pub use monitor::{Monitor, Refreshed};
pub use watched::{FRESH, Watched};
