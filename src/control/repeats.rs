//! A request that is repeated gets the answer of the first, and nothing is done twice. The table of what was asked lately: pure, time is an argument.
//!
//! A request is known by who asks and what he calls it ([`Key`]), and is the same when it asks for the same ([`Repeats::begin`] compares a hash). Only a
//! client that has a name of its own is known again: what libzmq makes up for the others holds for one connection, and a number is used by many.
//!
//! Kept is what is in work, for as long as it is (the endpoints bound that), and the last answers, within [`Bounds`]. What an earlier daemon knew is
//! put in with [`Repeats::recall`], and what is forgotten is told with [`Repeats::forgotten`], for a later one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::protocol::Name;
use crate::protocol::envelope::RequestId;

use crate::access::Role;

/// Who asks, across connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// The `client` that the request names, wherever it comes in.
    Named(Name),
    /// The routing id that the client gave its socket. Two at different endpoints may have the same by chance.
    Connection {
        /// Where it came in.
        endpoint: Arc<str>,
        /// What it said.
        identity: Vec<u8>,
    },
}

/// What a request is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What the client may do: nobody gets the answer to what he could not have asked.
    pub role: Role,
    /// By which name its key is known, where it came in by one: what it calls itself, others may, too.
    pub principal: Option<Arc<str>>,
    /// Who.
    pub client: Client,
    /// What he calls it.
    pub request_id: RequestId,
}

/// A key as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<Vec<u8>>,
    request_id: RequestId,
}

impl Key {
    /// As it is written down: the same key is the same text, for every daemon.
    pub fn to_text(&self) -> String {
        let (client, endpoint, identity) = match &self.client {
            Client::Named(name) => (Some(name.clone()), None, None),
            Client::Connection { endpoint, identity } => (None, Some(endpoint.to_string()), Some(identity.clone())),
        };
        let Self { role, principal, client: _, request_id } = self;
        let (role, principal) = (role.as_str().to_owned(), principal.clone());
        let written = Written { role, principal, client, endpoint, identity, request_id: request_id.clone() };
        serde_json::to_string(&written).unwrap_or_default() // texts and numbers always encode
    }

    /// What was written down so; `None` where it is no such text.
    pub fn of_text(text: &str) -> Option<Self> {
        let Written { role, principal, client, endpoint, identity, request_id } = serde_json::from_str(text).ok()?;
        let client = match (client, endpoint, identity) {
            (Some(name), None, None) => Client::Named(name),
            (None, Some(endpoint), Some(identity)) => Client::Connection { endpoint: endpoint.into(), identity },
            _ => return None,
        };
        Some(Self { role: Role::of(&role)?, principal, client, request_id })
    }
}

/// How much is kept of what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Answers.
    pub answers: usize,
    /// Bytes of all, but for the newest, which is kept whatever its size.
    pub bytes: usize,
    /// How long.
    pub time: Duration,
}

impl Default for Bounds {
    /// 4096 answers, 16 MiB, ten minutes: far longer than any client goes on trying.
    fn default() -> Self {
        Self { answers: 4096, bytes: 16 << 20, time: Duration::from_secs(600) }
    }
}

/// What is to be done about a request. `W` waits for an answer, `A` is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun<W, A> {
    /// Carry it out, and say so with [`Repeats::finish`] or [`Repeats::forget`].
    First,
    /// The first is in work: wait for its answer.
    InWork(W),
    /// It was answered.
    Answered(A),
    /// Another request was called the same.
    Other,
}

#[derive(Debug)]
struct Entry<W, A> {
    /// What it asks for.
    hash: u64,
    stage: Stage<W, A>,
}

#[derive(Debug)]
enum Stage<W, A> {
    InWork(W),
    Answered { answer: A, bytes: usize },
}

/// The table.
#[derive(Debug)]
pub struct Repeats<W, A> {
    bounds: Bounds,
    entries: HashMap<Arc<Key>, Entry<W, A>>,
    /// Those that were answered, and when, oldest first.
    answered: VecDeque<(Instant, Arc<Key>)>,
    bytes: usize,
    /// What was forgotten since somebody asked for that.
    forgotten: Vec<Arc<Key>>,
}

