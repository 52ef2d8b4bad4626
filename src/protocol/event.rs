//! What happened: the entries of the gap-free sequence that `events` replays and the PUB sockets send.
//!
//! Two kinds of maps share the sequence. A change of state has the keys of [`StateChanged`] and no key `event`; everything else is a [`Noted`], whose
//! key `event` says what it is. A published message is two frames, [`Event::topic`] and the map.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{Cause, EventName, Name, StateName};

/// The longest `message` of an event, in characters: it bounds what the ring of the last events can take.
pub const MAX_EVENT_MESSAGE: usize = 1000;

/// What every event has: its place in the sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// From 1 at each start of the daemon, without gaps.
    pub seq: u64,
    /// When it happened, Unix seconds.
    pub time: f64,
    /// The run of the daemon that `seq` counts in: the `uuid` of `info`.
    pub daemon: Arc<str>,
}

/// One entry of the sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// A sub-process went from one state to another.
    StateChanged(StateChanged),
    /// Anything else.
    Noted(Noted),
}

/// A sub-process went from one state to another. Topic `state.<name>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateChanged {
    /// As in [`Stamp`].
    pub seq: u64,
    /// As in [`Stamp`].
    pub time: f64,
    /// Its registered name.
    pub name: Name,
    /// The state it left.
    pub from: StateName,
    /// The state it is in now.
    pub to: StateName,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// How the last run ended, as in [`super::reply::View`].
    pub returncode: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why it ended.
    pub cause: Option<Cause>,
    /// As in [`Stamp`].
    pub daemon: Arc<str>,
}

/// Something happened that is no change of state. Topic `process.<event>.<name>`, or `daemon.<event>` where it is about no sub-process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    /// As in [`Stamp`].
    pub seq: u64,
    /// As in [`Stamp`].
    pub time: f64,
    /// What happened: one of [`EventName`], or a word of a newer daemon.
    pub event: String,
    /// The sub-process it is about; null where it is about the daemon itself.
    pub name: Option<Name>,
    /// A sentence for a person, at most [`MAX_EVENT_MESSAGE`] characters.
    pub message: String,
    /// For programs: which there are depends on `event`.
    pub details: BTreeMap<String, Fact>,
    /// As in [`Stamp`].
    pub daemon: Arc<str>,
}

/// A value of the details of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// A count, a PID.
    Int(i64),
    /// Seconds.
    Float(f64),
    /// A word.
    Text(String),
}

impl From<i64> for Fact {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u64> for Fact {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<f64> for Fact {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}
impl From<&str> for Fact {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl Noted {
    /// What happened, with its place in the sequence. A message that is too long is cut.
    pub fn new(stamp: Stamp, event: EventName, name: Option<Name>, message: &str) -> Self {
        let Stamp { seq, time, daemon } = stamp;
        let mut end = message.char_indices().map(|(at, _)| at).skip(MAX_EVENT_MESSAGE);
        let message = end.next().and_then(|end| message.get(..end)).unwrap_or(message).to_owned();
        Self { seq, time, event: event.as_str().to_owned(), name, message, details: BTreeMap::new(), daemon }
    }

    /// The same with one detail more.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Fact>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

impl Event {
    /// Its place in the sequence.
    pub const fn seq(&self) -> u64 {
        match self {
            Self::StateChanged(event) => event.seq,
            Self::Noted(event) => event.seq,
        }
    }

    /// The sub-process it is about.
    pub const fn name(&self) -> Option<&Name> {
        match self {
            Self::StateChanged(event) => Some(&event.name),
            Self::Noted(event) => event.name.as_ref(),
        }
    }

    /// What it is published under: the first of the two frames.
    pub fn topic(&self) -> Topic<'_> {
        Topic(self)
    }
}

/// A topic, as text.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a>(&'a Event);

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::StateChanged(event) => write!(f, "state.{}", event.name),
            Event::Noted(Noted { event, name: Some(name), .. }) => write!(f, "process.{event}.{name}"),
            Event::Noted(Noted { event, name: None, .. }) => write!(f, "daemon.{event}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { seq: 7, time: 1.5, daemon: "u".into() }
    }

    #[test]
    fn topics_tell_the_kind_before_the_name() {
        let name: Name = "a.b".parse().unwrap();
        let noted = Event::Noted(Noted::new(stamp(), EventName::SpawnFailed, Some(name), "no"));
        assert_eq!(noted.topic().to_string(), "process.spawn_failed.a.b");
        let noted = Event::Noted(Noted::new(stamp(), EventName::SpawnFailed, None, "no"));
        assert_eq!(noted.topic().to_string(), "daemon.spawn_failed");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let noted = Noted::new(stamp(), EventName::GaveUp, None, &"é".repeat(MAX_EVENT_MESSAGE + 1));
        assert_eq!(noted.message, "é".repeat(MAX_EVENT_MESSAGE));
        assert_eq!(Noted::new(stamp(), EventName::GaveUp, None, "short").message, "short");
    }

    #[test]
    fn the_two_kinds_are_told_apart_and_a_newer_word_is_read() {
        let noted = serde_json::json!({"seq": 1, "time": 2.0, "event": "of_a_newer_daemon", "name": null, "message": "m",
            "details": {"n": 1, "delay": 0.5, "w": "x"}, "daemon": "u", "more": [1]});
        let event: Event = serde_json::from_value(noted).unwrap();
        let Event::Noted(noted) = &event else { panic!("{event:?}") };
        assert_eq!((noted.details["n"].clone(), noted.details["delay"].clone()), (Fact::Int(1), Fact::Float(0.5)));
        let frame = rmp_serde::to_vec_named(&event).unwrap();
        assert_eq!(rmp_serde::from_slice::<Event>(&frame).unwrap(), event);
    }
}
