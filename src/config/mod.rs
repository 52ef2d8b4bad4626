//! The configuration file: TOML text to a checked [`Config`], with every mistake told at once, each with its file, line and key.
//!
//! - `access`: who gets in, by which door and with which key;
//! - [`diagnostic`]: one remark about a file, and the list of all that is wrong;
//! - [`endpoint`]: where a door opens, for commands or for events;
//! - [`places`]: the paths used where nobody says another, for root and for everybody else;
//! - `document`: text to tables whose every value knows its line;
//! - `limits`: `[limits]`, what clients may cost;
//! - `settings`: `[daemon]`, `[control]`, `[events]`, `[metrics]`, `[cgse]`;
//! - `process`: `[defaults]` and `[[process]]`; `order`: whom each names in `after` and `requires`, over all files;
//! - `fixed`: which keys the daemon takes over only when it starts;
//! - `load`: the only one that touches the file system: reads files, follows `include`, asks for users and groups.
//!
//! The daemon may call; the room itself knows `protocol`, the specification of a sub-process and the order among them, and starts nothing.

mod access;
pub mod diagnostic;
mod document;
pub mod endpoint;
mod fixed;
mod limits;
mod load;
mod order;
pub mod places;
mod process;
mod settings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use access::GuardedEndpoint;
pub use diagnostic::{ConfigErrors, Diagnostic};
pub use endpoint::{Endpoint, Host, InvalidEndpoint};
pub use limits::Limits;
pub use places::Places;

use crate::access::{Access, Programs, Role};
use crate::protocol::Name;
use crate::protocol::definition::Definition;
use crate::subprocess::spec::Spec;

/// Everything the configuration says, with the built-in defaults where it is silent. All paths are absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where the daemon keeps what must outlive it.
    pub state_dir: PathBuf,
    /// Where its sockets are.
    pub runtime_dir: PathBuf,
    /// Where runs get their control groups.
    pub cgroup: Cgroup,
    /// The control door.
    pub control: Control,
    /// Where events are published.
    pub events: Events,
    /// Metrics over HTTP.
    pub metrics: Metrics,
    /// What clients may cost.
    pub limits: Limits,
    /// The registry of CGSE; `None`: the daemon knows nothing of CGSE.
    pub cgse: Option<Cgse>,
    /// The sub-processes, in the order of the file; those of included files follow, in the order of the files. No two have the same name.
    pub processes: Vec<Spec>,
    /// The configuration file, absolute. It need not exist: without `--config` the built-in defaults do.
    pub source: PathBuf,
}

/// `daemon.cgroup`: where runs get a control group (cgroup v2) of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cgroup {
    /// Below the daemon's own, where that is possible; else nowhere.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Below this one, which must be possible.
    At(PathBuf),
}

/// `[control]`
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Where clients come in that may do everything; no two the same.
    pub endpoints: Vec<Endpoint>,
    /// Where those come in that may not; none of them one of `endpoints`, and with those at least one.
    pub guarded: Vec<GuardedEndpoint>,
    /// The largest request in bytes.
    pub max_request_bytes: usize,
    /// Permission bits of an ipc socket, at most `0o777`.
    pub socket_mode: u32,
    /// Group of an ipc socket; `None` leaves the daemon's own.
    pub socket_group: Option<String>,
    /// Where the secret key is that every TCP endpoint, also one of `[events]`, is guarded by; `None`: TCP has no keys.
    pub secret_key_file: Option<PathBuf>,
    /// What stands there, and who is known.
    pub access: Access,
    /// Which programs may be registered by TCP; `None`: any.
    pub allow_programs: Option<Programs>,
}

/// `[events]`
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// Where subscribers come in; no two the same, none of them one of [`Control`].
    pub endpoints: Vec<Endpoint>,
    /// Permission bits of an ipc socket, by default those of [`Control::socket_mode`].
    pub socket_mode: u32,
    /// Group of an ipc socket, by default [`Control::socket_group`].
    pub socket_group: Option<String>,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Address and port of the HTTP server; `None` means that there is none. Port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// Time between two refreshes of what is served.
    pub refresh_interval: Duration,
    /// Put before the names of the daemon's own `psutil_…` families; empty or a Prometheus name.
    pub prefix: String,
}

/// `[cgse]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgse {
    /// Where the registry takes requests, `tcp://HOST:PORT`.
    pub registry: String,
    /// Where it takes heartbeats.
    pub heartbeat: String,
    /// The daemon's type there.
    pub service_type: String,
    /// The host that is registered; `None` is the address of the first TCP endpoint.
    pub advertise_host: Option<String>,
    /// Where the notify hub takes events; `None`: it is told nothing.
    pub notify_hub: Option<String>,
    /// Where the metrics hub takes points; `None`: it gets none.
    pub metrics_hub: Option<String>,
    /// How often it gets some.
    pub metrics_interval: Duration,
    /// For how many seconds its entry counts without a sign of life.
    pub ttl: u64,
    /// Where clients of CGSE's control servers come in; `None`: nowhere.
    pub control_server: Option<ControlServer>,
}

/// The two doors that a control server of CGSE has; both do the same here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlServer {
    /// For commands to a device.
    pub device: Endpoint,
    /// For commands to the server itself.
    pub service: Endpoint,
    /// The most that may be done there.
    pub role: Role,
}

/// A configuration that is right, and what is nevertheless worth saying about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Remarks for the log: nothing that keeps the daemon from starting.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// Reads a configuration file and all that it includes.
    ///
    /// Defaults are those of the user who runs this ([`Places::of_this_user`]).
    ///
    /// # Errors
    /// Everything that is wrong with the files, at once.
    pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
        load::load(path, &Places::of_this_user())
    }

    /// What a daemon without `--config` runs with: the file at [`Places::config_file`], or where there is none, the built-in defaults.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_default() -> Result<Loaded, ConfigErrors> {
        load::load_default(&Places::of_this_user())
    }

    /// Checks a text as if it stood in `file`, without touching the file system: `include` patterns are checked but not followed,
    /// users and groups are not looked up.
    ///
    /// # Errors
    /// Everything that is wrong with the text, at once.
    pub fn from_text(text: &str, file: &Path, places: &Places) -> Result<Loaded, ConfigErrors> {
        load::from_text(text, file, places)
    }
}

/// Reads a text that holds only `[[process]]` tables, and `[defaults]` for them: what `register` can be given.
///
/// Relative paths are relative to the directory of `file`, which is not opened. The definitions are complete but for the built-in defaults.
///
/// # Errors
/// Everything that is wrong with the text, at once.
pub fn parse_processes(text: &str, file: &Path) -> Result<Vec<(Name, Definition)>, ConfigErrors> {
    load::parse_processes(text, file)
}
