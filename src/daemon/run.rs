//! Wires the rooms together and runs until asked to leave.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::cgse::{Registry, Watch};
use crate::config::Endpoint;
use crate::control::{Bounds, Identity, Neighbours, Service};
use crate::output::{self, Outputs};
use crate::probe::{Asker, Cgse};
use crate::procfs::{self, Forest};
use crate::protocol::definition::Definition;
use crate::protocol::request::ChildrenAtShutdown;
use crate::protocol::{EndedBy, Name, Origin, StateName};
use crate::status::Monitor;
use crate::store::{Farewell, History, InMemory, Opened, RunRow, StateDir, Store};
use crate::subprocess::actor::Shared;
use crate::subprocess::containment::Containment;
use crate::subprocess::published::unix_seconds;
use crate::subprocess::spawn::Spawner;
use crate::subprocess::spec::instances;
use crate::subprocess::strays::Strays;
use crate::subprocess::vigil::{NotifySocket, VigilShared};
use crate::subprocess::{CommandError, Spec, SubProcessHandle};
use crate::supervisor::leave::Left;
use crate::supervisor::{SupervisorHandle, schedule};
use crate::sys;
use crate::sys::reaper::Mains;
use crate::telemetry::{Event, Feed, Readiness, Telemetry, http};

use super::answers::Answers;
use super::bridge::{Bridge, StoreWatcher, snapshot, tell_set_aside};
use super::exit::StartError;
use super::handover::{self, After, DEVICE, METRICS, Rest, SERVICE};
use super::hubs::{self, Hubs};
use super::kept::Depository;
use super::membership::Membership;
use super::prepare::Prepared;
use super::publish::publish;
use super::recovery::{self, Heirs, KEPT_NOTIFY, Outcome};
use super::service_manager::ServiceManager;
use super::signals::Signals;
use super::stale::StaleEntries;
use super::upkeep::{Keeper, Neighbourhood, Source};
use super::written::Writer;
use super::{orphans, strays};

/// How long the first starts may take before the daemon counts as ready without them: one that hangs, or waits for another, must not keep the others
/// from being served.
const STARTS: Duration = Duration::from_secs(10);
/// How long starts that are under way may take to have their process, where everything is left to the next daemon. One that takes longer is found by
/// that one as it is.
const STARTS_UNDER_WAY: Duration = Duration::from_secs(2);
/// How long the programs that asked sub-processes how they are may take to end, once killed.
const PROGRAMS: Duration = Duration::from_secs(2);
/// How long what goes on in the background may take to end.
const TASKS: Duration = Duration::from_secs(2);
/// How long the service manager may take to hear that the daemon leaves.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How much longer each sub-process may take than its own stop time-out while leaving.
const STOP_MARGIN: Duration = Duration::from_secs(10);

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// A node for version-1 UUIDs: random, with the multicast bit that tells it from a network card's address (RFC 9562, section 6.10).
fn uuid_node() -> [u8; 6] {
    let random = uuid::Uuid::new_v4().into_bytes();
    let mut node = [0; 6];
    node.copy_from_slice(&random[..6]);
    node[0] |= 1;
    node
}

impl Prepared {
    /// Runs the daemon until it has left. Needs the runtime that it is called on, with time and I/O, and takes the signals on the thread that calls it,
    /// which is the one to conclude with ([`After::conclude`]).
    pub async fn run(self, telemetry: Telemetry) -> Result<After, StartError> {
        let signals = Signals::listen().map_err(system("cannot listen to signals"))?;
        sys::signals::release().map_err(io::Error::from).map_err(system("cannot let signals through"))?;
        let served = tokio::spawn(self.serve(telemetry, signals)).await;
        served.map_err(io::Error::other).map_err(system("the daemon failed"))?
    }

