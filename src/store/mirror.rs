//! What must be on the disk, in memory: what was handed over changes the mirror at once, and the writer carries over what differs.
//!
//! So memory is bounded by what there is, however much was handed over while the disk was slow: a row that changed ten times is written once. Only
//! what cannot be merged, records of history and entries of the audit trail, waits in queues with bounds, which count what they drop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::bounds::size_of_run;
use super::rows::{AnswerRow, Farewell, RunChange, RunRow, StandingRow};
use super::tables::{Contents, Defined};
use crate::protocol::Name;
use crate::protocol::reply::{AuditEntry, PastRun};

/// Rows of one table by key, and which of them differ from the disk.
#[derive(Debug)]
struct Shelf<K, V> {
    rows: BTreeMap<K, Arc<V>>,
    changed: BTreeSet<K>,
}

/// Rows to write, and keys whose row is to go.
pub(super) type Changes<K, V> = Vec<(K, Option<Arc<V>>)>;

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: PartialEq> Shelf<K, V> {
    fn put(&mut self, key: K, row: V) {
        if self.rows.get(&key).is_none_or(|known| **known != row) {
            self.changed.insert(key.clone());
            self.rows.insert(key, Arc::new(row));
        }
    }

    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        if let Some((key, _)) = self.rows.remove_entry(key) {
            self.changed.insert(key);
        }
    }

    /// What differs from the disk, or all that there is.
    fn take(&mut self, whole: bool) -> Changes<K, V> {
        let changed = std::mem::take(&mut self.changed);
        if whole {
            return self.rows.iter().map(|(key, row)| (key.clone(), Some(Arc::clone(row)))).collect();
        }
        changed.into_iter().map(|key| (key.clone(), self.rows.get(&key).cloned())).collect()
    }
}

/// What waits to be appended, oldest first; the oldest go when it is too much.
#[derive(Debug)]
struct Backlog<T> {
    entries: VecDeque<T>,
    bytes: usize,
    size: fn(&T) -> usize,
    lost: u64,
}

impl<T> Backlog<T> {
    /// Entries, and bytes of them: an hour of three a second.
    const BOUNDS: (usize, usize) = (10_000, 16 << 20);

    fn new(size: fn(&T) -> usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, size, lost: 0 }
    }

    fn push(&mut self, entry: T) {
        self.bytes += (self.size)(&entry);
        self.entries.push_back(entry);
        self.trim();
    }

    fn trim(&mut self) {
        while self.entries.len() > Self::BOUNDS.0 || self.bytes > Self::BOUNDS.1 {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= (self.size)(&oldest);
            self.lost += 1;
        }
    }

    fn take(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into()
    }

    /// Takes back what could not be written: it is older than what has come since.
    fn put_back(&mut self, entries: Vec<T>) {
        self.bytes += entries.iter().map(self.size).sum::<usize>();
        let newer = std::mem::replace(&mut self.entries, entries.into());
        self.entries.extend(newer);
        self.trim();
    }
}

fn size_of_entry(entry: &AuditEntry) -> usize {
    let texts = [Some(&entry.principal), Some(&entry.endpoint), entry.peer.as_ref(), Some(&entry.command), entry.target.as_ref()];
    let more = [entry.request_id.as_ref(), Some(&entry.outcome), entry.message.as_ref()];
    size_of::<AuditEntry>() + texts.into_iter().chain(more).flatten().map(String::len).sum::<usize>()
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mirror {
    definitions: Shelf<Name, Defined>,
    runs: Shelf<String, RunRow>,
    standings: Shelf<Name, StandingRow>,
    answers: Shelf<String, AnswerRow>,
    records: Backlog<PastRun>,
    audits: Backlog<AuditEntry>,
    /// The boot of the host that the daemon runs in.
    boot_id: Option<String>,
    /// How the daemon is about to leave; how the one before has left, until all that it left is taken over.
    farewell: Option<Farewell>,
    /// These two differ from the disk.
    meta_changed: bool,
}

/// What one transaction carries over.
#[derive(Debug)]
pub(super) struct Batch {
    /// The rows are all that there are: what else is in the tables goes.
    pub(super) whole: bool,
    pub(super) definitions: Changes<Name, Defined>,
    pub(super) runs: Changes<String, RunRow>,
    pub(super) standings: Changes<Name, StandingRow>,
    pub(super) answers: Changes<String, AnswerRow>,
    pub(super) records: Vec<PastRun>,
    pub(super) audits: Vec<AuditEntry>,
    pub(super) meta: Option<Meta>,
}

/// What is written of the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) boot_id: Option<String>,
    pub(super) farewell: Option<Farewell>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let rows =
            self.definitions.len() + self.runs.len() + self.standings.len() + self.answers.len() + self.records.len() + self.audits.len();
        rows == 0 && !self.whole && self.meta.is_none()
    }

    /// The daemon leaves with it.
    pub(super) fn is_last(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.farewell.is_some())
    }
}

