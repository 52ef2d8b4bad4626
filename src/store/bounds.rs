//! How much history is kept, and what goes when there is more. The cache in memory and the table on the disk keep one `Ledger` each and so forget the
//! same.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::Name;
use crate::protocol::reply::PastRun;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Runs of one name, so that a loop of one pushes out nobody else's.
    pub of_one: usize,
    /// Runs of all.
    pub of_all: usize,
    /// Bytes of all, by `size_of_run`: arguments may be long.
    pub bytes: usize,
}

impl Default for Bounds {
    /// A hundred of each, ten thousand and 16 MiB of all.
    fn default() -> Self {
        Self { of_one: 100, of_all: 10_000, bytes: 16 << 20 }
    }
}

/// About what a run takes: itself, its place in the order, and its texts.
pub(super) fn size_of_run(run: &PastRun) -> usize {
    let texts = run.args.iter().map(|arg| arg.len() + size_of::<String>()).sum::<usize>();
    size_of::<PastRun>() + 128 + run.uuid.len() + texts + run.message.as_ref().map_or(0, String::len)
}

/// Which runs are kept, by their number in the order of ends; the runs themselves are elsewhere.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    bounds: Bounds,
    entries: BTreeMap<u64, (Name, usize)>,
    /// The numbers of each name's, oldest first; no name without any.
    of_each: BTreeMap<Name, VecDeque<u64>>,
    next: u64,
    bytes: usize,
}

impl Ledger {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// A number greater than any before.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes a run under a number that no run before had, none greater. Returns the numbers of those that must go for it, maybe its own.
    pub(super) fn append(&mut self, number: u64, name: &Name, size: usize) -> Vec<u64> {
        self.next = number + 1;
        self.bytes += size;
        self.entries.insert(number, (name.clone(), size));
        let of_this = self.of_each.entry(name.clone()).or_default();
        of_this.push_back(number);
        let mut pushed_out = Vec::new();
        if of_this.len() > self.bounds.of_one
            && let Some(oldest) = of_this.front().copied()
        {
            self.forget(oldest);
            pushed_out.push(oldest);
        }
        while (self.entries.len() > self.bounds.of_all || self.bytes > self.bounds.bytes)
            && let Some(oldest) = self.entries.first_key_value().map(|(number, _)| *number)
        {
            self.forget(oldest);
            pushed_out.push(oldest);
        }
        pushed_out
    }

    fn forget(&mut self, number: u64) {
        let Some((name, size)) = self.entries.remove(&number) else { return };
        self.bytes -= size;
        if let Some(of_this) = self.of_each.get_mut(&name) {
            // It is the oldest of all or of its name, so it stands at the front.
            of_this.retain(|other| *other != number);
            if of_this.is_empty() {
                self.of_each.remove(&name);
            }
        }
    }

    /// The numbers of one name's, oldest first.
    pub(super) fn of(&self, name: &Name) -> impl DoubleEndedIterator<Item = u64> {
        self.of_each.get(name).into_iter().flatten().copied()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.of_each.len()
    }
}
