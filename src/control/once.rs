//! Carries each request of a client that names itself out once: around the table of [`super::repeats`], the clock and those who wait.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::protocol::codec;
use crate::protocol::request::Command;
use crate::protocol::{Detail, ErrorCode};

use super::refusals;
use super::repeats::{Begun, Bounds, Key, Repeats};
use super::service::Answer;

type Table = Repeats<watch::Receiver<Option<Arc<Answer>>>, Arc<Answer>>;

/// What was asked lately.
#[derive(Debug)]
pub(super) struct Once {
    /// Held for operations on the table only, never across an await.
    table: Mutex<Table>,
    /// Its key is random, and what it hashes differs only between requests of one client under one id: 64 bits tell them apart.
    hasher: RandomState,
}

/// What became of a request.
pub(super) enum Came {
    /// It was carried out, or refused.
    Done(Answer),
    /// It was asked before, and comes to what it came to then.
    Before(Answer),
}

impl Default for Once {
    fn default() -> Self {
        Self { table: Mutex::new(Repeats::new(Bounds::default())), hasher: RandomState::new() }
    }
}

impl Once {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `work` carry the command out, unless it was asked before under this key. `work` is not polled, then.
    pub(super) async fn answer(&self, key: Key, command: &Command, work: impl Future<Output = Answer>) -> Came {
        let hash = match codec::encode_request(command, None) {
            Ok(frame) => self.hasher.hash_one(frame),
            Err(error) => return Came::Done(Err(refusals::internal(&format!("cannot tell the request from others: {error}")))),
        };
        let key = Arc::new(key);
        let (answered, waiting) = watch::channel(None);
        let begun = self.table().begin(&key, hash, Instant::now(), || waiting);
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
        let first = First { once: self, key: Some(key) };
        let answer = work.await;
        let kept = Arc::new(answer.clone());
        first.end(&kept);
        answered.send_replace(Some(kept));
        Came::Done(answer)
    }
}

/// About what a detail of a refusal takes.
fn size_of_detail(detail: &Detail) -> usize {
    64 + match detail {
        Detail::Int(_) => 0,
        Detail::Text(text) => text.len(),
        Detail::List(list) => list.iter().map(size_of_detail).sum(),
    }
}

/// A first request in work; one that is given up half-way is forgotten.
struct First<'a> {
    once: &'a Once,
    key: Option<Arc<Key>>,
}

impl First<'_> {
    fn end(mut self, answer: &Arc<Answer>) {
        let Some(key) = self.key.take() else { return };
        let mut table = self.once.table();
        let bytes = match &**answer {
            // Nothing was done, and it is to be tried again.
            Err(error) if error.code == ErrorCode::Busy => return table.forget(&key),
            Err(error) => error.message.len() + error.details.iter().map(|(key, detail)| key.len() + size_of_detail(detail)).sum::<usize>(),
            Ok(reply) => reply.len(),
        };
        table.finish(&key, answer.clone(), bytes, Instant::now());
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.once.table().forget(&key);
        }
    }
}
