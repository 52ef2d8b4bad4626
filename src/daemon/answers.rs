//! What clients asked lately, and what they were answered, in the store: the next daemon answers the same.

use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::control::repeats::Key;
use crate::control::{Answer, Journal, Known};
use crate::procfs;
use crate::store::{AnswerRow, AnsweredRow, Store};
use crate::subprocess::published::unix_seconds;

use super::bridge::settled;

/// Writes down what is asked and answered.
pub(super) struct Answers {
    pub(super) store: Store,
    /// Names this boot of the host.
    pub(super) boot_id: String,
}

impl Answers {
    fn write(&self, key: &Key, hash: u64, answer: Option<AnsweredRow>) {
        let row = AnswerRow {
            key: key.to_text(),
            hash,
            boot_id: self.boot_id.clone(),
            monotonic: procfs::nanoseconds_at(Instant::now()),
            time: unix_seconds(SystemTime::now()),
            answer,
        };
        drop(self.store.answer(row));
    }

    /// What an earlier daemon of this boot was asked, the oldest first. What it was asked before the host was started anew is forgotten: none of what it
    /// did is there any more.
    pub(super) fn recall(&self, mut rows: Vec<AnswerRow>) -> Vec<Known> {
        rows.sort_by_key(|row| row.monotonic);
        let known = rows.into_iter().filter_map(|row| {
            let known = self.known(&row);
            if known.is_none() {
                self.store.forget_answer(&row.key);
            }
            known
        });
        known.collect()
    }

    fn known(&self, row: &AnswerRow) -> Option<Known> {
        if row.boot_id != self.boot_id {
            return None;
        }
        let age = procfs::monotonic().saturating_sub(Duration::from_nanos(row.monotonic));
        let answer = match &row.answer {
            None => None,
            Some(AnsweredRow::Done(digits)) => Some(Ok(bytes_of(digits)?)),
            Some(AnsweredRow::Refused(error)) => Some(Err(error.clone())),
        };
        let at = Instant::now().checked_sub(age)?;
        Some(Known { key: Key::of_text(&row.key)?, hash: row.hash, at, begun_at: row.time, answer })
    }
}

impl Journal for Answers {
    fn begun(&self, key: &Key, hash: u64) {
        self.write(key, hash, None);
    }

    fn answered(&self, key: &Key, hash: u64, answer: &Answer) {
        let answer = match answer {
            Ok(reply) => AnsweredRow::Done(digits_of(reply)),
            Err(error) => AnsweredRow::Refused(error.clone()),
        };
        self.write(key, hash, Some(answer));
    }

    fn forgotten(&self, key: &Key) {
        self.store.forget_answer(&key.to_text());
    }

    fn settled(&self) -> BoxFuture<'static, ()> {
        settled(&self.store).boxed()
    }
}

fn digits_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(digits_of(&all[14..18]), "0e0f1011");
        assert_eq!(bytes_of(&digits_of(&all)), Some(all));
        assert_eq!([bytes_of("0"), bytes_of("0g"), bytes_of("é")], [None, None, None]);
    }
}
