//! Carries each request of a client that names itself out once: around the table of [`super::repeats`], the clock, those who wait, and the [`Journal`] by
//! which a later daemon knows what this one was asked.
//!
//! That a request was begun is written down before anything of it is done, and its answer before that goes out. So a daemon that finds a request begun and
//! not answered knows that nobody knows how far it came; it refuses the repetition and says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::protocol::codec;
use crate::protocol::request::Command;
use crate::protocol::{CommandName, Detail, ErrorCode};

use super::refusals;
use super::repeats::{Begun, Bounds, Key, Repeats};
use super::service::Answer;

/// Who keeps what was asked for a later daemon. Called on the runtime's threads: it must not block.
pub trait Journal: Send + Sync + 'static {
    /// A request is about to be carried out; `hash` is that of all that it asks for.
    fn begun(&self, key: &Key, hash: u64);
    /// It came to this.
    fn answered(&self, key: &Key, hash: u64, answer: &Answer);
    /// It is known no longer.
    fn forgotten(&self, key: &Key);
    /// Resolves once a later daemon will find all that was done and told here so far, or when that cannot be had soon.
    fn settled(&self) -> BoxFuture<'static, ()>;
}

/// What an earlier daemon was asked.
#[derive(Clone, Debug)]
pub struct Known {
    /// By whom, and what he calls it.
    pub key: Key,
    /// Of all that it asks for.
    pub hash: u64,
    /// When it was begun or answered.
    pub at: Instant,
    /// When it was begun, in Unix seconds.
    pub begun_at: f64,
    /// What it came to; `None` where that daemon was ended before.
    pub answer: Option<Answer>,
}

type Table = Repeats<watch::Receiver<Option<Arc<Answer>>>, Arc<Answer>>;

/// What was asked lately.
pub(super) struct Once {
    /// Held for operations on the table only, never across an await.
    table: Mutex<Table>,
    journal: Arc<dyn Journal>,
}

/// What became of a request.
pub(super) enum Came {
    /// It was carried out, or refused.
    Done(Answer),
    /// It was asked before, and comes to what it came to then.
    Before(Answer),
}

impl Once {
    /// With what an earlier daemon was asked, the oldest first.
    pub(super) fn new(journal: Arc<dyn Journal>, known: Vec<Known>) -> Self {
        let mut table = Table::new(Bounds::default());
        for Known { key, hash, at, begun_at, answer } in known {
            let answer = answer.unwrap_or_else(|| Err(refusals::interrupted(begun_at)));
            let bytes = size_of_answer(&answer);
            table.recall(&Arc::new(key), hash, Arc::new(answer), bytes, at);
        }
        let once = Self { table: Mutex::new(table), journal };
        once.on_table(|table| table.expire(Instant::now()));
        once
    }

    /// Does something with the table, and has forgotten elsewhere what that has forgotten.
    fn on_table<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        let mut table: MutexGuard<'_, Table> = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut table);
        table.forgotten().iter().for_each(|key| self.journal.forgotten(key));
        result
    }

    /// Has `work` carry the command out, unless it was asked before under this key. `work` is not polled, then.
    pub(super) async fn answer(&self, key: Key, command: &Command, work: impl Future<Output = Answer>) -> Came {
        let hash = match codec::encode_request(command, None) {
            Ok(frame) => hash(&frame),
            Err(error) => return Came::Done(Err(refusals::internal(&format!("cannot tell the request from others: {error}")))),
        };
        let key = Arc::new(key);
        let (answered, waiting) = watch::channel(None);
        let begun = self.on_table(|table| table.begin(&key, hash, Instant::now(), || waiting));
        match begun {
            Begun::First => {}
            Begun::Answered(answer) => return Came::Before((*answer).clone()),
            Begun::InWork(mut waiting) => {
                let answer = waiting.wait_for(Option::is_some).await.ok().and_then(|answer| (*answer).clone());
                // Without one, the endpoint of the first was closed before it was answered.
                return Came::Before(answer.map_or_else(|| Err(refusals::shutting_down()), |answer| (*answer).clone()));
            }
            Begun::Other => return Came::Done(Err(refusals::other_request(&key.request_id))),
        }
        let first = First { once: self, key: Some(key.clone()) };
        self.journal.begun(&key, hash);
        // That a start is intended is written down before it is made, and not before this.
        if command.name() != CommandName::Execute {
            self.journal.settled().await;
        }
        let answer = work.await;
        let is_kept = !came_to_nothing(&answer);
        if is_kept {
            self.journal.answered(&key, hash, &answer);
        } else {
            self.journal.forgotten(&key);
        }
        // Before a repetition can find it, either.
        self.journal.settled().await;
        let kept = Arc::new(answer.clone());
        first.end(&kept, is_kept);
        answered.send_replace(Some(kept));
        Came::Done(answer)
    }
}

/// FNV-1a of 64 bits: what it hashes differs only between requests of one client under one id, which it tells apart, and it is the same for every daemon.
fn hash(frame: &[u8]) -> u64 {
    frame.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// About what a detail of a refusal takes.
fn size_of_detail(detail: &Detail) -> usize {
    64 + match detail {
        Detail::Int(_) => 0,
        Detail::Text(text) => text.len(),
        Detail::List(list) => list.iter().map(size_of_detail).sum(),
    }
}

fn size_of_answer(answer: &Answer) -> usize {
    match answer {
        Err(error) => error.message.len() + error.details.iter().map(|(key, detail)| key.len() + size_of_detail(detail)).sum::<usize>(),
        Ok(reply) => reply.len(),
    }
}

/// Whether nothing was done, and the same request may be tried again, with this daemon or the next.
fn came_to_nothing(answer: &Answer) -> bool {
    answer.as_ref().is_err_and(|error| matches!(error.code, ErrorCode::Busy | ErrorCode::ShuttingDown))
}

/// A first request in work. One that is given up half-way, because its endpoint is closed, is forgotten here, and stays begun for a later daemon.
struct First<'a> {
    once: &'a Once,
    key: Option<Arc<Key>>,
}

impl First<'_> {
    fn end(mut self, answer: &Arc<Answer>, is_kept: bool) {
        let Some(key) = self.key.take() else { return };
        self.once.on_table(|table| {
            if is_kept {
                table.finish(&key, answer.clone(), size_of_answer(answer), Instant::now());
            } else {
                table.forget(&key);
            }
        });
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.once.on_table(|table| table.forget(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_for_ever() {
        assert_eq!([hash(b""), hash(b"foobar")], [0xcbf2_9ce4_8422_2325, 0x8594_4171_f739_67e8]);
    }
}