    async fn serve(self, telemetry: Telemetry, mut signals: Signals) -> Result<After, StartError> {
        let Self {
            mut config,
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
        } = self;
        let started = Instant::now();
        let hangup = signal(SignalKind::hangup()).map_err(system("cannot listen to signals"))?;
        let user2 = signal(SignalKind::user_defined2()).map_err(system("cannot listen to signals"))?;
        let node = uuid_node();
        let uuid = uuid::Uuid::now_v1(&node).to_string();

        let mains = Arc::new(Mains::default());
        let forest = Forest::new();
        if groups.is_some() {
            forest.by_groups();
        }
        let monitor = Monitor::new(forest.clone(), uuid.clone()).map_err(system("cannot read this process in /proc"))?;
        let feed = Feed::new(&uuid);
        let telemetry = telemetry.publishing(feed.clone());
        let Opened { store, mut recovered } = open_store(&state_dir, telemetry.clone()).await?;
        let history = Arc::new(InMemory::default());
        recovered.history.iter().for_each(|run| history.append(run.clone()));
        let bridge = Bridge { telemetry: telemetry.clone(), feed: feed.clone(), history, store: store.clone() };
        let places = output::Settings { logs: state_dir.path().join("logs"), journal: output::journal::SOCKET.into() };
        let outputs = Outputs::new(places, Arc::new(bridge.clone()));
        let caretaker = outputs.look_after().map_err(system("cannot make the threads that look after logs"))?;
        let reaped = Arc::new(Notify::new());
        let containment = Arc::new(Containment::new(groups.as_ref().map(|kept| kept.0.clone())));
        let spawner = Spawner::new(owner.to_string(), mains.clone(), nofile_of_children, containment.clone(), outputs.clone());
        let cgse = config.cgse.as_ref().map(|cgse| {
            let registry = Arc::new(Registry::new(&cgse.registry));
            Cgse { watch: Arc::new(Watch::new(registry.clone())), registry }
        });
        let vigil = VigilShared::new(Arc::new(Asker::new(cgse.clone())), spawner.clone(), forest.clone(), reaped.clone());
        let vigil = Arc::new(vigil.keeping(config.limits.probe_output_bytes));
        let boot_id = procfs::boot_id().map_err(system("cannot tell which boot of the host this is"))?;
        let service_manager = ServiceManager::find(kept.keys().cloned().collect());
        let depository = Arc::new(Depository::new(service_manager.clone()));
        let ledger = Arc::new(Writer { store: store.clone(), depository: depository.clone(), boot_id: boot_id.clone() });
        let strays = Arc::new(Strays::default());
        let supervisor = SupervisorHandle::new(|gate| Shared {
            forest: forest.clone(),
            monitor: monitor.clone(),
            spawner: spawner.clone(),
            mains: mains.clone(),
            gate: match cgse.clone() {
                Some(cgse) => Arc::new(StaleEntries { gate, cgse }),
                None => gate,
            },
            vigil: vigil.clone(),
            runtime_dir: config.runtime_dir.clone(),
            reporter: Arc::new(bridge.clone()),
            ledger: ledger.clone(),
            strays: strays.clone(),
            reaped: reaped.clone(),
            node,
            starts: AtomicU64::new(0),
        });

        supervisor.at_most(config.limits.processes);
        let mut background = JoinSet::new();
        let refreshed = telemetry.clone();
        background.spawn(monitor.clone().run(config.metrics.refresh_interval, move |refresh| {
            refreshed.emit(Event::Refreshed { took: refresh.took, zombies: refresh.zombies });
        }));
        background.spawn(service_manager.clone().keep_alive(supervisor.clone()));
        if let Some(Cgse { watch, .. }) = cgse {
            background.spawn(async move { match watch.run().await {} });
        }

        let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
        let (closing, closing_seen) = watch::channel(false);
        let mut doors = JoinSet::new();
        let listening = metrics.as_ref().and_then(|(listener, _)| listener.as_fd().try_clone_to_owned().ok());
        let metrics_endpoint = metrics.as_ref().map(|(_, address)| format!("http://{address}/metrics"));
        if let Some((listener, _)) = metrics {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(system("cannot wait for scrapes"))?;
            let source = (supervisor.clone(), monitor.clone());
            let exporter = telemetry.exporter(&config.metrics.prefix, Arc::new(move || snapshot(&source.0, &source.1)))?;
            let mut closing = closing_seen.clone();
            let shutdown = async move { drop(closing.wait_for(|closing| *closing).await) };
            doors.spawn(http::serve(listener, Arc::new(exporter), readiness_seen, shutdown));
        }
        let said = |endpoints: &[Endpoint]| endpoints.iter().map(ToString::to_string).collect::<Vec<_>>();
        let guarded: Vec<_> = config.control.guarded.iter().map(|guarded| guarded.endpoint.clone()).collect();
        let control = said(&config.control.endpoints).into_iter().chain(said(&guarded));
        let mut ports = handover::port_names(control, bound.iter().map(|bound| &bound.endpoint));
        // Those of TCP are in the order of the file, also where others are open.
        let is_tcp = |endpoint: &&String| endpoint.starts_with("tcp://");
        let (events, published) = (said(&config.events.endpoints), publisher.endpoints());
        ports.extend(handover::port_names(events.into_iter().filter(|endpoint| is_tcp(&endpoint)), published.iter().filter(is_tcp)));
        if let (Some(said), Some([device, service])) = (config.cgse.as_ref().and_then(|cgse| cgse.control_server.as_ref()), &control_server)
        {
            let doors = [(DEVICE, &said.device, &device.endpoint), (SERVICE, &said.service, &service.endpoint)];
            ports.extend(handover::door_names(doors.into_iter()));
        }
        let endpoints: Vec<String> = bound.iter().map(|bound| bound.endpoint.clone()).collect();
        let identity = Identity {
            uuid,
            started,
            started_at: unix_seconds(SystemTime::now()),
            hostname: sysinfo::System::host_name().unwrap_or_default(),
            endpoints: endpoints.clone(),
            cgse_endpoints: control_server.iter().flatten().map(|bound| bound.endpoint.clone()).collect(),
            events_endpoints: published,
            metrics_endpoint: metrics_endpoint.clone(),
            capabilities,
        };
        let publishing = publisher.open().map_err(system("cannot watch the socket of events"))?;
        doors.spawn(publish(feed.clone(), publishing, closing_seen.clone()));
        if let Some(doorkeeper) = doorkeeper {
            let (telemetry, closing) = (telemetry.clone(), closing_seen.clone());
            doors.spawn(async move {
                let refused = Arc::new(move |_: &str| telemetry.emit(Event::StrangerRefused));
                if let Err(error) = doorkeeper.serve(refused, closing).await {
                    tracing::error!(%error, "nobody can connect by TCP any more");
                }
            });
        }
        let configured = supervisor.register(std::mem::take(&mut config.processes), false).await.map_err(StartError::Register)?;
        supervisor.are_of_file(configured.iter().map(SubProcessHandle::name));
        let definitions = still_defined(std::mem::take(&mut recovered.definitions), &recovered.runs, &store);
        let unregistered = register_again(&supervisor, &store, definitions).await;
        let set_aside = recovered.set_aside.clone();
        let answers = Answers { store: store.clone(), boot_id: boot_id.clone() };
        let known = answers.recall(std::mem::take(&mut recovered.answers));
        let heirs = Heirs {
            supervisor: &supervisor,
            containment: &containment,
            groups: groups.as_ref().map(|kept| &kept.0),
            forest: &forest,
            store: &store,
            bridge: &bridge,
            runtime_dir: &config.runtime_dir,
            owner: &owner,
            strays: &strays,
            unregistered,
        };
        // Named before anything new has one: what came back, and belongs to no run that was taken over, is over.
        let (sockets, came_back): (Vec<String>, Vec<String>) = (NotifySocket::left(&config.runtime_dir), kept.keys().cloned().collect());
        let scheduled_before =
            recovered.standings.iter().filter_map(|row| Some((row.name.clone(), recovery::at(row.scheduled?)))).collect();
        let taking_over = supervisor.take_over();
        let (to_start, outcome) = heirs.recover(recovered, kept, &boot_id).await?;
        drop(taking_over);
        // Behind that: what its time comes for meanwhile may live.
        let (scheduled, reporter) = (supervisor.clone(), Arc::new(bridge.clone()));
        background.spawn(async move {
            if let Err(error) = schedule::run(scheduled, reporter, scheduled_before).await {
                tracing::error!(%error, "nothing is started by its schedule any more");
            }
        });
        // Not before: what an earlier program of this process has started, and has ended since, is reaped by whoever takes it over.
        let (reporter, woken) = (Arc::new(bridge.clone()), reaped.clone());
        background.spawn(async move {
            if let Err(error) = orphans::reap(mains, woken, reporter).await {
                tracing::error!(%error, "orphans are not reaped");
            }
        });
        let taken_over = store.boot(&boot_id);
        let runs = runs_of(&supervisor);
        sockets.iter().filter(|uuid| !runs.contains(*uuid)).for_each(|uuid| NotifySocket::remove_stale(&config.runtime_dir, uuid));
        let depository_too = depository.clone();
        background.spawn(async move {
            // What was found of their ends must be written down before.
            let _ = taken_over.await;
            let over = came_back.iter().filter(|name| !runs.contains(name.strip_prefix(KEPT_NOTIFY).unwrap_or(name)));
            over.for_each(|name| depository_too.give_up(name));
        });
        if let Some(set_aside) = &set_aside {
            tell_set_aside(&telemetry, set_aside);
        }
        if outcome != (Outcome { took: outcome.took, ..Outcome::default() }) {
            let Outcome { adopted, ended, lost, remnants, took } = outcome;
            telemetry.emit(Event::Recovered { adopted, ended, lost, remnants, took });
        }
        let bounds = Bounds {
            allow_programs: config.control.allow_programs.clone(),
            max_request_bytes: config.control.max_request_bytes,
            log_reply_bytes: config.limits.log_reply_bytes,
        };
        // Once everything is taken over: whoever finds the daemon there may ask it anything.
        let mut membership = config.cgse.as_ref().map(|cgse| Membership::begin(cgse, &owner, &identity, telemetry.clone()));
        let hubs = config.cgse.as_ref().map(|cgse| {
            let (supervisor, monitor) = (supervisor.clone(), monitor.clone());
            let source = Arc::new(move || snapshot(&supervisor, &monitor));
            let tags = hubs::Tags::new(&cgse.service_type, &identity.hostname);
            Hubs { telemetry: telemetry.clone(), feed, source, tags, closing: closing_seen.clone() }.begin(cgse, &mut doors)
        });
        let (readiness_seen, spawner_too, store_too, told) =
            (readiness.subscribe(), spawner.clone(), store.clone(), service_manager.clone());
        let keeper =
            Keeper::new(supervisor.clone(), Source { config, access }, readiness_seen, spawner_too, reaped.clone(), store_too, told);
        if let (Some(membership), Some((notify_hub, metrics_hub))) = (&membership, hubs) {
            keeper.watch_cgse(Neighbourhood { registry: membership.standing.clone(), notify_hub, metrics_hub });
        }
        background.spawn(keeper.clone().heed(hangup, bridge.clone()));
        background.spawn(keeper.clone().heed_upgrade(user2, bridge.clone()));
        let (trail, bridge) = (bridge.clone(), Arc::new(bridge));
        let neighbours = Neighbours {
            observer: bridge.clone(),
            records: bridge.clone(),
            auditor: bridge.clone(),
            upkeep: Arc::new(keeper.clone()),
            definitions: bridge,
            journal: Arc::new(answers),
        };
        let service = Arc::new(Service::new(supervisor.clone(), monitor, identity, bounds, neighbours, outputs, known));
        for bound in bound.into_iter().chain(control_server.into_iter().flatten()) {
            let (service, closing) = (service.clone(), closing_seen.clone());
            doors.spawn(async move {
                let endpoint = bound.endpoint.clone();
                if let Err(error) = bound.serve(service, closing).await {
                    tracing::error!(endpoint, %error, "this endpoint takes no more requests");
                }
            });
        }

        let (mut asked, mut children) = tokio::select! {
            asked = signals.asked_to_leave(&supervisor, &trail) => asked,
            () = start_all(&supervisor, to_start) => {
                tracing::info!(
                    version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), state_dir = %state_dir.path().display(), ?endpoints,
                    metrics = metrics_endpoint.as_deref().unwrap_or("none"), sub_processes = supervisor.all().len(), "ready"
                );
                readiness.send_replace(Readiness::Ready);
                service_manager.ready(format!("{} sub-processes registered", supervisor.all().len()));
                signals.asked_to_leave(&supervisor, &trail).await
            }
        };

