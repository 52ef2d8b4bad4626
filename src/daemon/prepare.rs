//! Takes everything that another program could hold, before any process is started.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::access::{Access, Scope};
use crate::config::{Cgroup, Config, ControlServer, Endpoint};
use crate::control::publisher::PublisherLimits;
use crate::control::transport::{PUBLISH, TAKE_REQUESTS};
use crate::control::{BindError, Bound, Dialect, Doorkeeper, Guard, Limits, Publisher};
use crate::procfs::Owner;
use crate::protocol::reply::Capabilities;
use crate::store::{StateDir, Store};
use crate::subprocess::containment::{Groups, Place};
use crate::sys::cgroup::Controllers;
use crate::sys::limits::{Nofile, raise_nofile};
use crate::sys::{accept, probe, reaper, signals};

use super::exit::StartError;
use super::handover::{self, DEVICE, LOCK, METRICS, SERVICE};
use super::sockets::{Permissions, SocketFile, bind_ipc};

/// Requests in work at one endpoint at a time.
const IN_WORK: usize = 4096;
/// The same for one client.
const IN_WORK_OF_ONE: usize = 1024;

/// A daemon that holds all it needs and has started nothing.
pub struct Prepared {
    pub(super) config: Config,
    /// Tells this daemon's processes from another daemon's.
    pub(super) owner: Owner,
    /// What an earlier daemon had somebody keep, by name.
    pub(super) kept: HashMap<String, OwnedFd>,
    pub(super) bound: Vec<Bound>,
    /// Where clients of CGSE's control servers come in, with commands to a device and to the server itself.
    pub(super) control_server: Option<[Bound; 2]>,
    pub(super) publisher: Publisher,
    /// Who gets in by TCP, where that takes a key; and who is asked.
    pub(super) access: watch::Sender<Arc<Access>>,
    pub(super) doorkeeper: Option<Doorkeeper>,
    pub(super) metrics: Option<(TcpListener, SocketAddr)>,
    /// What this process was started with, and what its children get.
    pub(super) nofile: Option<Nofile>,
    pub(super) nofile_of_children: Option<Nofile>,
    pub(super) capabilities: Capabilities,
    /// Where runs get their control groups; given up on the way out.
    pub(super) groups: Option<KeptGroups>,
    /// Removed on the way out, before the state directory is given up.
    pub(super) socket_files: Vec<SocketFile>,
    pub(super) state_dir: Arc<StateDir>,
    /// Ends with the last socket.
    pub(super) _context: zmq::Context,
}

/// What has to be done before the first thread is made: the signals that ask the daemon for something wait until it listens, and a host that gives
/// it no thread is told of in a sentence: libraries take threads for granted, and end the program where there are none.
pub fn first_of_all() -> Result<(), StartError> {
    std::thread::Builder::new()
        .spawn(|| ())
        .and_then(|thread| thread.join().map_err(|_| io::Error::other("it failed")))
        .map_err(|source| StartError::System { what: "cannot make a thread (is the number of processes limited?)", source })?;
    signals::hold().map_err(|errno| StartError::System { what: "cannot hold signals back", source: errno.into() })
}

/// What can be seen beforehand of why a daemon with this configuration could not run; changes nothing.
///
/// # Errors
/// A newer daemon has written the database, or the disk does not let it be read.
pub fn check(config: &Config) -> Result<(), StartError> {
    StateDir::check(&config.state_dir)?;
    Ok(Store::check(&config.state_dir)?)
}

/// What `procmand --check` says, among other words, where that is so: by it an earlier program knows that this one is fit to take over.
pub const NOTHING_IS_WRONG: &str = ": nothing is wrong, ";

