//! Reading the configuration again: the file becomes definitions, the supervisor puts them in place, and whoever asked is told what that came to. And
//! what else is asked of the daemon itself: to leave, and to let another program take over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, watch};

use crate::access::Access;
use crate::cgse::Standing;
use crate::config::{Config, ConfigErrors, Loaded};
use crate::control::{CgseProblems, Upkeep, refusals};
use crate::protocol::reply::Reloaded;
use crate::protocol::request::ChildrenAtShutdown;
use crate::protocol::{CommandName, WireError};
use crate::store::Store;
use crate::subprocess::spawn::Spawner;
use crate::supervisor::{Replaced, SupervisorHandle};
use crate::telemetry::Readiness;

use super::bridge::Bridge;
use super::service_manager::ServiceManager;
use super::successor::Successor;
use super::upgrade;

/// What is seen of CGSE.
#[derive(Debug)]
pub struct Neighbourhood {
    /// Where the daemon stands in the registry.
    pub registry: watch::Receiver<Standing>,
    /// Why the notify hub gets nothing, where it is to get something.
    pub notify_hub: Option<watch::Receiver<Option<String>>>,
    /// The same of the metrics hub.
    pub metrics_hub: Option<watch::Receiver<Option<String>>>,
}

/// The daemon's care for itself.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    supervisor: SupervisorHandle,
    /// What the daemon was started with. Its definitions are the supervisor's by now.
    config: Config,
    /// Who gets in by TCP, as the file says it now.
    access: watch::Sender<Arc<Access>>,
    /// A service manager that waits for the first readiness is told nothing else before.
    readiness: watch::Receiver<Readiness>,
    /// One reload follows the other, reading included: what was read first is put in place first.
    turn: tokio::sync::Mutex<()>,
    /// The program that would take over in this process.
    successor: Option<Successor>,
    /// Who starts it to see whether it is fit for that.
    spawner: Spawner,
    reaped: Arc<Notify>,
    /// What the next daemon will know of this one.
    store: Store,
    service_manager: ServiceManager,
    /// How it stands between the daemon and CGSE, where they have to do with each other.
    cgse: OnceLock<Neighbourhood>,
    /// It is to take over.
    upgrading: AtomicBool,
}

/// What the file said, and who is told when it says otherwise.
#[derive(Debug)]
pub struct Source {
    /// All of it.
    pub config: Config,
    /// Who gets in by TCP.
    pub access: watch::Sender<Arc<Access>>,
}

impl Keeper {
    /// Over this supervisor, which has what this configuration defines, and starts its processes with `spawner`.
    pub fn new(
        supervisor: SupervisorHandle,
        Source { config, access }: Source,
        readiness: watch::Receiver<Readiness>,
        spawner: Spawner,
        reaped: Arc<Notify>,
        store: Store,
        service_manager: ServiceManager,
    ) -> Self {
        let (turn, successor, upgrading) = (tokio::sync::Mutex::default(), Successor::of_this(), AtomicBool::new(false));
        Self(Arc::new(Kept {
            supervisor,
            config,
            access,
            readiness,
            turn,
            successor,
            spawner,
            reaped,
            store,
            service_manager,
            upgrading,
            cgse: OnceLock::new(),
        }))
    }

    /// The daemon has to do with CGSE; this says how that goes.
    pub fn watch_cgse(&self, neighbourhood: Neighbourhood) {
        // It is told once.
        drop(self.0.cgse.set(neighbourhood));
    }

    /// The program that is to take over once this daemon has left.
    pub fn successor(&self) -> Option<Successor> {
        self.0.successor.clone().filter(|_| self.0.upgrading.load(Ordering::Acquire))
    }

    /// Has the daemon leave. No other program takes its place, also where one was about to.
    pub fn leave(&self, children: ChildrenAtShutdown) {
        self.0.upgrading.store(false, Ordering::Release);
        self.0.supervisor.leave(children);
    }

    /// Upgrades when the daemon is sent this signal, as often as that is refused.
    pub async fn heed_upgrade(self, mut user2: Signal, trail: Bridge) {
        while user2.recv().await.is_some() {
            tracing::info!(signal = "SIGUSR2", "the program that is installed now is to take over");
            let result = self.upgrade().await;
            if let Err(error) = &result {
                tracing::error!(error = error.message, "nothing was changed");
            }
            trail.audit_signal(CommandName::Upgrade, result.as_ref().err());
        }
    }

