//! What becomes of the connection to a hub, from what libzmq tells of it and from what the hub takes. Pure: the time is an argument.
//!
//! Who only sends hears nothing back, so a hub counts as reached once the connection has held for a while: one that is closed again, or in which
//! nobody answers heartbeats, would else be reached and missing in turn for ever.

use std::time::{Duration, Instant};

/// A heartbeat of ZeroMQ is sent so often.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// Who does not answer one for so long is gone.
pub(super) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long who takes a connection may leave it open without saying what it is. libzmq gives up who says nothing before that, and waits for ever for more of
/// what begins as some old version of its protocol would, and any line of text does.
const GREETING: Duration = Duration::from_secs(4);
/// How long a connection must hold before the hub counts as reached: longer than it takes to see that nobody answers.
const HOLD: Duration = Duration::from_secs(7);
/// How long a hub may have no room for what is sent before it counts as missing.
const STUCK: Duration = Duration::from_secs(2);

/// Why a hub is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody takes connections there, or its address cannot be found.
    Unreachable,
    /// Somebody takes connections there who says nothing, or says that it is something else.
    Foreign,
    /// It was connected, and closed the connection or does not answer heartbeats.
    Lost,
    /// It is connected and does not read.
    Full,
}

impl Why {
    /// A sentence for people.
    pub fn sentence(self, endpoint: &str) -> String {
        match self {
            Self::Unreachable => format!("nobody takes connections at {endpoint}"),
            Self::Foreign => format!("what listens at {endpoint} is no hub of CGSE: it takes connections, and does not answer as one"),
            Self::Lost => format!("the hub at {endpoint} has closed the connection, or does not answer any more"),
            Self::Full => format!("the hub at {endpoint} does not read what it is sent"),
        }
    }
}

/// Whether a hub is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nobody can tell yet.
    Unknown,
    /// It is connected.
    Reached,
    /// It is not, or takes nothing.
    Missing(Why),
}

/// What is seen of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is connected, and nothing was said yet.
    Connected,
    /// It will be connected again after a while.
    Retried,
    /// Both sides have said what they are.
    Greeted,
    /// The other side is of another kind, or what it says cannot be understood.
    Refused,
    /// The connection is closed.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Away(Why),
    Up {
        /// Since when all is well with it.
        since: Instant,
        /// Since when it has had no room.
        full: Option<Instant>,
    },
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    state: State,
    /// Since when somebody has taken the connection that is tried at present, and not yet said what it is.
    answered: Option<Instant>,
    reach: Reach,
}

impl Link {
    pub(super) const fn new() -> Self {
        Self { state: State::Unknown, answered: None, reach: Reach::Unknown }
    }

    /// Both sides have said what they are, and nobody has closed it.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// As it was last told.
    pub(super) const fn reach(&self) -> Reach {
        self.reach
    }

    pub(super) fn heed(&mut self, sign: Sign, now: Instant) {
        match sign {
            Sign::Connected => self.answered = Some(now),
            // Where somebody has taken the connection, what becomes of that is told besides.
            Sign::Retried => {
                if self.answered.take().is_none() {
                    self.state = State::Away(Why::Unreachable);
                }
            }
            Sign::Greeted => (self.state, self.answered) = (State::Up { since: now, full: None }, None),
            Sign::Refused => self.state = State::Away(Why::Foreign),
            Sign::Closed => {
                let why = if self.is_up() { Why::Lost } else { Why::Foreign };
                (self.state, self.answered) = (State::Away(why), None);
            }
        }
    }

    /// When who has taken the connection is to have said what it is.
    pub(super) fn greeting_due(&self) -> Option<Instant> {
        self.answered.map(|since| since + GREETING)
    }

    /// It has room for a message, or has taken one.
    pub(super) fn has_room(&mut self, now: Instant) {
        if let State::Up { since, full } = &mut self.state
            && full.take().is_some()
        {
            *since = now;
        }
    }

    /// It had no room for one.
    pub(super) fn is_full(&mut self, now: Instant) {
        if let State::Up { full, .. } = &mut self.state {
            full.get_or_insert(now);
        }
    }