        readiness.send_replace(Readiness::Stopping);
        if children == ChildrenAtShutdown::Keep {
            match keeper.successor() {
                Some(_) => service_manager.reloading(),
                None => service_manager.stopping(),
            }
            tracing::info!(asked, "leaving, sub-processes are left to the next daemon");
            let closed = async {
                spawner.pause(STARTS_UNDER_WAY).await;
                // Whoever asked for this has its answer, and whoever asks now is told that the daemon is leaving.
                closing.send_replace(true);
                while doors.join_next().await.is_some() {}
            };
            // Until here everything can be done otherwise.
            tokio::select! {
                biased;
                overruled = signals.overruled(&supervisor, &keeper, &trail) => {
                    (asked, children) = (overruled, ChildrenAtShutdown::Quit);
                    spawner.resume();
                }
                () = closed => {}
            }
        }
        let (left, strays, mut descriptors) = match children {
            ChildrenAtShutdown::Quit => {
                service_manager.stopping();
                // Whoever comes after a daemon that is killed from here on begins anew.
                drop(store.leave(Farewell::Quit));
                tracing::info!(asked, "leaving, sub-processes are quit; a second signal kills those that are left");
                // The registry may be one of them.
                if let Some(membership) = &mut membership {
                    membership.take_out().await;
                }
                let left = leave_all(&supervisor, &mut signals, &service_manager).await;
                if tokio::time::timeout(PROGRAMS, vigil.programs_ended()).await.is_err() {
                    tracing::warn!("a program that asked a sub-process does not end");
                }
                let strays = strays::end(&forest).await;
                drop(tokio::task::spawn_blocking(move || drop(groups)).await);
                (left, strays, Vec::new())
            }
            ChildrenAtShutdown::Keep => (Left::default(), Vec::new(), handover::let_go(&supervisor, groups).await),
        };
        // Last: whoever asked for the shutdown has its answer, and whoever asks now is told that the daemon is leaving.
        closing.send_replace(true);
        while doors.join_next().await.is_some() {}
        // Awaited, as the one that reaps orphans must not reap what the next daemon takes over; not for ever, as one that reads of a stuck process may hang.
        drop(tokio::time::timeout(TASKS, background.shutdown()).await);
        // Nobody writes to a log any more. It waits for a rotation that is under way.
        drop(tokio::task::spawn_blocking(move || drop(caretaker)).await);
        drop(socket_files);
        // Closing the context waits for replies that are on their way, for as long as the sockets linger.
        drop(tokio::task::spawn_blocking(move || drop(context)).await);
        if children == ChildrenAtShutdown::Keep {
            let next = keeper.successor().map(|successor| {
                descriptors.extend(listening.map(|fd| (METRICS.to_owned(), fd)));
                let nothing = || std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
                descriptors.extend(ports.into_iter().filter_map(|name| Some((name, nothing()?))));
                (successor, descriptors)
            });
            return Ok(After::Kept(Box::new(Rest { store, spawner, depository, state_dir, nofile, next, signals })));
        }
        let last_words = move || {
            store.close(Farewell::Quit);
            service_manager.flush(LAST_WORDS);
        };
        drop(tokio::task::spawn_blocking(last_words).await);
        tracing::info!(quit = left.quit, "left");
        drop(state_dir);
        if left.survivors > 0 || !strays.is_empty() {
            return Err(StartError::LeftBehind { survivors: left.survivors, strays });
        }
        Ok(After::Quit)
    }
}

