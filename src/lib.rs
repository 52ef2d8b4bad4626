//! procman: a process manager that engineers trust with a running instrument.
//!
//! # The rooms
//!
//! | room | who lives there | whom it may know |
//! |---|---|---|
//! | [`protocol`] | the words both sides say | nobody |
//! | [`sys`] | system calls, the only `unsafe` | nobody |
//! | [`procfs`] | reading `/proc`: processes, their trees | nobody |
//! | [`host`] | questions about the whole host | `procfs` |
//! | [`status`] | living status of processes | `procfs` |
//! | [`subprocess`] | one supervised sub-process | `status`, `procfs`, `sys` |
//! | [`supervisor`] | many of them | `subprocess`, `procfs` |
//! | [`store`] | what must outlive the daemon | nobody |
//! | [`config`] | the configuration file | `subprocess::spec` |
//! | [`telemetry`] | log, metrics, HTTP | nobody |
//! | [`control`] | the ZeroMQ door | `supervisor`, `subprocess`, `status`, `host`, `procfs`, `sys` |
//! | [`daemon`] | wires them together | all of them but `client` |
//! | [`client`] | the client and its command line | `protocol`, `config` |
//!
//! Everybody may know `protocol`. Lower rooms hand effects and events up and never call up. A test reads the `use` lines and holds this.
//!
//! # Theory of operation
//!
//! **One command.** A frame arrives at [`control::transport`], [`control::service`] decodes and authorises it, and asks a
//! [`subprocess::SubProcessHandle`]. That puts a message into the mailbox of the sub-process's actor (a full one is `busy`), whose
//! [`subprocess::machine`] decides: events in, effects out. The actor carries the effects out, publishes what came of it, and only then answers.
//! Reads never enter a mailbox: they come from what was last published.
//!
//! **One exit.** The pidfd of the process turns readable, its actor reaps it, the machine has what is left of the tree ended, and then asks the
//! restart policy; a start that follows is one more effect.
//!
//! **One tree.** The daemon is a child subreaper, so every process of any tree is a descendant of it: below its main, or below an orphan that came
//! to the daemon and is known by its session or by the marker `PROCMAN_UUID` in its environment ([`procfs::forest`]).

pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod host;
pub mod procfs;
pub mod protocol;
pub mod status;
pub mod store;
pub mod subprocess;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
