//! From a wish to a process that is watched.

use std::os::fd::AsFd;

use super::super::tree;
use super::*;
use crate::sys::crash;

impl Actor {
    pub(super) fn spawn(&mut self, launch: Launch, origin: Origin) {
        let uuid = uuid::Uuid::now_v1(&self.shared.node).to_string();
        self.begun = Some(Begun::now(uuid, launch, origin));
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            (published.message, published.reloading, published.outdated, published.listing) = (None, false, false, None);
            published.health = self.spec.health.as_ref().map(|_| Health::Unknown);
            published.starts += 1;
        });
        match self.shared.gate.open(&self.spec) {
            Some(gate) => self.spawning = Some(Spawning { stage: Stage::Gate(gate), notify: None, killer: JoinSet::new() }),
            None => self.make_process(),
        }
    }

    pub(super) fn make_process(&mut self) {
        let Some(begun) = self.begun.clone() else { return };
        let (uuid, mut launch) = (begun.uuid.clone(), begun.launch.clone());
        let alone = match self.shared.strays.of(&self.spec.name) {
            Some(pid) => Err(failure(Operation::BeAlone(pid), libc::EEXIST, &self.spec)),
            None => Ok(()),
        };
        let notify = match alone.and_then(|()| self.notify_socket(&uuid)) {
            Ok(notify) => notify,
            Err(failed) => {
                let stage = Stage::Process(std::future::ready(Err(failed)).boxed());
                self.spawning = Some(Spawning { stage, notify: None, killer: JoinSet::new() });
                return;
            }
        };
        if let Some(notify) = &notify {
            launch.notify_socket = Some(notify.path().to_owned());
            launch.env.extend(notify.environment(&self.spec));
        }
        crash::point("before-intent");
        let intent = Intent {
            name: &self.spec.name,
            uuid: &uuid,
            launch: &begun.launch,
            start_sum: self.spec.start_sum,
            origin: begun.origin,
            notify: notify.as_ref().map(AsFd::as_fd),
        };
        let written = self.shared.ledger.intend(&intent);
        let stage = Stage::Process(self.shared.spawner.clone().spawn(self.spec.clone(), launch, uuid, written).boxed());
        self.spawning = Some(Spawning { stage, notify, killer: JoinSet::new() });
    }

    /// Where a sub-process that says so itself will say that it is ready.
    pub(super) fn notify_socket(&self, uuid: &str) -> Result<Option<NotifySocket>, SpawnFailure> {
        if !NotifySocket::is_wanted(&self.spec) {
            return Ok(None);
        }
        let bound = NotifySocket::bind(&self.shared.runtime_dir, uuid);
        bound.map(Some).map_err(|error| failure(Operation::BindNotify, error.raw_os_error().unwrap_or(libc::EIO), &self.spec))
    }

    pub(super) fn withdraw_spawn(&mut self) {
        if matches!(&self.spawning, Some(Spawning { stage: Stage::Gate(_), .. })) {
            self.spawning = None;
            self.queued.push_back(Event::SpawnWithdrawn);
        }
    }

    /// A new process is ours: keeps watch over it from here on.
    pub(super) fn take_process(&mut self, spawned: Spawned, notify: Option<NotifySocket>) -> Event<Launch, SpawnFailure> {
        let Spawned { identity, fd, guard, group, started, started_at, leases } = spawned;
        let Some(begun) = self.begun.as_mut().map(Arc::make_mut) else {
            return self.give_up_process(identity, guard, &std::io::Error::from_raw_os_error(libc::ECANCELED));
        };
        (begun.pid, begun.started, begun.started_at) = (Some(identity.pid), started, started_at);
        let (uuid, launch) = (begun.uuid.clone(), begun.launch.clone());
        let fd = match readiness::watch(fd) {
            Ok(fd) => fd,
            Err(error) => return self.give_up_process(identity, guard, &error),
        };
        crash::point("before-record");
        self.shared.ledger.begun(&ledger::Begun { uuid: &uuid, main: identity, notify: notify.is_some(), started, started_at });
        crash::point("after-record");
        let watched: Watched = self.shared.monitor.add(&uuid, identity, group.as_ref().map(|group| group.group().clone()));
        let number = self.shared.starts.fetch_add(1, Ordering::Relaxed);
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            published.run =
                Some(PublishedRun { uuid: uuid.clone(), pid: Some(identity.pid), started, started_at, number, watched: Some(watched) });
        });
        let root = self.shared.forest.plant(&uuid, identity);
        let needs_vigil = self.spec.ready.is_some() || self.spec.health.is_some();
        let vigil = needs_vigil.then(|| {
            let (spec, uuid, shared) = (self.spec.clone(), uuid.clone(), self.shared.vigil.clone());
            Vigil::begin(WatchedRun { spec, launch, uuid, main: identity, notify, shared })
        });
        let main = Some(Main { fd, _guard: guard });
        self.live = Some(Live {
            uuid,
            identity,
            main,
            ender: None,
            vigil,
            refusal: None,
            stop_request: None,
            ending: None,
            group,
            _leases: leases,
            _root: root,
        });
        // An orphan may have stood behind this child while it was nobody's.
        self.shared.reaped.notify_one();
        Event::Spawned { pid: identity.pid }
    }

    /// A process that cannot be watched must not run: it is killed, and its guard keeps the reaper of orphans away until it is reaped.
    pub(super) fn give_up_process(&self, identity: Identity, guard: MainGuard, error: &std::io::Error) -> Event<Launch, SpawnFailure> {
        let errno = error.raw_os_error().unwrap_or(libc::ENOMEM);
        if let Ok(Some(fd)) = tree::hold(identity) {
            drop(fd.send_signal(Signal::KILL.number()));
        }
        drop(guard);
        self.spawn_failed(failure(Operation::Watch, errno, &self.spec))
    }

    pub(super) fn spawn_failed(&self, failure: SpawnFailure) -> Event<Launch, SpawnFailure> {
        self.say(failure.to_string());
        self.shared.reporter.report(&Notice::SpawnFailed { name: &self.spec.name, failure: &failure });
        if let Some(begun) = &self.begun {
            self.shared.ledger.gone(&begun.uuid);
        }
        self.shared.reaped.notify_one();
        Event::SpawnFailed { failure }
    }
}