impl Mirror {
    /// As it is on the disk.
    pub(super) fn of(contents: &Contents) -> Self {
        let mut mirror = Self {
            definitions: Shelf::default(),
            runs: Shelf::default(),
            standings: Shelf::default(),
            answers: Shelf::default(),
            records: Backlog::new(size_of_run),
            audits: Backlog::new(size_of_entry),
            boot_id: contents.boot_id.clone(),
            farewell: contents.farewell,
            meta_changed: false,
        };
        contents.definitions.iter().for_each(|row| mirror.define(row.clone()));
        contents.runs.iter().for_each(|row| mirror.begin(row.clone()));
        contents.standings.iter().for_each(|row| mirror.stand(row.clone()));
        contents.answers.iter().for_each(|row| mirror.answer(row.clone()));
        drop(mirror.take(false, None));
        mirror
    }

    pub(super) fn define(&mut self, row: Defined) {
        self.definitions.put(row.name.clone(), row);
    }

    pub(super) fn undefine(&mut self, name: &Name) {
        self.definitions.remove(name);
    }

    pub(super) fn begin(&mut self, run: RunRow) {
        self.runs.put(run.uuid.clone(), run);
    }

    pub(super) fn change(&mut self, uuid: &str, change: RunChange) {
        let Some(run) = self.runs.rows.get_mut(uuid) else { return };
        let run = Arc::make_mut(run);
        match change {
            RunChange::Started(process) => run.process = Some(process),
            RunChange::MainMoved { pid, start_time } => {
                if let Some(process) = &mut run.process {
                    (process.pid, process.start_time) = (pid, start_time);
                }
            }
            RunChange::Ready(ready) => run.ready = ready,
            RunChange::Ending(ending) => run.ending = ending,
        }
        if !self.runs.changed.contains(uuid) {
            self.runs.changed.insert(uuid.to_owned());
        }
    }

    pub(super) fn end(&mut self, run: PastRun) {
        self.records.push(run);
    }

    pub(super) fn boot(&mut self, boot_id: &str) {
        self.meta_changed |= self.boot_id.as_deref() != Some(boot_id) || self.farewell.is_some();
        (self.boot_id, self.farewell) = (Some(boot_id.to_owned()), None);
    }

    pub(super) fn leave(&mut self, farewell: Farewell) {
        self.meta_changed |= self.farewell != Some(farewell);
        self.farewell = Some(farewell);
    }

    pub(super) fn forget(&mut self, uuid: &str) {
        self.runs.remove(uuid);
    }

    pub(super) fn stand(&mut self, standing: StandingRow) {
        self.standings.put(standing.name.clone(), standing);
    }

    pub(super) fn unstand(&mut self, name: &Name) {
        self.standings.remove(name);
    }

    pub(super) fn answer(&mut self, row: AnswerRow) {
        self.answers.put(row.key.clone(), row);
    }

    pub(super) fn forget_answer(&mut self, key: &str) {
        self.answers.remove(key);
    }

    pub(super) fn audit(&mut self, entry: AuditEntry) {
        self.audits.push(entry);
    }

    /// Entries of the audit trail that are not on the disk yet, the newest first.
    pub(super) fn audits(&self, target: Option<&Name>, limit: usize) -> Vec<AuditEntry> {
        let about = |entry: &&AuditEntry| target.is_none_or(|target| entry.target.as_deref() == Some(target.as_str()));
        self.audits.entries.iter().rev().filter(about).take(limit).cloned().collect()
    }

    pub(super) fn differs(&self) -> bool {
        let rows = !self.definitions.changed.is_empty() || !self.runs.changed.is_empty() || !self.standings.changed.is_empty();
        let rows = rows || !self.answers.changed.is_empty();
        rows || self.meta_changed || !self.records.entries.is_empty() || !self.audits.entries.is_empty()
    }

    /// What differs from the disk, or all that must be there: from now on it counts as written.
    pub(super) fn take(&mut self, whole: bool, farewell: Option<Farewell>) -> Batch {
        if let Some(farewell) = farewell {
            self.leave(farewell);
        }
        let meta_changed = std::mem::take(&mut self.meta_changed) || whole || farewell.is_some();
        Batch {
            whole,
            definitions: self.definitions.take(whole),
            runs: self.runs.take(whole),
            standings: self.standings.take(whole),
            answers: self.answers.take(whole),
            records: self.records.take(),
            audits: self.audits.take(),
            meta: meta_changed.then(|| Meta { boot_id: self.boot_id.clone(), farewell: self.farewell }),
        }
    }

    /// Takes back what was not written. The rows are not looked at: what comes next is all of them.
    pub(super) fn put_back(&mut self, batch: Batch) {
        self.records.put_back(batch.records);
        self.audits.put_back(batch.audits);
    }

    /// Dropped since this was asked last: entries of the audit trail, and records of history.
    pub(super) fn take_lost(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.audits.lost), std::mem::take(&mut self.records.lost))
    }

    pub(super) fn has_lost(&self) -> bool {
        self.audits.lost + self.records.lost > 0
    }
}