/// The UUIDs of all runs that are not over.
fn runs_of(supervisor: &SupervisorHandle) -> HashSet<String> {
    let published = supervisor.all().into_iter().map(|handle| handle.published());
    let with_run = published
        .filter(|published| !matches!(published.state, StateName::Stopped | StateName::Exited | StateName::Fatal | StateName::Lost));
    with_run.filter_map(|published| published.run.as_ref().map(|run| run.uuid.clone())).collect()
}

/// Definitions but those that an earlier daemon was killed over while it unregistered them: that is carried out.
fn still_defined(definitions: Vec<(Name, Definition)>, runs: &[RunRow], store: &Store) -> Vec<(Name, Definition)> {
    let goes = |row: &&RunRow| row.ending.as_ref().is_some_and(|ending| ending.by == EndedBy::Unregister);
    let leaving: HashSet<&Name> = runs.iter().filter(goes).map(|row| &row.name).collect();
    let (gone, still): (Vec<_>, Vec<_>) = definitions.into_iter().partition(|(name, definition)| {
        // Where some of its instances stay, it stays.
        instances::resolve(name, definition.clone()).is_ok_and(|specs| specs.iter().all(|spec| leaving.contains(&spec.name)))
    });
    for (name, _) in gone {
        tracing::info!(%name, "an earlier daemon was about to unregister this, it is carried out");
        drop(store.undefine(&name));
    }
    still
}

