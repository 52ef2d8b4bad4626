//! The last commands that were to change something, in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::protocol::Name;
use crate::protocol::reply::AuditEntry;

/// How many are kept.
const KEPT: usize = 1000;

/// The longest message that is kept, in characters.
const LONGEST_MESSAGE: usize = 1000;

/// A bounded audit trail, which is forgotten with the daemon.
#[derive(Debug, Default)]
pub struct AuditRing(Mutex<VecDeque<AuditEntry>>);

impl AuditRing {
    /// Takes one; the oldest makes room for it.
    pub fn append(&self, mut entry: AuditEntry) {
        if let Some(message) = &mut entry.message
            && let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE)
        {
            message.truncate(end);
            message.push('…');
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= KEPT {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// What was about this name, or about all, newest first, at most `limit`.
    pub fn query(&self, name: Option<&Name>, limit: usize) -> Vec<AuditEntry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_about = |entry: &&AuditEntry| name.is_none_or(|name| entry.target.as_deref() == Some(name.as_str()));
        entries.iter().rev().filter(is_about).take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize, target: &str) -> AuditEntry {
        AuditEntry {
            time: number as f64,
            principal: "admin".into(),
            endpoint: "ipc:///x".into(),
            peer: None,
            command: "quit".into(),
            target: Some(target.into()),
            request_id: None,
            outcome: "not_found".into(),
            message: Some("ä".repeat(2 * LONGEST_MESSAGE)),
        }
    }

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let ring = AuditRing::default();
        for number in 0..KEPT + 10 {
            ring.append(entry(number, if number % 2 == 0 { "web" } else { "group:web" }));
        }
        let all = ring.query(None, usize::MAX);
        assert_eq!((all.len(), all[0].time, all[KEPT - 1].time), (KEPT, (KEPT + 9) as f64, 10.0));
        let web = ring.query(Some(&"web".parse().unwrap()), 3);
        assert_eq!(web.iter().map(|entry| entry.time as usize).collect::<Vec<_>>(), [KEPT + 8, KEPT + 6, KEPT + 4]);
        assert_eq!(web[0].message.as_ref().unwrap().chars().count(), LONGEST_MESSAGE + 1);
    }
}
