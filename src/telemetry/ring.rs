//! The last events in their sequence. Pure: the time of each is an argument.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::event::{Event, Stamp};
use crate::protocol::reply::Replay;

/// How many events are kept: with messages of at most a thousand characters some megabytes at the worst, and usually below one.
pub const KEPT: usize = 4096;

/// Numbers events from 1 and keeps the last of them.
#[derive(Debug)]
pub struct Ring {
    daemon: Arc<str>,
    kept: VecDeque<Arc<Event>>,
    /// Of the event to come.
    next: u64,
    room: usize,
}

impl Ring {
    /// An empty one with room for so many, of the run of the daemon with this UUID.
    pub fn new(daemon: &str, room: usize) -> Self {
        Self { daemon: daemon.into(), kept: VecDeque::new(), next: 1, room: room.max(1) }
    }

    /// Appends what `make` makes of the next place in the sequence. Returns the place after it.
    pub fn append(&mut self, time: f64, make: impl FnOnce(Stamp) -> Event) -> u64 {
        let event = make(Stamp { seq: self.next, time, daemon: self.daemon.clone() });
        if self.kept.len() >= self.room {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(event));
        self.next += 1;
        self.next
    }

    /// The events from `since` on, at most `limit` of them, as the command `events` answers: where those of another run are meant (`daemon` says
    /// another one, or `since` lies in a future that this one has not reached), all that are kept, and `complete` is false.
    pub fn replay(&self, since: u64, daemon: Option<&str>, limit: usize) -> Replay<Arc<Event>> {
        let wanted = since.max(1);
        let of_another_run = wanted > self.next || daemon.is_some_and(|daemon| daemon != &*self.daemon);
        let wanted = if of_another_run { 1 } else { wanted };
        let oldest = self.next - self.kept.len() as u64;
        let first = wanted.max(oldest);
        // What is left out at the front is at most what is kept, which an usize holds.
        let skip = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        let events: Vec<_> = self.kept.iter().skip(skip).take(limit).cloned().collect();
        Replay {
            next: first + events.len() as u64,
            events,
            complete: !of_another_run && wanted == first,
            daemon: self.daemon.as_ref().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::EventName;
    use crate::protocol::event::Noted;
    use proptest::prelude::*;

    fn note(stamp: Stamp) -> Event {
        Event::Noted(Noted::new(stamp, EventName::GaveUp, None, "x"))
    }

    fn filled(count: u64, room: usize) -> Ring {
        let mut ring = Ring::new("u", room);
        for _ in 0..count {
            ring.append(1.0, note);
        }
        ring
    }

    fn seqs(replay: &Replay<Arc<Event>>) -> Vec<u64> {
        replay.events.iter().map(|event| event.seq()).collect()
    }

    #[test]
    fn what_was_dropped_or_of_another_run_is_not_complete() {
        let ring = filled(10, 4);
        for (since, daemon, limit, expected, next, complete) in [
            (7, None, 9, vec![7, 8, 9, 10], 11, true),
            (9, Some("u"), 9, vec![9, 10], 11, true),
            (11, Some("u"), 9, vec![], 11, true),
            (6, None, 9, vec![7, 8, 9, 10], 11, false),
            (0, None, 9, vec![7, 8, 9, 10], 11, false),
            (12, None, 9, vec![7, 8, 9, 10], 11, false),
            (u64::MAX, None, 9, vec![7, 8, 9, 10], 11, false),
            (9, Some("other"), 9, vec![7, 8, 9, 10], 11, false),
            (7, None, 2, vec![7, 8], 9, true),
            (7, None, 0, vec![], 7, true),
        ] {
            let replay = ring.replay(since, daemon, limit);
            assert_eq!((seqs(&replay), replay.next, replay.complete), (expected, next, complete), "since {since}");
        }
        let empty = filled(0, 4).replay(1, None, 9);
        assert_eq!((empty.next, empty.complete, empty.daemon.as_str()), (1, true, "u"));
    }

    proptest! {
        /// Whoever goes on from `next` sees every event once, in order, and is told whenever one is missing.
        #[test]
        fn a_reader_misses_nothing_unheard(room in 1_usize..20, steps in prop::collection::vec((any::<bool>(), 1_usize..30), 1..60)) {
            let (mut ring, mut made) = (Ring::new("u", room), 0_u64);
            let (mut seen, mut since) = (Vec::new(), 1);
            for (append, number) in steps {
                if append {
                    for _ in 0..number {
                        made += 1;
                        prop_assert_eq!(ring.append(1.0, note), made + 1);
                    }
                    prop_assert!(ring.kept.len() <= room);
                } else {
                    let replay = ring.replay(since, Some("u"), number);
                    let first = replay.events.first().map_or(replay.next, |event| event.seq());
                    prop_assert_eq!(replay.complete, first == since, "told exactly when something is missing");
                    prop_assert_eq!(seqs(&replay), (first..replay.next).collect::<Vec<_>>());
                    prop_assert!(!replay.events.is_empty() || replay.next == made + 1, "empty only when there is no more");
                    seen.extend(seqs(&replay));
                    since = replay.next;
                }
            }
            prop_assert!(seen.is_sorted_by(|a, b| a < b));
        }
    }
}