/// Registers what was registered at run time with an earlier daemon. What the configuration has by now is the configuration's; what cannot be
/// registered any more is told and kept: the configuration may be what is wrong. Returns the names of that.
async fn register_again(supervisor: &SupervisorHandle, store: &Store, definitions: Vec<(Name, Definition)>) -> BTreeSet<Name> {
    // They may name each other in any order: as long as some can be registered, others may become possible by that.
    let mut left: Vec<(Name, Vec<Spec>)> = Vec::new();
    let mut unregistered = BTreeSet::new();
    for (name, definition) in definitions {
        match instances::resolve(&name, definition) {
            Ok(specs) if specs.iter().any(|spec| supervisor.get(spec.name.as_str()).is_some()) => {
                tracing::warn!(%name, "this was registered at run time, and stands in the configuration, which holds");
                drop(store.undefine(&name));
            }
            Ok(specs) => left.push((name, specs)),
            Err(problems) => {
                let problems = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(%name, problems, "what was registered at run time cannot be registered any more");
                unregistered.insert(name);
            }
        }
    }
    loop {
        let before = left.len();
        let mut refused = Vec::new();
        for (name, specs) in left {
            if let Err(error) = supervisor.register(specs.clone(), false).await {
                refused.push((name, specs, error));
            }
        }
        if refused.is_empty() || refused.len() == before {
            for (name, _, error) in refused {
                tracing::error!(%name, %error, "what was registered at run time cannot be registered any more");
                unregistered.insert(name);
            }
            return unregistered;
        }
        left = refused.into_iter().map(|(name, specs, _)| (name, specs)).collect();
    }
}