/// About what an entry takes besides its answer.
fn overhead(key: &Key) -> usize {
    let client = match &key.client {
        Client::Named(name) => name.as_str().len(),
        Client::Connection { endpoint: _, identity } => identity.len(),
    };
    let id = match &key.request_id {
        RequestId::Text(text) => text.len(),
        RequestId::Unsigned(_) | RequestId::Signed(_) => 0,
    };
    256 + client + id
}

impl<W: Clone, A: Clone> Repeats<W, A> {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: HashMap::new(), answered: VecDeque::new(), bytes: 0, forgotten: Vec::new() }
    }

    /// A request has come: `hash` is that of all that it asks for. Where it is the first, others will wait with `waiting`.
    pub fn begin(&mut self, key: &Arc<Key>, hash: u64, now: Instant, waiting: impl FnOnce() -> W) -> Begun<W, A> {
        self.expire(now);
        match self.entries.get(key) {
            None => {
                self.entries.insert(key.clone(), Entry { hash, stage: Stage::InWork(waiting()) });
                Begun::First
            }
            Some(entry) if entry.hash != hash => Begun::Other,
            Some(Entry { stage: Stage::InWork(waiting), .. }) => Begun::InWork(waiting.clone()),
            Some(Entry { stage: Stage::Answered { answer, .. }, .. }) => Begun::Answered(answer.clone()),
        }
    }

    /// The first was answered, in so many bytes.
    pub fn finish(&mut self, key: &Arc<Key>, answer: A, bytes: usize, now: Instant) {
        let Some(hash) = self.entries.get(key).map(|entry| entry.hash) else { return };
        self.recall(key, hash, answer, bytes, now);
        self.expire(now);
    }

    /// This was answered then, not before any other that was.
    pub fn recall(&mut self, key: &Arc<Key>, hash: u64, answer: A, bytes: usize, at: Instant) {
        let bytes = bytes.saturating_add(overhead(key));
        self.entries.insert(key.clone(), Entry { hash, stage: Stage::Answered { answer, bytes } });
        self.bytes = self.bytes.saturating_add(bytes);
        self.answered.push_back((at, key.clone()));
        while self.answered.len() > self.bounds.answers.max(1) || (self.bytes > self.bounds.bytes && self.answered.len() > 1) {
            self.drop_oldest();
        }
    }

    /// The first came to nothing that is worth remembering: the same request is a first one again.
    pub fn forget(&mut self, key: &Arc<Key>) {
        self.entries.remove(key);
    }

    /// What was forgotten, because it is old or there is too much, since this was asked last.
    pub fn forgotten(&mut self) -> Vec<Arc<Key>> {
        std::mem::take(&mut self.forgotten)
    }

    /// Forgets what is too old.
    pub fn expire(&mut self, now: Instant) {
        while self.answered.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.bounds.time) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, key)) = self.answered.pop_front() else { return };
        let entry = self.entries.remove(&key);
        self.forgotten.push(key);
        if let Some(Entry { stage: Stage::Answered { bytes, .. }, .. }) = entry {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(client: u8, id: u8) -> Arc<Key> {
        let client = Client::Named(format!("c{client}").parse().unwrap());
        Arc::new(Key { role: Role::Admin, principal: None, client, request_id: RequestId::Unsigned(id.into()) })
    }

    #[test]
    fn a_repetition_waits_and_then_gets_the_answer() {
        let mut repeats: Repeats<&str, u32> = Repeats::new(Bounds::default());
        let (key, now) = (key(1, 1), Instant::now());
        assert_eq!(repeats.begin(&key, 7, now, || "wait"), Begun::First);
        assert_eq!(repeats.begin(&key, 7, now, || "never"), Begun::InWork("wait"));
        assert_eq!(repeats.begin(&key, 8, now, || "never"), Begun::Other, "while the first is in work");
        repeats.finish(&key, 42, 10, now);
        assert_eq!(repeats.begin(&key, 7, now, || "never"), Begun::Answered(42));
        assert_eq!(repeats.begin(&key, 8, now, || "never"), Begun::Other);
        assert_eq!(repeats.begin(&key, 7, now + Duration::from_secs(599), || "never"), Begun::Answered(42));
        assert_eq!(repeats.begin(&key, 8, now + Duration::from_secs(600), || "wait"), Begun::First, "it is forgotten");
        repeats.forget(&key);
        assert_eq!(repeats.begin(&key, 9, now, || "wait"), Begun::First);
    }

    #[test]
    fn a_key_is_the_same_for_every_daemon() {
        let clients = [Client::Named("gui".parse().unwrap()), Client::Connection { endpoint: "ipc:///a".into(), identity: vec![1, 255] }];
        let ids = [RequestId::Unsigned(u64::MAX), RequestId::Signed(-1), RequestId::Text("1".into())];
        for (client, request_id) in clients.iter().flat_map(|client| ids.iter().map(move |id| (client.clone(), id.clone()))) {
            let principal = (request_id == ids[0]).then(|| "ops".into());
            let key = Key { role: Role::Operate, principal, client, request_id };
            assert_eq!(Key::of_text(&key.to_text()), Some(key));
        }
        assert_eq!(clients[0].clone(), clients[0]);
        let text = Key { role: Role::Admin, principal: None, client: clients[0].clone(), request_id: RequestId::Unsigned(7) }.to_text();
        assert_eq!(text, r#"{"role":"admin","client":"gui","request_id":7}"#, "never changed");
        assert_eq!(Key::of_text("{}"), None);
    }

    #[test]
    fn what_an_earlier_daemon_knew_is_known_within_the_bounds() {
        let bounds = Bounds { answers: 2, ..Bounds::default() };
        let mut repeats: Repeats<(), u32> = Repeats::new(bounds);
        let now = Instant::now();
        for (id, age) in [(1, 700), (2, 599), (3, 10)] {
            repeats.recall(&key(1, id), 7, id.into(), 10, now - Duration::from_secs(age));
        }
        repeats.expire(now);
        assert_eq!(repeats.forgotten(), [key(1, 1)]);
        assert_eq!(repeats.begin(&key(1, 2), 7, now, || ()), Begun::Answered(2));
        assert_eq!(repeats.begin(&key(1, 2), 8, now, || ()), Begun::Other);
        assert_eq!(repeats.begin(&key(1, 3), 7, now + Duration::from_secs(1), || ()), Begun::Answered(3));
        assert_eq!(repeats.forgotten(), [key(1, 2)], "its ten minutes have gone on");
    }

    #[test]
    fn others_are_others() {
        let mut repeats: Repeats<(), u32> = Repeats::new(Bounds::default());
        let (now, id) = (Instant::now(), RequestId::Unsigned(1));
        let connection = |endpoint: &str| Client::Connection { endpoint: endpoint.into(), identity: b"gui".to_vec() };
        for client in [Client::Named("gui".parse().unwrap()), connection("ipc:///a"), connection("ipc:///b")] {
            for role in [Role::Operate, Role::Admin] {
                for principal in [None, Some("a".into()), Some("b".into())] {
                    let key = Arc::new(Key { role, principal, client: client.clone(), request_id: id.clone() });
                    assert_eq!(repeats.begin(&key, 7, now, || ()), Begun::First, "{key:?}");
                }
            }
        }
        let text = Key { role: Role::Admin, principal: None, client: connection("ipc:///a"), request_id: RequestId::Text("1".into()) };
        assert_eq!(repeats.begin(&Arc::new(text), 7, now, || ()), Begun::First);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask { client: u8, id: u8, what: u64 },
        Finish { nth: usize, bytes: usize },
        Forget { nth: usize },
        Wait { seconds: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0_u8..3, 0_u8..4, 0_u64..2).prop_map(|(client, id, what)| Step::Ask { client, id, what }),
            4 => (0_usize..8, 0_usize..600).prop_map(|(nth, bytes)| Step::Finish { nth, bytes }),
            1 => (0_usize..8).prop_map(|nth| Step::Forget { nth }),
            1 => (0_u64..40).prop_map(|seconds| Step::Wait { seconds }),
        ];
        prop::collection::vec(step, 0..120)
    }

    /// What was asked first under a key.
    #[derive(Clone, Copy, Debug)]
    struct First {
        what: u64,
        execution: u32,
        answered: Option<Instant>,
    }

    proptest! {
        #[test]
        fn nothing_is_done_twice_and_the_answer_is_always_the_firsts(steps in steps(), answers in 1_usize..6, bytes in 300_usize..2000) {
            let bounds = Bounds { answers, bytes, time: Duration::from_secs(60) };
            let mut repeats: Repeats<u32, u32> = Repeats::new(bounds);
            let mut now = Instant::now();
            let mut executions = 0;
            let mut firsts: BTreeMap<(u8, u8), First> = BTreeMap::new();
            // Answers in the order they were given, with what each took: what may have been forgotten is the oldest of them.
            let mut given: Vec<((u8, u8), u32, usize)> = Vec::new();
            for step in steps {
                match step {
                    Step::Ask { client, id, what } => {
                        let name = (client, id);
                        let known = firsts.get(&name).copied();
                        match repeats.begin(&key(client, id), what, now, || executions) {
                            Begun::First => {
                                if let Some(known) = known {
                                    // It was answered, and then forgotten, for which there must be a reason.
                                    let answered = known.answered.expect("it is in work, and was begun again");
                                    let at = given.iter().position(|(_, execution, _)| *execution == known.execution).unwrap();
                                    let newer: usize = given[at..].iter().map(|(_, _, bytes)| bytes).sum();
                                    let crowded = given.len() - at > answers || newer > bytes;
                                    prop_assert!(now - answered >= bounds.time || crowded, "forgotten too early");
                                }
                                firsts.insert(name, First { what, execution: executions, answered: None });
                                executions += 1;
                            }
                            Begun::InWork(execution) => {
                                let known = known.unwrap();
                                prop_assert_eq!((known.execution, known.what, known.answered), (execution, what, None));
                            }
                            Begun::Answered(answer) => {
                                let known = known.unwrap();
                                prop_assert_eq!((known.execution, known.what), (answer, what));
                                prop_assert!(known.answered.is_some_and(|at| now - at < bounds.time), "it is too old");
                            }
                            Begun::Other => prop_assert_ne!(known.unwrap().what, what),
                        }
                    }
                    Step::Finish { nth, bytes } => {
                        let in_work = firsts.iter().filter(|(_, first)| first.answered.is_none()).map(|(name, _)| *name).nth(nth);
                        if let Some(name) = in_work {
                            let first = firsts.get_mut(&name).unwrap();
                            first.answered = Some(now);
                            let key = key(name.0, name.1);
                            repeats.finish(&key, first.execution, bytes, now);
                            given.push((name, first.execution, bytes + overhead(&key)));
                        }
                    }
                    Step::Forget { nth } => {
                        let in_work = firsts.iter().filter(|(_, first)| first.answered.is_none()).map(|(name, _)| *name).nth(nth);
                        if let Some(name) = in_work {
                            firsts.remove(&name);
                            repeats.forget(&key(name.0, name.1));
                        }
                    }
                    Step::Wait { seconds } => now += Duration::from_secs(seconds),
                }
                let kept: usize = repeats.entries.values().map(|entry| if let Stage::Answered { bytes, .. } = &entry.stage { *bytes } else { 0 }).sum();
                prop_assert_eq!(kept, repeats.bytes);
                prop_assert!(repeats.answered.len() <= answers && (kept <= bytes || repeats.answered.len() == 1));
                let in_work = firsts.values().filter(|first| first.answered.is_none()).count();
                prop_assert_eq!(repeats.entries.len(), repeats.answered.len() + in_work);
            }
        }
    }
}
