//! Leaving without quitting anything: what runs is left to the next daemon, which may come at once in this very process.
//!
//! Nothing new is started; when nobody can ask for anything any more, each sub-process stops deciding and gives up its descriptors in one step; and only
//! when no task is left that could reap a process is the database closed: what happens from then on, the next daemon sees. A signal that comes in between
//! waits for it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Runtime;

use crate::config::Endpoint;
use crate::store::{Farewell, StateDir, Store};
use crate::subprocess::SubProcessHandle;
use crate::subprocess::adopt::HandedOver;
use crate::subprocess::spawn::Spawner;
use crate::supervisor::SupervisorHandle;
use crate::sys::limits::Nofile;
use crate::sys::{self, inherited};

use super::exit::StartError;
use super::kept::Depository;
use super::prepare::KeptGroups;
use super::recovery::KEPT_NOTIFY;
use super::signals::Signals;
use super::successor::Successor;

/// How long tasks may take to end.
const TASKS: Duration = Duration::from_secs(2);
/// How long the service manager may take to take descriptors.
const KEEPING: Duration = Duration::from_secs(2);

/// The name of the lock of the state directory among the descriptors that are handed over.
pub(super) const LOCK: &str = "lock";
/// That of the listener for scrapes.
pub(super) const METRICS: &str = "metrics";

/// What the name of a descriptor begins with that is none of use: it says where an endpoint was whose port the configuration leaves open. The rest is
/// what the configuration says and where that was, in hexadecimal digits, as these names hold no colon.
const PORT: &str = "port.";

/// The same for the soft limit on descriptors that the first program in this process was started with: it is raised for all that come after it. The rest is
/// that number.
const NOFILE: &str = "nofile.";

/// The soft limit on descriptors that this process was started with, where an earlier program in it has raised that.
pub(super) fn nofile(kept: &mut HashMap<String, OwnedFd>) -> Option<u64> {
    let soft = kept.keys().find_map(|name| name.strip_prefix(NOFILE)?.parse().ok());
    kept.retain(|name, _| !name.starts_with(NOFILE));
    soft
}

/// Where endpoints were, by what the configuration says of them.
pub(super) fn ports(kept: &mut HashMap<String, OwnedFd>) -> HashMap<String, String> {
    let text = |hex: &str| {
        let digits = hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
    };
    let port = |name: &String| {
        let (said, resolved) = name.strip_prefix(PORT)?.split_once('.')?;
        Some((text(said)?, text(resolved)?))
    };
    let ports = kept.keys().filter_map(port).collect();
    kept.retain(|name, _| !name.starts_with(PORT));
    ports
}

/// The two doors for clients of CGSE's control servers, in the names that say where they are: by default both are at any port, as others may be.
pub(super) const DEVICE: &str = "device";
/// The one for commands to the server itself.
pub(super) const SERVICE: &str = "service";

/// What the configuration says of one of these doors, told from what it says of all other endpoints.
pub(super) fn said_at(door: &str, endpoint: &Endpoint) -> String {
    format!("{door}={endpoint}")
}

/// Names that say where these doors are, for those whose port the configuration leaves open.
pub(super) fn door_names<'a>(doors: impl Iterator<Item = (&'static str, &'a Endpoint, &'a String)>) -> Vec<String> {
    let open = doors.filter(|(_, said, resolved)| said.to_string() != **resolved);
    open.map(|(door, said, resolved)| port_name(&said_at(door, said), resolved)).collect()
}

fn port_name(said: &str, resolved: &str) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{PORT}{}.{}", hex(said), hex(resolved))
}

/// Names that say where these endpoints are, for those whose port the configuration leaves open.
pub(super) fn port_names<'a>(said: impl Iterator<Item = String>, resolved: impl Iterator<Item = &'a String>) -> Vec<String> {
    let open = said.zip(resolved).filter(|(said, resolved)| said != *resolved && said.starts_with("tcp:"));
    open.map(|(said, resolved)| port_name(&said, resolved)).collect()
}

/// The order in which they are handed over: if they are too many, the last are left out. Those are the processes, which are found without; nobody else
/// knows what the daemon itself needs.
fn rank(name: &str) -> u8 {
    match name {
        LOCK | METRICS => 0,
        _ if name.starts_with(NOFILE) || name.starts_with(PORT) => 1,
        _ if name.starts_with(KEPT_NOTIFY) => 2,
        _ => 3,
    }
}

