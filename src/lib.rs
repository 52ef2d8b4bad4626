//! procman: a process manager that engineers trust with a running instrument.
//!
//! # The rooms
//!
//! | room | who lives there | whom it may know |
//! |---|---|---|
//! | [`protocol`] | the words both sides say | nobody |
//! | [`sys`] | system calls, the only `unsafe` | nobody |
//! | [`access`] | who may do what: roles, scopes, keys | `sys::curve` |
//! | [`procfs`] | reading `/proc`: processes, their trees | nobody |
//! | [`host`] | questions about the whole host | `procfs` |
//! | [`status`] | living status of processes | `procfs`, `sys` |
//! | [`output`] | where the output of sub-processes goes | `sys` |
//! | [`subprocess`] | one supervised sub-process | `status`, `procfs`, `sys`, `output` |
//! | [`supervisor`] | many of them | `subprocess`, `procfs`, `sys` |
//! | [`probe`] | asking a service one question | `subprocess::spec`, `subprocess::vigil`, `sys`, `cgse` |
//! | [`cgse`] | the service registry of CGSE, and its hubs | `sys` |
//! | [`store`] | what must outlive the daemon | `sys::crash` |
//! | [`config`] | the configuration file | `access`, `subprocess::spec`, `supervisor::order` |
//! | [`telemetry`] | log, metrics, HTTP | nobody |
//! | [`control`] | the ZeroMQ door | `access`, `supervisor`, `subprocess`, `status`, `host`, `procfs`, `sys`, `output` |
//! | [`daemon`] | wires them together | all of them but `client` |
//! | [`client`] | the client and its command line | `access`, `protocol`, `config` |
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
//! **One start.** An effect of the machine. The actor first asks the [`subprocess::gate`], behind which stands the supervisor's graph of what requires
//! what; once that is open, a thread of the [`subprocess::spawn`] makes the process. A [`subprocess::vigil`] watches over the run from then on: it asks,
//! by way of [`probe`], and listens at the socket of sd_notify(3), and what it says (ready, ill, another main process) is one more event of the machine.
//!
//! **One reload.** The file becomes a new [`config::Config`], or a list of its mistakes; [`supervisor::plan`], pure, says what differs from what is
//! registered; [`supervisor::reload`] puts the definitions in place in one step, and then ends and starts, in order, what differs.
//!
//! **One exit.** The pidfd of the process turns readable, its actor reaps it, the machine has what is left of the tree ended, and then asks the
//! restart policy; a start that follows is one more effect.
//!
//! **One daemon after the other.** Before a process is made, the intent to make it is written down ([`subprocess::ledger`], [`store`]); its PID and start time follow,
//! its end, and where each sub-process stands. A later daemon reads that, looks for the processes, and has each actor take over what was found ([`subprocess::adopt`])
//! before it opens its doors; only then does it decide what is to start. So a daemon may leave, be killed, or have another program take its place at any moment.
//!
//! **One tree.** Where the host lets it, the daemon starts each run in a control group of its own ([`subprocess::containment`]), which no process leaves
//! by forking. In any case the daemon is a child subreaper, so every process of any tree is a descendant of it: below its main, or below an orphan that came
//! to the daemon and is known by its session, its group, or the marker `PROCMAN_UUID` in its environment ([`procfs::forest`]).
//!
//! # Decisions, and what was measured
//!
//! - *Trees by one pass over `/proc/PID/stat`*, shared by all who look at the same time: the kernel's own list of children
//!   (`/proc/PID/task/TID/children`) is a build option, and was missing on the kernel this was built on. A pass takes 3 to 5 µs for each process.
//! - *One kept descriptor for each watched process*, its directory in `/proc`, not one for each file: 31 µs a sample against 24 µs, for a fifth of the
//!   descriptors and numbers that stay right after an exec.
//! - *A status is at most one clock tick (10 ms) old*, and its tree at most ten times as old as a pass takes: polling clients cannot make the daemon
//!   spend more than about a tenth of a core on looking.
//! - *The metrics page is written straight from a table of families*: for 1000 sub-processes 5 ms and one allocation, against 36 ms and 262,000 by
//!   way of a `prometheus::core::Collector`; what counts and measures is the `prometheus` package's.
//! - *A log is cut by punching a hole at its front; the hole is taken out when little is written.* Taking 40 MiB out of an ext4 file under a fast
//!   writer holds that up for 50 ms, because the kernel first writes all that follows to the disk, and costs it a third of its rate; punching holds it
//!   up for 6 ms. What comes faster than it could be kept is not copied at all. The cost that is left is the kernel's for giving pages
//!   back: 0.13 ms of processor time for each MiB, page by page. Cutting more seldom does not lower it, and cutting more often raises it (by a
//!   third at every 10 ms, by nine tenths at every 2 ms).
//! - *A transaction is the state of a mirror in memory at one moment*: whoever hands something over never waits for a disk, and a row that changed ten times is written
//!   once. The commit of an intent goes on while the start is prepared. What a killed daemon needs is in the kernel's hands, and not synced: after a reboot it is worth nothing.
//! - *A process is called `pm-` and digits of its UUID until it has executed its program*: until then its environment is the daemon's, and a daemon that was killed
//!   in that moment would leave a process that nobody knows.
//! - *The store acknowledges twice, at two prices.* What runs must outlive the daemon and nothing more: a commit that the kernel has, 27 µs, and 40 to 120 µs with the way
//!   to the writer and back. A definition must outlive the host: a thread beside the writer brings the commit to the disk, so that no start waits
//!   for one to turn. It compares all indexes with their tables when it opens (`integrity_check`): 9 ms where the whole takes 64, for 1,000
//!   runs and 10,000 of history.
//! - *`sysinfo` answers what is asked once* (physical cores, the host's name); what is asked a thousand times a second is read here (see
//!   `make bench`, which measures both).

pub mod access;
pub mod cgse;
pub mod client;
pub mod config;
pub mod control;
pub mod daemon;
pub mod host;
pub mod output;
pub mod probe;
pub mod procfs;
pub mod protocol;
pub mod status;
pub mod store;
pub mod subprocess;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