    /// Reloads whenever the daemon is sent this signal, for as long as it lives. What went wrong is in the log and in the audit trail.
    pub async fn heed(self, mut hangup: Signal, trail: Bridge) {
        while hangup.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "reads the configuration again");
            let result = self.reload(false).await;
            trail.audit_signal(CommandName::Reload, result.as_ref().err());
        }
    }

    async fn carry_out(self, dry_run: bool) -> Result<Reloaded, WireError> {
        let kept = &self.0;
        let _turn = kept.turn.lock().await;
        let source = kept.config.source.clone();
        let read = tokio::task::spawn_blocking(move || Config::load(&source)).await;
        let Loaded { config, warnings } =
            read.map_err(|_| refusals::internal("reading the configuration failed half-way"))?.map_err(mistaken)?;
        let ignored: Vec<String> = kept.config.fixed_differences(&config).into_iter().map(str::to_owned).collect();
        let access = config.control.access;
        let replaced = kept.supervisor.reload(config.processes, dry_run).await.map_err(refusals::reload)?;
        if !dry_run {
            // Whether there are keys at all is decided at start.
            if access.server.is_some() == kept.config.control.access.server.is_some() {
                kept.access.send_if_modified(|known| {
                    let is_news = **known != access;
                    *known = Arc::new(access);
                    is_news
                });
            }
            for warning in &warnings {
                tracing::warn!("{warning}");
            }
            if !ignored.is_empty() {
                tracing::warn!(keys = ignored.join(", "), "these differ and are not taken over: they need a restart of the daemon");
            }
        }
        let Replaced { plan, restarted } = replaced;
        Ok(Reloaded {
            added: plan.added.into_keys().collect(),
            changed: plan.changed.into_keys().collect(),
            removed: plan.removed.into_iter().collect(),
            unchanged: plan.unchanged.into_iter().collect(),
            restarted: restarted.into_iter().collect(),
            ignored,
        })
    }

    fn is_ready(&self) -> bool {
        *self.0.readiness.borrow() == Readiness::Ready
    }
}

impl Upkeep for Keeper {
    fn cgse_problems(&self) -> CgseProblems {
        let Some(Neighbourhood { registry, notify_hub, metrics_hub }) = self.0.cgse.get() else { return CgseProblems::default() };
        let registry = match &*registry.borrow() {
            Standing::Missing(problem) => Some(problem.clone()),
            Standing::Unknown | Standing::Registered => None,
        };
        let problem = |hub: &watch::Receiver<Option<String>>| hub.borrow().clone();
        CgseProblems { registry, notify_hub: notify_hub.as_ref().and_then(problem), metrics_hub: metrics_hub.as_ref().and_then(problem) }
    }

    fn reload(&self, dry_run: bool) -> BoxFuture<'static, Result<Reloaded, WireError>> {
        let keeper = self.clone();
        if dry_run {
            return keeper.carry_out(true).boxed();
        }
        let work = async move {
            if keeper.is_ready() {
                keeper.0.service_manager.reloading();
            }
            let result = keeper.clone().carry_out(false).await;
            let status = match &result {
                Ok(Reloaded { added, changed, removed, restarted, .. }) => {
                    let [added, changed, removed, restarted] = [added, changed, removed, restarted].map(Vec::len);
                    tracing::info!(added, changed, removed, restarted, "the configuration was read again");
                    format!("{} sub-processes registered", keeper.0.supervisor.all().len())
                }
                Err(error) => {
                    tracing::error!(error = error.message, "the configuration was read again, and nothing was changed");
                    "The configuration could not be reloaded, the former one holds".to_owned()
                }
            };
            if keeper.is_ready() {
                keeper.0.service_manager.ready(status);
            }
            result
        };
        // A task of its own: whoever asked may go away, and the service manager waits for the end.
        tokio::spawn(work).map(|done| done.unwrap_or_else(|_| Err(refusals::internal("the reload failed half-way")))).boxed()
    }

    fn upgrade(&self) -> BoxFuture<'static, Result<(), WireError>> {
        let keeper = self.clone();
        let work = async move {
            let Kept { successor, supervisor, spawner, reaped, store, upgrading, turn, .. } = &*keeper.0;
            let _turn = turn.lock().await;
            let refused = |why: String| WireError::bad_request(format!("upgrade: this daemon goes on; {why}"));
            let successor = successor.as_ref().ok_or_else(|| refused("it is not known where the program of this daemon is".to_owned()))?;
            if supervisor.is_leaving() {
                return Err(refusals::shutting_down());
            }
            // What was changed since nothing can be written is known to nobody but this daemon.
            if let Some(problem) = store.problem() {
                return Err(refused(problem));
            }
            upgrade::check(successor, spawner, reaped).await.map_err(refused)?;
            upgrading.store(true, Ordering::Release);
            if !supervisor.leave(ChildrenAtShutdown::Keep) {
                // Somebody has asked it to leave meanwhile.
                upgrading.store(false, Ordering::Release);
                return Err(refusals::shutting_down());
            }
            Ok(())
        };
        // A task of its own: whoever asked may go away.
        tokio::spawn(work).map(|done| done.unwrap_or_else(|_| Err(refusals::internal("the upgrade failed half-way")))).boxed()
    }

    fn shutdown(&self, children: ChildrenAtShutdown) -> Result<(), WireError> {
        self.leave(children);
        Ok(())
    }
}

/// Every mistake, each with its file and line.
fn mistaken(ConfigErrors(errors): ConfigErrors) -> WireError {
    refusals::wrong_configuration(errors.iter().map(ToString::to_string).collect())
}
