//! The sequence of events as everybody shares it: many append, many read, and all see the same order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::protocol::event::{Event, Noted, Stamp, StateChanged};
use crate::protocol::reply::Replay;
use crate::protocol::{Cause, EventName, Name, RegistryHealth};

use super::event;
use super::ring::{KEPT, Ring};

/// The events of this run of the daemon. What was appended once is never overtaken: its number, its place in the ring and the order of publishing are
/// decided under one lock, which nobody holds for longer than it takes to append or to copy pointers.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    /// The place after the last event.
    next: watch::Sender<u64>,
}

impl Feed {
    /// An empty one, for the run of the daemon with this UUID.
    pub fn new(daemon: &str) -> Arc<Self> {
        Arc::new(Self { ring: Mutex::new(Ring::new(daemon, KEPT)), next: watch::Sender::new(1) })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `make` makes of the next place in the sequence. Never blocks for long, whoever reads.
    pub fn append(&self, make: impl FnOnce(Stamp) -> Event) {
        let mut ring = self.ring();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let next = ring.append(time, make);
        // Within the lock: a reader that is woken must not be told of less than it was told before.
        self.next.send_replace(next);
    }

    /// As [`Ring::replay`].
    pub fn replay(&self, since: u64, daemon: Option<&str>, limit: usize) -> Replay<Arc<Event>> {
        self.ring().replay(since, daemon, limit)
    }

    /// Tells of each event that is appended from now on: the place after it.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Appends what operators want to see of an event of the daemon; of some there is nothing.
    pub(super) fn take(&self, event: &event::Event<'_>) {
        match *event {
            event::Event::StateChanged { name, from, to, pid, returncode, signal, cause } => self.append(|Stamp { seq, time, daemon }| {
                Event::StateChanged(StateChanged { seq, time, name: name.clone(), from, to, pid, returncode, signal, cause, daemon })
            }),
            event::Event::SpawnFailed { name, errno_name, message } => {
                self.note(EventName::SpawnFailed, name, message, |noted| noted.with("errno_name", errno_name));
            }
            event::Event::Restarting { name, attempt, delay } => {
                let message = format!("will be started again in {:.1} s", delay.as_secs_f64());
                let delay = delay.as_secs_f64();
                self.note(EventName::RestartScheduled, name, &message, |noted| noted.with("attempt", attempt).with("delay", delay));
            }
            event::Event::GaveUp { name, cause, restarts } => {
                self.note(EventName::GaveUp, name, "gave up, it stays down until it is executed again", |noted| {
                    let noted = noted.with("restarts", restarts);
                    match cause.map(Cause::as_str) {
                        Some(cause) => noted.with("cause", cause),
                        None => noted,
                    }
                });
            }
            event::Event::ScheduleMissed { name, times, last, why } => {
                let message = format!("{times} scheduled times passed without a start");
                let last = last.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                self.note(EventName::ScheduleMissed, name, &message, |noted| {
                    noted.with("times", u64::from(times)).with("last", last).with("why", why)
                });
            }
            event::Event::LogProblem { name, stream, problem } => {
                let (word, message) = match problem {
                    Some(problem) => (EventName::LogProblem, problem),
                    None => (EventName::LogRecovered, "the log is well again"),
                };
                self.note(word, name, message, |noted| noted.with("stream", stream));
            }
            event::Event::LogDisk { directory, full, available } => {
                let (word, message) = if full {
                    (EventName::LogDiskFull, "the disk of the logs is full: their oldest parts are removed, new output may be lost")
                } else {
                    (EventName::LogDiskRoom, "there is room on the disk of the logs again")
                };
                self.note_daemon(word, message, |noted| noted.with("directory", directory).with("available", available));
            }
            event::Event::Recovered { adopted, ended, lost, remnants, took } => {
                let message = format!("{adopted} runs of an earlier daemon live on, {ended} ended meanwhile, of {lost} nobody knows how");
                self.note_daemon(EventName::Recovered, &message, |noted| {
                    let noted = noted.with("adopted", adopted).with("ended", ended).with("lost", lost).with("remnants", remnants);
                    noted.with("took", took.as_secs_f64())
                });
            }
            event::Event::StoreTrouble { problem } => self.note_daemon(EventName::StoreTrouble, problem, |noted| noted),
            event::Event::RegistryMissing { problem } => self.note_daemon(EventName::RegistryMissing, problem, |noted| noted),
            event::Event::RegistryEntered => {
                self.note_daemon(EventName::RegistryEntered, "this daemon is in the registry of CGSE", |noted| noted)
            }
            event::Event::Listed { name, service_type, id, health, problem } => {
                let message = match (problem, health) {
                    (Some(problem), _) => problem.to_owned(),
                    (None, RegistryHealth::Missing) => format!("{service_type} is missing from the registry of CGSE"),
                    (None, health) => format!("{service_type} is {health} in the registry of CGSE"),
                };
                self.note(EventName::RegistryHealth, name, &message, |noted| {
                    let noted = noted.with("type", service_type).with("health", health.as_str());
                    match id {
                        Some(id) => noted.with("id", id),
                        None => noted,
                    }
                });
            }
            event::Event::HubMissing { hub, problem } => self.note_daemon(EventName::HubMissing, problem, |noted| noted.with("hub", hub)),
            event::Event::HubReached { hub, dropped } => {
                let message = format!("the {hub} hub of CGSE is reached");
                self.note_daemon(EventName::HubReached, &message, |noted| noted.with("hub", hub).with("dropped", dropped));
            }
            event::Event::StoreHealed { lost_audit, lost_history } => {
                self.note_daemon(EventName::StoreHealed, "what must outlive the daemon is written again", |noted| {
                    noted.with("lost_audit", lost_audit).with("lost_history", lost_history)
                });
            }
            event::Event::StoreSetAside { path, problem, salvaged, unreadable } => {
                let message = format!("the database was damaged, it is set aside: {problem}");
                self.note_daemon(EventName::StoreSetAside, &message, |noted| {
                    noted.with("path", path).with("salvaged", salvaged).with("unreadable", unreadable)
                });
            }
            // Too many, or of no interest to who operates sub-processes; log and metrics have them.
            event::Event::OrphanReaped { .. }
            | event::Event::StrangerRefused
            | event::Event::RequestServed { .. }
            | event::Event::LogRotated { .. }
            | event::Event::LogDropped { .. }
            | event::Event::HubServed { .. }
            | event::Event::Refreshed { .. } => {}
        }
    }

    fn note_daemon(&self, event: EventName, message: &str, details: impl FnOnce(Noted) -> Noted) {
        self.append(|stamp| Event::Noted(details(Noted::new(stamp, event, None, message))));
    }

    fn note(&self, event: EventName, name: &Name, message: &str, details: impl FnOnce(Noted) -> Noted) {
        self.append(|stamp| Event::Noted(details(Noted::new(stamp, event, Some(name.clone()), message))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::StateName;
    use crate::telemetry::Telemetry;

    #[test]
    fn what_is_emitted_is_in_the_sequence() {
        let feed = Feed::new("u");
        let telemetry = Telemetry::new().unwrap().publishing(feed.clone());
        let name: Name = "web".parse().unwrap();
        telemetry.emit(event::Event::StateChanged {
            name: &name,
            from: StateName::Stopped,
            to: StateName::Starting,
            pid: None,
            returncode: None,
            signal: None,
            cause: None,
        });
        telemetry.emit(event::Event::SpawnFailed { name: &name, errno_name: "ENOENT", message: "no such program" });
        telemetry.emit(event::Event::OrphanReaped { pid: 1, status: 0 });
        telemetry.emit(event::Event::GaveUp { name: &name, cause: Some(Cause::SpawnFailed), restarts: 0 });
        telemetry.emit(event::Event::LogProblem { name: &name, stream: "stdout", problem: Some("it was removed") });
        telemetry.emit(event::Event::LogDisk { directory: "/logs", full: true, available: 1 });
        let topics: Vec<_> = feed.replay(1, None, 9).events.iter().map(|event| event.topic().to_string()).collect();
        assert_eq!(
            topics,
            ["state.web", "process.spawn_failed.web", "process.gave_up.web", "process.log_problem.web", "daemon.log_disk_full"]
        );
        assert_eq!(*feed.watch().borrow(), 6);
    }

    #[test]
    fn many_threads_make_one_sequence() {
        let feed = Feed::new("u");
        let name: Name = "web".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| feed.note(EventName::GaveUp, &name, "x", |noted| noted)));
            }
        });
        let replay = feed.replay(1, None, usize::MAX);
        assert!(replay.complete && replay.next == 2001);
        assert!(replay.events.iter().zip(1..).all(|(event, seq)| event.seq() == seq));
    }
}