/// How the daemon has left.
pub enum After {
    /// Everything is quit.
    Quit,
    /// Everything lives.
    Kept(Box<Rest>),
}

/// What is still to be done when the runtime has ended.
pub struct Rest {
    pub(super) store: Store,
    pub(super) spawner: Spawner,
    pub(super) depository: Arc<Depository>,
    pub(super) state_dir: Arc<StateDir>,
    /// What this process was started with.
    pub(super) nofile: Option<Nofile>,
    /// The program that takes over in this process, and what it gets.
    pub(super) next: Option<(Successor, Vec<(String, OwnedFd)>)>,
    /// What may have come since nobody listens.
    pub(super) signals: Signals,
}

/// Leaves everything running; from here on nothing is decided any more. Returns descriptors of all that runs, by the names under which the next daemon looks for them.
pub(super) async fn let_go(supervisor: &SupervisorHandle, groups: Option<KeptGroups>) -> Vec<(String, OwnedFd)> {
    let all = supervisor.all();
    let handed_over = join_all(all.iter().map(SubProcessHandle::hand_over)).await;
    if let Some(groups) = groups {
        drop(tokio::task::spawn_blocking(move || groups.leave()).await);
    }
    let named = |HandedOver { uuid, main, notify }: HandedOver| {
        let notify = notify.map(|fd| (format!("{KEPT_NOTIFY}{uuid}"), fd));
        main.map(|fd| (uuid, fd)).into_iter().chain(notify)
    };
    handed_over.into_iter().flatten().flat_map(named).collect()
}

impl After {
    /// Brings it to an end, with the runtime that the daemon has left and what flushes its log when it is dropped. To be called on the thread that the
    /// daemon was run from.
    ///
    /// # Errors
    /// The program that was to take over cannot be executed. Everything lives on, for a daemon that is started by whoever sees this one fail.
    pub fn conclude<L>(self, runtime: Runtime, log: L) -> Result<(), StartError> {
        match self {
            // A thread that reads of a stuck process may never end; the daemon does.
            Self::Quit => runtime.shutdown_background(),
            Self::Kept(rest) => {
                let Rest { store, spawner, depository, state_dir, nofile, next, signals } = *rest;
                if next.is_some() {
                    // It listens to them again; until then they wait, also while it is executed.
                    match sys::signals::hold() {
                        Ok(()) => runtime.block_on(signals.pass_on()),
                        Err(error) => tracing::warn!(%error, "a signal that comes now is lost"),
                    }
                }
                runtime.shutdown_timeout(TASKS);
                for uuid in spawner.waiting() {
                    drop(store.forget(&uuid)); // nothing of it has begun: the next daemon starts it
                }
                depository.flush(KEEPING);
                store.close(Farewell::Kept);
                if let Some((Successor { program, arguments }, mut descriptors)) = next {
                    tracing::info!(program = %program.display(), "another program takes over in this process");
                    drop(log);
                    if let (Some(Nofile { soft, .. }), Ok(nothing)) = (nofile, File::open("/dev/null")) {
                        descriptors.push((format!("{NOFILE}{soft}"), nothing.into()));
                    }
                    descriptors.extend(state_dir.into_lock().map(|fd| (LOCK.to_owned(), fd)));
                    descriptors.sort_by_key(|(name, _)| rank(name));
                    let Err(source): Result<Infallible, _> = inherited::execute(&program, &arguments, descriptors);
                    return Err(StartError::Upgrade { program, source });
                }
                tracing::info!("left, and everything lives");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_next_daemon_needs_itself_comes_before_what_it_finds_without() {
        let ports = port_names(["tcp://127.0.0.1:*".to_owned()].into_iter(), ["tcp://127.0.0.1:5555".to_owned()].iter());
        let (run, notify) = ("e20647c3-e932-11f1-b4be-3391cb1117e0", "notify.e20647c3-e932-11f1-b4be-3391cb1117e0");
        let mut names = vec![run, notify, &ports[0], "nofile.1024", METRICS, LOCK];
        names.sort_by_key(|name| rank(name));
        assert_eq!(names, [METRICS, LOCK, &ports[0], "nofile.1024", notify, run]);
    }
}