impl Prepared {
    /// Takes it all, or nothing. `kept` is what an earlier daemon had somebody keep; `nofile` the soft limit on descriptors that children get in the
    /// place of the one that this process was started with.
    pub fn take(config: Config, mut kept: HashMap<String, OwnedFd>, nofile: Option<u64>) -> Result<Self, StartError> {
        let state_dir = Arc::new(StateDir::take(&config.state_dir, kept.remove(LOCK))?);
        let looked = |source| StartError::System { what: "cannot look at the state directory", source };
        let id = state_dir.id().map_err(looked)?;
        let owner = Owner::new(&id, &state_dir.path().canonicalize().map_err(looked)?);
        // Everybody may pass through it: each socket guards itself by its own mode.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&config.runtime_dir)
            .map_err(|source| StartError::RuntimeDir { path: config.runtime_dir.display().to_string(), source })?;

        let ports = handover::ports(&mut kept);
        let before_raised = handover::nofile(&mut kept);
        let context = zmq::Context::new();
        let bounds = &config.limits;
        accept::at_most(bounds.connections);
        let limits = Limits {
            max_request_bytes: config.control.max_request_bytes,
            in_work: IN_WORK,
            in_work_of_one: IN_WORK_OF_ONE,
            unread_replies: bounds.unread_replies,
            handshake_timeout: bounds.handshake_timeout,
            requests_per_second: bounds.requests_per_second,
        };
        let mut bound = Vec::new();
        let mut socket_files = Vec::new();
        let (access, seen) = watch::channel(Arc::new(config.control.access.clone()));
        let keys = config.control.access.server.is_some().then_some(seen);
        // libzmq asks nobody whose endpoint was there before.
        let doorkeeper = keys.clone().map(|keys| Doorkeeper::stand(&context, keys)).transpose()?;
        let everybody = config.control.endpoints.iter().map(|endpoint| (endpoint, Guard::none(), None));
        let some = config.control.guarded.iter().map(|guarded| {
            (
                &guarded.endpoint,
                Guard::within(guarded.role, guarded.scope.clone()),
                Some((guarded.socket_mode, guarded.socket_group.as_deref())),
            )
        });
        for (endpoint, guard, permissions) in everybody.chain(some) {
            match endpoint {
                Endpoint::Ipc(path) => {
                    let (mode, group) = permissions.unwrap_or_default();
                    let permissions = Permissions {
                        mode: mode.unwrap_or(config.control.socket_mode),
                        group: group.or(config.control.socket_group.as_deref()),
                    };
                    let bind = |endpoint: &str| Bound::bind(&context, endpoint, limits, guard.clone(), Dialect::Procman);
                    let (socket, file) = bind_ipc(path, permissions, TAKE_REQUESTS, bind)?;
                    bound.push(socket);
                    socket_files.push(file);
                }
                Endpoint::Tcp { .. } => {
                    let guard = match &keys {
                        Some(keys) => guard.by_keys(keys.clone()),
                        None => guard,
                    };
                    bound.push(same_port(&ports, endpoint, |endpoint| {
                        Bound::bind(&context, endpoint, limits, guard.clone(), Dialect::Procman)
                    })?);
                }
            }
        }
        let control_server = match config.cgse.as_ref().and_then(|cgse| cgse.control_server.as_ref()) {
            None => None,
            Some(ControlServer { device, service, role }) => {
                let guard = Guard::within(*role, Scope::ALL);
                let service_type = config.cgse.as_ref().map(|cgse| cgse.service_type.as_str()).unwrap_or_default();
                let dialect = Dialect::ControlServer { service_type: service_type.into() };
                let bind = |door: &str, endpoint: &Endpoint| {
                    let bind = |endpoint: &str| Bound::bind(&context, endpoint, limits, guard.clone(), dialect.clone());
                    same_port_as(&ports, &handover::said_at(door, endpoint), endpoint, bind)
                };
                Some([bind(DEVICE, device)?, bind(SERVICE, service)?])
            }
        };
        let mut publisher = Publisher::new(
            &context,
            PublisherLimits { unread_events: bounds.unread_events, handshake_timeout: bounds.handshake_timeout },
            keys,
        )?;
        for endpoint in &config.events.endpoints {
            match endpoint {
                Endpoint::Ipc(path) => {
                    let permissions = Permissions { mode: config.events.socket_mode, group: config.events.socket_group.as_deref() };
                    let ((), file) = bind_ipc(path, permissions, PUBLISH, |endpoint| publisher.bind(endpoint))?;
                    socket_files.push(file);
                }
                Endpoint::Tcp { .. } => same_port(&ports, endpoint, |endpoint| publisher.bind(endpoint))?,
            }
        }
        let listening = kept.remove(METRICS).map(TcpListener::from);
        let metrics = config.metrics.listen.map(|address| listen(address, listening)).transpose()?;

        let subreaper = reaper::become_subreaper();
        if let Err(error) = &subreaper {
            tracing::warn!(%error, "orphaned descendants will not come to the daemon");
        }
        let for_children = nofile;
        let nofile = raise_nofile().inspect_err(|error| tracing::warn!(%error, "cannot raise the limit on open descriptors")).ok();
        let nofile = nofile.map(|Nofile { soft, hard }| Nofile { soft: before_raised.unwrap_or(soft), hard });
        let nofile_of_children = nofile.map(|Nofile { soft, hard }| Nofile { soft: for_children.unwrap_or(soft).min(hard), hard });
        let groups = find_groups(&config.cgroup, &id)?;
        let capabilities = Capabilities {
            cgroup: groups.is_some(),
            pidfd_exit_info: probe::pidfd_exit_info(),
            curve: zmq::has("curve").unwrap_or(false),
            subreaper: reaper::is_subreaper(),
        };
        Ok(Self {
            config,
            owner,
            kept,
            bound,
            control_server,
            publisher,
            access,
            doorkeeper,
            metrics,
            nofile,
            nofile_of_children,
            capabilities,
            groups,
            socket_files,
            state_dir,
            _context: context,
        })
    }
}

