//! What the watch over a run sees and hears, the end of its main process included.

use std::os::fd::AsFd;

use super::super::spec::probe::{self, HealthSource};
use super::super::tree;
use super::*;

impl Actor {
    /// The main has ended and is reaped. What it said last is heard first: it may have named another main process, and left.
    pub(super) fn main_exited(&mut self, status: Option<ExitStatus>) -> Option<Event<Launch, SpawnFailure>> {
        let before = self.live.as_ref().map(|live| live.identity);
        let signs = self.live.as_mut().and_then(|live| live.vigil.as_mut()).map(Vigil::drain).unwrap_or_default();
        for sign in signs {
            let event = self.take_sign(sign);
            self.queued.extend(event);
        }
        self.shared.reaped.notify_one();
        if self.live.as_ref().map(|live| live.identity) != before {
            return self.queued.pop_front();
        }
        let mut oom = false;
        if let Some(live) = &mut self.live {
            (live.main, live.vigil, live.stop_request) = (None, None, None);
            oom = live.group.as_ref().is_some_and(|group| group.oom_killed());
        }
        self.publish_run(|run| (run.pid, run.watched) = (None, None));
        self.published.send_modify(|published| Arc::make_mut(published).listing = None);
        self.queued.push_back(Event::MainExited { status, oom });
        self.queued.pop_front()
    }

    /// What the watch over a run has seen or heard.
    pub(super) fn take_sign(&mut self, sign: Sign) -> Option<Event<Launch, SpawnFailure>> {
        match sign {
            Sign::Ready => {
                self.published.send_modify(|published| Arc::make_mut(published).reloading = false);
                Some(Event::Ready)
            }
            Sign::Health(health) => {
                self.published.send_modify(|published| Arc::make_mut(published).health = Some(health));
                None
            }
            Sign::Unhealthy { message } => {
                self.say(message);
                Some(Event::Unhealthy)
            }
            Sign::Status(text) => {
                self.say(text);
                None
            }
            Sign::MainPid(identity) => self.move_main(identity),
            Sign::Reloading => {
                self.published.send_modify(|published| Arc::make_mut(published).reloading = true);
                None
            }
            Sign::Listed { listing, is_news } => {
                if let (true, Some(service_type)) = (is_news, &self.spec.cgse_service_type) {
                    self.shared.reporter.report(&Notice::Listed { name: &self.spec.name, service_type, listing: &listing });
                }
                self.published.send_modify(|published| Arc::make_mut(published).listing = Some(listing));
                None
            }
            // It ends by itself, which is told when it has.
            Sign::Stopping => None,
            Sign::ExtendTimeout(more) => Some(Event::ExtendTimeout(more)),
        }
    }

    /// Another process of the tree says that it is the main one: the former is an orphan like any other from here on.
    pub(super) fn move_main(&mut self, identity: Identity) -> Option<Event<Launch, SpawnFailure>> {
        let live = self.live.as_mut()?;
        if live.identity == identity {
            return None;
        }
        let held = tree::hold(identity).and_then(|fd| fd.map(readiness::watch).transpose());
        let fd = match held {
            Ok(Some(fd)) => fd,
            Ok(None) => {
                tracing::warn!(name = %self.spec.name, pid = identity.pid, "the main process that it names has ended");
                return None;
            }
            Err(error) => {
                tracing::warn!(name = %self.spec.name, pid = identity.pid, %error, "cannot hold the main process that it names");
                return None;
            }
        };
        self.shared.ledger.main_moved(&live.uuid, identity, fd.get_ref().as_fd());
        live.main = Some(Main { fd, _guard: self.shared.mains.claim(identity.pid) });
        live._root = self.shared.forest.plant(&live.uuid, identity);
        live.identity = identity;
        let watched = self.shared.monitor.add(&live.uuid, identity, live.group.as_ref().map(|group| group.group().clone()));
        self.publish_run(|run| (run.pid, run.watched) = (Some(identity.pid), Some(watched)));
        // The former main may have ended already, and its guard may have been in the reaper's way.
        self.shared.reaped.notify_one();
        Some(Event::MainMoved { pid: identity.pid })
    }

    /// The run under way is watched from here on as the definition now says; one that is being ended is watched no more.
    pub(super) fn redefine_watch(&mut self) {
        let is_up = match self.machine.state() {
            StateName::Starting | StateName::Running => true,
            StateName::Stopped | StateName::Stopping | StateName::Backoff | StateName::Exited | StateName::Fatal | StateName::Lost => false,
        };
        let (Some(live), true) = (&mut self.live, is_up) else { return };
        match &mut live.vigil {
            Some(vigil) => vigil.redefine(&self.spec),
            // One that is to say so itself has no socket to say it at.
            None if is_asked(&self.spec) || self.spec.cgse_service_type.is_some() => {
                let launch = self.begun.as_ref().map(|begun| begun.launch.clone()).unwrap_or_default();
                let (spec, uuid, shared) = (self.spec.clone(), live.uuid.clone(), self.shared.vigil.clone());
                let run = WatchedRun { spec, launch, uuid, main: live.identity, notify: None, shared };
                live.vigil = Some(Vigil::take_over(run, self.machine.state() == StateName::Running));
            }
            None => return,
        }
        let health = live.vigil.as_ref().and_then(Vigil::health);
        let is_same_service = self.published.borrow().spec.cgse_service_type == self.spec.cgse_service_type;
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            published.health = health;
            // What the registry says of another type is not known yet.
            published.listing = published.listing.take().filter(|_| is_same_service);
        });
    }

    pub(super) fn stop_requested(&mut self, result: Result<(), String>) -> Option<Event<Launch, SpawnFailure>> {
        if let Some(live) = &mut self.live {
            live.stop_request = None;
        }
        let error = result.err()?;
        tracing::warn!(name = %self.spec.name, error, "the request to stop failed, the signal is sent instead");
        Some(Event::StopRequestFailed)
    }

    /// Keeps words for the record of the run and for the view.
    pub(super) fn say(&self, message: String) {
        self.published.send_modify(|published| Arc::make_mut(published).message = Some(message));
    }
}

/// Whether it is asked how it is.
fn is_asked(spec: &Spec) -> bool {
    matches!(spec.health, Some(probe::Health { source: HealthSource::Probe(_), .. }))
}
