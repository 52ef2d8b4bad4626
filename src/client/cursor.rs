//! Where in the sequence of events a reader is. Pure; what is missing is found by counting, whichever way events come.

use serde::Deserialize;

use crate::protocol::reply::Replay;

/// What of an event says where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Place {
    pub(super) seq: u64,
    pub(super) daemon: String,
}

/// What an event that came by itself is to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    /// Seen already.
    Known,
    /// The one that follows.
    Next,
    /// Not the one that follows: something has to be asked for first.
    Ahead,
}

/// What is lost for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// These, the daemon keeps them no more.
    Dropped { first: u64, last: u64 },
    /// The daemon is another run of it: whether the former one had more events than were seen, and what they were, nobody knows.
    Restarted { seen: u64 },
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dropped { first, last } if first == last => write!(f, "event {first} is lost: the daemon keeps only the last ones"),
            Self::Dropped { first, last } => write!(f, "events {first} to {last} are lost: the daemon keeps only the last ones"),
            Self::Restarted { seen } => {
                write!(f, "the daemon was started anew: what the former one did after event {seen} is lost, if it did anything")
            }
        }
    }
}

/// A place in the sequence of one run of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// `None` until an answer has told.
    daemon: Option<String>,
    next: u64,
    /// Whoever said no place to begin at takes what there is.
    indifferent: bool,
}

impl Cursor {
    /// A reader that wants the events from `since` on, or where that is not said, all that are kept.
    pub(super) fn new(since: Option<u64>) -> Self {
        Self { daemon: None, next: since.unwrap_or(1).max(1), indifferent: since.is_none() }
    }

    /// The first event that is wanted.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The run of the daemon that it counts in, once that is known.
    pub(super) fn daemon(&self) -> Option<&str> {
        self.daemon.as_deref()
    }

    /// Judges an event that was published. After [`Is::Next`] the cursor is behind it.
    pub(super) fn meet(&mut self, place: &Place) -> Is {
        if self.daemon.as_ref() != Some(&place.daemon) {
            Is::Ahead
        } else if place.seq < self.next {
            Is::Known
        } else if place.seq == self.next {
            self.next += 1;
            Is::Next
        } else {
            Is::Ahead
        }
    }

    /// Goes behind an answer to the question for all from [`Self::next`] on; says what is lost between.
    pub(super) fn pass<E>(&mut self, replay: &Replay<E>) -> Vec<Loss> {
        let first = replay.next.saturating_sub(replay.events.len() as u64);
        let mut lost = Vec::new();
        let restarted = self.daemon.as_ref().is_some_and(|daemon| *daemon != replay.daemon) || self.next > replay.next;
        let wanted = if restarted {
            lost.push(Loss::Restarted { seen: self.next - 1 });
            1
        } else {
            self.next
        };
        if first > wanted && !self.indifferent {
            lost.push(Loss::Dropped { first: wanted, last: first - 1 });
        }
        *self = Self { daemon: Some(replay.daemon.clone()), next: replay.next, indifferent: false };
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A daemon that may be started anew, and keeps its last events.
    #[derive(Debug)]
    struct Fake {
        run: u32,
        made: u64,
        room: u64,
    }

    impl Fake {
        fn place(&self, seq: u64) -> Place {
            Place { seq, daemon: self.run.to_string() }
        }

        fn replay(&self, since: u64, daemon: Option<&str>) -> Replay<u64> {
            let other = since > self.made + 1 || daemon.is_some_and(|daemon| daemon != self.run.to_string());
            let oldest = (self.made + 1).saturating_sub(self.room).max(1);
            let first = if other { 1 } else { since }.max(oldest);
            let (events, next) = ((first..=self.made).collect(), self.made + 1);
            Replay { events, next, complete: !other && first == since, daemon: self.run.to_string() }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Something happens; is it heard?
        Event(bool),
        Restart,
        /// Nothing was heard for a while.
        Idle,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => any::<bool>().prop_map(Step::Event),
            1 => Just(Step::Restart),
            4 => Just(Step::Idle),
        ]
    }

    proptest! {
        /// Every event is shown once and in order, or told to be lost, whatever is heard of it.
        #[test]
        fn nothing_is_missed_unheard(steps in prop::collection::vec(step(), 0..200), room in 1_u64..12) {
            let mut daemon = Fake { run: 0, made: 0, room };
            let mut cursor = Cursor::new(None);
            let mut shown: Vec<(u32, u64)> = Vec::new();
            // The run that the cursor came from, the run it came to, and what was told then.
            let mut lost: Vec<(u32, u32, Loss)> = Vec::new();
            let mut happened = Vec::new();
            let catch_up = |cursor: &mut Cursor, daemon: &Fake, shown: &mut Vec<_>, lost: &mut Vec<_>| {
                let replay = daemon.replay(cursor.next(), cursor.daemon());
                let from = cursor.daemon().map_or(daemon.run, |run| run.parse().unwrap());
                let losses = cursor.pass(&replay);
                lost.extend(losses.into_iter().map(|loss| (from, daemon.run, loss)));
                shown.extend(replay.events.iter().map(|seq| (daemon.run, *seq)));
            };
            catch_up(&mut cursor, &daemon, &mut shown, &mut lost);
            for step in steps.into_iter().chain([Step::Idle]) {
                match step {
                    Step::Event(heard) => {
                        daemon.made += 1;
                        happened.push((daemon.run, daemon.made));
                        if heard {
                            match cursor.meet(&daemon.place(daemon.made)) {
                                Is::Next => shown.push((daemon.run, daemon.made)),
                                Is::Known => prop_assert!(false, "it cannot be known"),
                                Is::Ahead => catch_up(&mut cursor, &daemon, &mut shown, &mut lost),
                            }
                            prop_assert_eq!(cursor.meet(&daemon.place(daemon.made)), Is::Known);
                        }
                    }
                    Step::Restart => daemon = Fake { run: daemon.run + 1, made: 0, ..daemon },
                    Step::Idle => catch_up(&mut cursor, &daemon, &mut shown, &mut lost),
                }
            }
            prop_assert!(shown.is_sorted_by(|a, b| a < b), "in order and once");
            for event in happened.iter().filter(|event| !shown.contains(event)) {
                let told = lost.iter().any(|(from, to, loss)| match loss {
                    Loss::Dropped { first, last } => *to == event.0 && (*first..=*last).contains(&event.1),
                    Loss::Restarted { seen } => (*from == event.0 && *seen < event.1) || (*from < event.0 && event.0 < *to),
                });
                prop_assert!(told, "{event:?} is missing, {lost:?}");
            }
            for (_, run, loss) in &lost {
                if let Loss::Dropped { first, last } = loss {
                    prop_assert!((*first..=*last).all(|seq| !shown.contains(&(*run, seq))), "{loss:?} was shown");
                }
            }
        }
    }

    #[test]
    fn who_says_where_to_begin_is_told_of_what_is_gone() {
        let replay = Replay { events: vec![5, 6], next: 7, complete: false, daemon: "u".into() };
        assert_eq!(Cursor::new(None).pass(&replay), []);
        assert_eq!(Cursor::new(Some(3)).pass(&replay), [Loss::Dropped { first: 3, last: 4 }]);
        assert_eq!(Cursor::new(Some(9)).pass(&replay), [Loss::Restarted { seen: 8 }, Loss::Dropped { first: 1, last: 4 }]);
        assert_eq!(Cursor::new(Some(0)).next(), 1);
    }
}
