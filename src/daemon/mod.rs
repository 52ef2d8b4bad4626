//! The daemon from beginning to end: prepare → start → run → leave.
//!
//! - [`prepare`]: takes everything that another program could hold (state directory, endpoints, metrics address) before any process is started;
//! - [`run`]: wires the rooms together, starts what is to start, runs until asked to leave, quits what runs;
//! - [`sockets`]: the files of ipc endpoints; [`strays`]: ending what nobody owns; [`orphans`]: reaping what came to the daemon as their subreaper; [`bridge`]: what happens → telemetry and history; `answers`: what clients asked lately → the store; [`publish`]: events → their subscribers;
//! - [`handover`]: leaving without quitting anything, and another program in this process; `successor`: where that is; `upgrade`: is it fit to take over;
//! - `written`: what sub-processes write down for the next daemon; [`kept`]: descriptors that somebody keeps for it; `recovery`: taking over what an
//!   earlier one left;
//! - `membership`: the daemon in the registry of CGSE; `stale`: what dead services have left there; `hubs`: what its hubs are told, `points`: what of it
//!   are measurements;
//! - [`upkeep`]: reading the configuration again; `signals`: what the daemon is asked by them;
//! - [`service_manager`]: what systemd is told, `outbox`: what of that waits; [`unit`](mod@unit): what its unit has run beside the daemon; [`exit`]: why the daemon could not run, and its exit code.

mod answers;
pub mod bridge;
pub mod exit;
pub mod handover;
mod hubs;
pub mod kept;
mod membership;
pub mod orphans;
mod outbox;
mod points;
pub mod prepare;
pub mod publish;
mod recovery;
pub mod run;
pub mod service_manager;
mod signals;
pub mod sockets;
mod stale;
pub mod strays;
mod successor;
pub mod unit;
mod upgrade;
pub mod upkeep;
mod written;

pub use exit::{ExitReason, StartError};
pub use prepare::Prepared;