/// Starts them in order. What cannot be started is reported, and is up to its restart policy from then on.
async fn start_all(supervisor: &SupervisorHandle, autostart: Vec<SubProcessHandle>) {
    match tokio::time::timeout(STARTS, supervisor.execute_all(autostart, Origin::Autostart)).await {
        Ok(starts) => {
            for (name, error) in starts.into_iter().filter_map(|(name, start)| start.err().map(|error| (name, error))) {
                // What the operating system refused was reported where it happened.
                if !matches!(error, CommandError::SpawnFailed(_)) {
                    tracing::warn!(%name, %error, "not started");
                }
            }
        }
        Err(_) => tracing::info!("some sub-processes take long to start, or wait for others; the daemon does not wait for them"),
    }
}

/// Opens what is written, off the runtime's threads.
async fn open_store(state_dir: &Arc<StateDir>, telemetry: Telemetry) -> Result<Opened, StartError> {
    let state_dir = state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let watcher = StoreWatcher { telemetry, state_dir: state_dir.clone() };
        Store::open(state_dir.path(), Arc::new(watcher))
    })
    .await;
    Ok(opened.map_err(io::Error::other).map_err(system("cannot open the database"))??)
}

async fn leave_all(supervisor: &SupervisorHandle, signals: &mut Signals, service_manager: &ServiceManager) -> Left {
    let (hurry, hurried) = watch::channel(false);
    let slowest = supervisor.all().iter().map(|handle| handle.published().spec.stop_timeout).max().unwrap_or_default() + STOP_MARGIN;
    let quit = supervisor.quit_all(hurried, |left| {
        service_manager.still_stopping(format!("{left} sub-processes to quit"), slowest);
    });
    tokio::pin!(quit);
    loop {
        tokio::select! {
            left = &mut quit => return left,
            signal = signals.hurry() => {
                tracing::warn!(signal, "in a hurry, killing what is left");
                hurry.send_replace(true);
            }
        }
    }
}