/// Binds where the daemon that this one takes over from was, if the configuration leaves the port open: its clients come back there.
fn same_port<T>(
    ports: &HashMap<String, String>,
    endpoint: &Endpoint,
    bind: impl FnMut(&str) -> Result<T, BindError>,
) -> Result<T, BindError> {
    same_port_as(ports, &endpoint.to_string(), endpoint, bind)
}

/// The same for one that was handed over under a name of its own.
fn same_port_as<T>(
    ports: &HashMap<String, String>,
    name: &str,
    endpoint: &Endpoint,
    mut bind: impl FnMut(&str) -> Result<T, BindError>,
) -> Result<T, BindError> {
    ports.get(name).and_then(|resolved| bind(resolved).ok()).map_or_else(|| bind(&endpoint.to_string()), Ok)
}

/// Removes all groups of the daemon when dropped, which blocks for a second at most.
pub(super) struct KeptGroups(pub(super) Arc<Groups>);

impl KeptGroups {
    /// Leaves them, and what lives in them, to the next daemon.
    pub(super) fn leave(self) {
        self.0.leave(); // what is closed once more then finds nothing to undo
    }
}

impl Drop for KeptGroups {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn find_groups(wanted: &Cgroup, id: &str) -> Result<Option<KeptGroups>, StartError> {
    let place = match wanted {
        Cgroup::Off => {
            tracing::info!("runs have no control groups: daemon.cgroup is \"off\"");
            return Ok(None);
        }
        Cgroup::Auto => Place::Auto,
        Cgroup::At(path) => Place::At(path.clone()),
    };
    // Whatever is there under the name of the state directory is ours.
    match Groups::find(&place, id) {
        Ok(groups) => {
            let Controllers { memory, pids, .. } = groups.controllers();
            tracing::info!(path = %groups.path().display(), memory, pids, "each run gets a control group of its own");
            Ok(Some(KeptGroups(groups)))
        }
        Err(why) if place == Place::Auto => {
            tracing::info!(%why, "runs have no control groups: their processes are known by parentage, session and environment");
            Ok(None)
        }
        Err(why) => Err(why.into()),
    }
}

/// Listens there; goes on with what an earlier daemon handed over in this process, if that listens there.
fn listen(address: SocketAddr, listening: Option<TcpListener>) -> Result<(TcpListener, SocketAddr), StartError> {
    let is_it = |listener: &TcpListener| {
        listener.local_addr().is_ok_and(|local| local == address || address.port() == 0 && local.ip() == address.ip())
    };
    let open = || {
        let listener = match listening.filter(is_it) {
            Some(listening) => listening,
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        let resolved = listener.local_addr()?;
        Ok((listener, resolved))
    };
    open().map_err(|source| StartError::Metrics { address, source })
}
