//! Taking over what an earlier daemon left.

use std::io;
use std::os::fd::AsFd;

use super::super::adopt::{Adoption, FoundMain, FoundRun, FoundState, LastRun};
use super::super::machine::{Found, Recovered, Run};
use super::super::restart::Restarts;
use super::live::status_of_zombie;
use super::*;
use crate::procfs;
use crate::sys::pidfd::PidFd;

/// What is told of a process that lives on while its definition has changed.
const OUTDATED: &str = "it was started with an earlier definition and runs on; `restart` or `reload` starts it with the present one";

impl Actor {
    /// Takes over what was found, and goes on from there.
    ///
    /// # Errors
    /// A living process cannot be watched: then it must not be taken for one that has ended, and the daemon cannot do its work.
    pub(super) fn adopt(&mut self, adoption: Adoption) -> io::Result<()> {
        let Adoption { restarts, found } = adoption;
        match found {
            FoundState::AtRest { state, last, start } => self.adopt_rest(restarts, state, last, start),
            FoundState::Run(run) => self.adopt_run(restarts, *run)?,
        }
        while let Some(event) = self.queued.pop_front() {
            self.advance(event);
        }
        // What is written of it may be of an earlier life, and must not be believed by a daemon that comes after this one was killed.
        self.shared.ledger.stands(&self.spec.name, &self.standing());
        Ok(())
    }

    fn adopt_rest(&mut self, restarts: Restarts, state: StateName, last: Option<LastRun>, start: bool) {
        let end = last.as_ref().map(|last| last.end);
        if let Some(LastRun { uuid, started, started_at, message, .. }) = last {
            let number = self.shared.starts.fetch_add(1, Ordering::Relaxed);
            self.published.send_modify(|published| {
                let published = Arc::make_mut(published);
                published.message = message;
                published.run = Some(PublishedRun { uuid, pid: None, started, started_at, number, watched: None });
            });
        }
        let found = Found::AtRest { state, end, start };
        self.queued.push_back(Event::Recovered(Recovered { launch: Launch::default(), restarts, found }));
    }

    fn adopt_run(&mut self, restarts: Restarts, run: FoundRun) -> io::Result<()> {
        let FoundRun { uuid, launch, origin, identity, main, started, started_at, ready, outdated, ending, notify, group } = run;
        let group = group.map(Arc::new);
        let (held, ended, recorded) = match main {
            FoundMain::Held(fd) => match has_ended(&fd, identity.pid) {
                Some(status) => (None, Some(Some(status)), None),
                None => (Some(readiness::watch(fd)?), None, None),
            },
            FoundMain::Ended(status) => (None, Some(status), None),
            FoundMain::Recorded(end, message) => (None, None, Some((end, message))),
        };
        let pid = held.as_ref().map(|_| identity.pid);
        let was = Some(identity.pid).filter(|pid| *pid != 0);
        let watched = pid.map(|_| self.shared.monitor.add(&uuid, identity, group.as_ref().map(|group| group.group().clone())));
        let number = self.shared.starts.fetch_add(1, Ordering::Relaxed);
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            published.health = self.spec.health.as_ref().filter(|_| pid.is_some()).map(|_| Health::Unknown);
            published.message = recorded.as_ref().and_then(|(_, message)| message.clone());
            published.outdated = outdated && pid.is_some();
            if published.outdated {
                published.message = Some(OUTDATED.to_owned());
                tracing::warn!(name = %self.spec.name, pid, "{OUTDATED}");
            }
            published.run = Some(PublishedRun { uuid: uuid.clone(), pid, started, started_at, number, watched });
        });
        if recorded.is_none() {
            let begun = Begun { uuid: uuid.clone(), launch: launch.clone(), origin, pid: was, started, started_at };
            self.begun = Some(Arc::new(begun));
        }
        if let Some(main) = &held {
            self.shared.ledger.held(&uuid, main.get_ref().as_fd(), notify.as_ref().map(AsFd::as_fd));
        }
        let root = self.shared.forest.adopt(&uuid, identity);
        let needs_vigil = pid.is_some() && (self.spec.ready.is_some() || self.spec.health.is_some());
        let vigil = needs_vigil.then(|| {
            let (spec, launch, uuid) = (self.spec.clone(), launch.clone(), uuid.clone());
            let run = WatchedRun { spec, launch, uuid, main: identity, notify, shared: self.shared.vigil.clone() };
            if ready && self.spec.ready.is_some() { Vigil::resume(run) } else { Vigil::begin(run) }
        });
        let main = held.map(|fd| Main { fd, _guard: self.shared.mains.claim(identity.pid) });
        let leases = streams::leases(self.shared.spawner.outputs(), &self.spec);
        let oom = group.as_ref().is_some_and(|group| group.oom_killed());
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

        let found = match (recorded, ended) {
            (Some((end, _)), _) => Found::Remains { end, then_start: ending.is_some_and(|(_, then_start)| then_start) },
            (None, Some(status)) => Found::Ended { started, ready, ending, status, oom },
            (None, None) => Found::Living { run: Run { pid: identity.pid, started }, ready, ending },
        };
        self.queued.push_back(Event::Recovered(Recovered { launch, restarts, found }));
        Ok(())
    }

    /// Descriptors of what lives, for a later daemon: this one is about to go, and decides nothing from here on. What was heard so far is acted upon
    /// before; what comes later waits for the later daemon, in the kernel.
    pub(super) fn hand_over(&mut self) -> Option<HandedOver> {
        let signs = self.live.as_mut().and_then(|live| live.vigil.as_mut()).map(Vigil::drain).unwrap_or_default();
        for sign in signs {
            let event = self.take_sign(sign);
            self.queued.extend(event);
        }
        while let Some(event) = self.queued.pop_front() {
            self.advance(event);
        }
        self.handed_over = true;
        let live = self.live.as_mut()?;
        let main = live.main.as_ref().and_then(|main| main.fd.get_ref().as_fd().try_clone_to_owned().ok());
        let notify = live.vigil.as_mut().and_then(Vigil::hand_over);
        Some(HandedOver { uuid: live.uuid.clone(), main, notify })
    }
}

/// How it ended, where it has ended already and anybody can tell: it is not told as running first.
fn has_ended(fd: &PidFd, pid: u32) -> Option<ExitStatus> {
    match fd.reap() {
        Ok(status) => status,
        // It is not the daemon's child, and may have ended all the same.
        Err(_) if procfs::read_stat(pid).is_ok_and(|stat| stat.is_zombie()) => status_of_zombie(fd, pid),
        Err(_) => None,
    }
}