    /// Tells how it stands now. Returns when that may change by nothing but time.
    pub(super) fn look(&mut self, now: Instant) -> Option<Instant> {
        let (reach, next) = match self.state {
            State::Unknown => (Reach::Unknown, None),
            State::Away(why) => (Reach::Missing(why), None),
            State::Up { full: Some(full), .. } if now >= full + STUCK => (Reach::Missing(Why::Full), None),
            State::Up { full: Some(full), .. } => (self.reach, Some(full + STUCK)),
            State::Up { since, full: None } if now >= since + HOLD => (Reach::Reached, None),
            // One that was reached and had no room for a moment was reached all the time.
            State::Up { full: None, .. } if self.reach == Reach::Reached => (Reach::Reached, None),
            State::Up { since, full: None } => (self.reach, Some(since + HOLD)),
        };
        self.reach = reach;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(signs: &[Sign]) -> Link {
        let mut link = Link::new();
        signs.iter().for_each(|sign| link.heed(*sign, Instant::now()));
        link.look(Instant::now());
        link
    }

    #[test]
    fn each_reason_is_told_as_it_is() {
        use Sign::*;
        for (signs, expected) in [
            (&[][..], Reach::Unknown),
            (&[Connected], Reach::Unknown),
            (&[Retried], Reach::Missing(Why::Unreachable)),
            (&[Connected, Refused, Retried, Closed], Reach::Missing(Why::Foreign)),
            // libzmq does not say why where the other side is of another kind.
            (&[Retried, Connected, Closed], Reach::Missing(Why::Foreign)),
            (&[Connected, Greeted, Closed], Reach::Missing(Why::Lost)),
            (&[Connected, Greeted, Closed, Retried], Reach::Missing(Why::Unreachable)),
            // Nobody has been told anything yet, and it has not held long enough.
            (&[Connected, Greeted], Reach::Unknown),
            (&[Retried, Connected, Greeted], Reach::Unknown),
        ] {
            assert_eq!(seen(signs).reach(), expected, "{signs:?}");
        }
        for why in [Why::Unreachable, Why::Foreign, Why::Lost, Why::Full] {
            assert!(why.sentence("tcp://127.0.0.1:1").contains("tcp://127.0.0.1:1"));
        }
    }

    #[test]
    fn a_hub_is_reached_once_it_holds_and_missing_once_it_is_stuck() {
        let start = Instant::now();
        let mut link = Link::new();
        link.heed(Sign::Retried, start);
        link.look(start);
        link.heed(Sign::Connected, start);
        link.heed(Sign::Greeted, start);
        assert_eq!((link.look(start), link.reach()), (Some(start + HOLD), Reach::Missing(Why::Unreachable)));
        assert_eq!((link.look(start + HOLD), link.reach()), (None, Reach::Reached));
        let full = start + HOLD;
        link.is_full(full);
        link.is_full(full + STUCK / 2);
        assert_eq!((link.look(full), link.reach()), (Some(full + STUCK), Reach::Reached));
        // Room for a moment, before anybody was told.
        link.has_room(full + STUCK / 2);
        assert_eq!((link.look(full + STUCK / 2), link.reach()), (None, Reach::Reached));
        link.is_full(full);
        assert_eq!((link.look(full + STUCK), link.reach()), (None, Reach::Missing(Why::Full)));
        let room = full + 2 * STUCK;
        link.has_room(room);
        assert_eq!((link.look(room), link.reach()), (Some(room + HOLD), Reach::Missing(Why::Full)));
        link.has_room(room + HOLD);
        assert_eq!((link.look(room + HOLD), link.reach()), (None, Reach::Reached));
    }

    #[test]
    fn who_takes_a_connection_is_to_say_what_it_is() {
        let start = Instant::now();
        let mut link = Link::new();
        assert_eq!(link.greeting_due(), None);
        link.heed(Sign::Connected, start);
        assert_eq!(link.greeting_due(), Some(start + GREETING));
        link.heed(Sign::Greeted, start);
        assert_eq!(link.greeting_due(), None);
        link.heed(Sign::Closed, start);
        link.heed(Sign::Connected, start);
        link.heed(Sign::Closed, start);
        assert_eq!(link.greeting_due(), None);
    }

    proptest! {
        /// However a hub comes and goes, who is told of each change is told seldom: between two times that it is reached it was held on to.
        #[test]
        fn a_hub_that_comes_and_goes_is_not_told_each_time(steps in prop::collection::vec((0_u8..7, 0_u64..4000), 1..200)) {
            let mut now = Instant::now();
            let (mut link, mut told) = (Link::new(), Vec::new());
            let mut last = link.reach();
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 => link.heed(Sign::Connected, now),
                    1 => link.heed(Sign::Retried, now),
                    2 => link.heed(Sign::Greeted, now),
                    3 => link.heed(Sign::Refused, now),
                    4 => link.heed(Sign::Closed, now),
                    5 => link.has_room(now),
                    _ => link.is_full(now),
                }
                let next = link.look(now);
                prop_assert!(next.is_none_or(|next| next > now), "it never asks to be looked at again at once");
                if link.reach() == Reach::Reached && last != Reach::Reached {
                    told.push(now);
                }
                prop_assert!(link.is_up() || link.reach() != Reach::Reached);
                last = link.reach();
            }
            prop_assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= HOLD));
        }
    }
}
