//! The last runs of each sub-process.
//!
//! [`History`] is what any place that keeps them can do. [`InMemory`] forgets them with the daemon: it answers at once, and is filled from the table of
//! the store at start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::{Bounds, Ledger, size_of_run};
use crate::protocol::Name;
use crate::protocol::reply::PastRun;

/// Keeps the runs that have ended. What a sub-process did stays known after it was unregistered, until newer runs push it out: its name may come back,
/// and somebody may want to know why it was taken away.
pub trait History: Send + Sync + 'static {
    /// Takes a run that has ended. Called on the runtime's threads: it must not block.
    fn append(&self, run: PastRun);
    /// The runs of one name or of all, the one that ended last first, at most `limit`.
    fn query(&self, name: Option<&Name>, limit: usize) -> Vec<Arc<PastRun>>;
}

/// A history in memory, bounded.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    ledger: Ledger,
    /// By their number in the ledger.
    runs: BTreeMap<u64, Arc<PastRun>>,
}

impl InMemory {
    /// An empty one with these bounds.
    pub fn new(bounds: Bounds) -> Self {
        Self(Mutex::new(Kept { ledger: Ledger::new(bounds), runs: BTreeMap::new() }))
    }

    /// Takes what an earlier daemon left, oldest first: before the first run of this one ends.
    pub fn fill(&self, runs: impl IntoIterator<Item = PastRun>) {
        let mut kept = self.kept();
        runs.into_iter().for_each(|run| kept.append(run));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn append(&mut self, run: PastRun) {
        // A second record of the same run is ignored, as in the table.
        if self.ledger.of(&run.name).rev().any(|number| self.runs.get(&number).is_some_and(|known| known.uuid == run.uuid)) {
            return;
        }
        let number = self.ledger.next();
        let pushed_out = self.ledger.append(number, &run.name, size_of_run(&run));
        self.runs.insert(number, Arc::new(run));
        for number in pushed_out {
            self.runs.remove(&number);
        }
    }

    fn query(&self, name: Option<&Name>, limit: usize) -> Vec<Arc<PastRun>> {
        match name {
            None => self.runs.values().rev().take(limit).cloned().collect(),
            Some(name) => self.ledger.of(name).rev().take(limit).filter_map(|number| self.runs.get(&number).cloned()).collect(),
        }
    }
}

impl History for InMemory {
    fn append(&self, run: PastRun) {
        self.kept().append(run);
    }

    fn query(&self, name: Option<&Name>, limit: usize) -> Vec<Arc<PastRun>> {
        self.kept().query(name, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Cause, EndedBy, Origin};
    use proptest::prelude::*;

    fn run(name: &str, pid: u32) -> PastRun {
        PastRun {
            name: name.parse().unwrap(),
            uuid: format!("{name}-{pid}"),
            pid: Some(pid),
            args: vec![],
            started_at: 1.0,
            ended_at: 2.0,
            duration: 1.0,
            returncode: Some(0),
            signal: None,
            cause: Cause::Exit,
            core_dump: false,
            started_by: Origin::Execute,
            ended_by: EndedBy::Itself,
            message: None,
        }
    }

    fn pids(history: &InMemory, name: Option<&str>, limit: usize) -> Vec<u32> {
        let name = name.map(|name| name.parse().unwrap());
        history.query(name.as_ref(), limit).iter().filter_map(|run| run.pid).collect()
    }

    #[test]
    fn the_newest_come_first() {
        let history = InMemory::default();
        for (name, pid) in [("a", 1), ("b", 2), ("a", 3)] {
            history.append(run(name, pid));
        }
        assert_eq!(pids(&history, None, 9), [3, 2, 1]);
        assert_eq!(pids(&history, None, 2), [3, 2]);
        assert_eq!(pids(&history, Some("a"), 9), [3, 1]);
        assert_eq!(pids(&history, Some("a"), 1), [3]);
        assert_eq!(pids(&history, Some("c"), 9), [0; 0]);
        history.append(run("a", 1));
        assert_eq!(pids(&history, None, 9), [3, 2, 1], "each run is told of once");
    }

    #[test]
    fn long_arguments_push_out_what_is_old() {
        let history = InMemory::new(Bounds { bytes: 100_000, ..Bounds::default() });
        for pid in 0..10 {
            history.append(PastRun { args: vec!["x".repeat(30_000)], ..run("a", pid) });
        }
        assert_eq!(pids(&history, None, 99), [9, 8, 7]);
        // One that is too large by itself is not kept, and nothing is counted twice.
        history.append(PastRun { args: vec!["x".repeat(200_000)], ..run("a", 10) });
        assert!(pids(&history, None, 99).is_empty());
        let kept = history.kept();
        assert_eq!((kept.ledger.bytes(), kept.ledger.names(), kept.runs.len()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_the_newest_are_there(
            names in prop::collection::vec(0_usize..4, 0..80), of_one in 1_usize..6, of_all in 1_usize..20
        ) {
            let history = InMemory::new(Bounds { of_one, of_all, bytes: usize::MAX });
            let mut all: Vec<(usize, u32)> = Vec::new();
            for (pid, name) in (0..).zip(names) {
                history.append(run(&name.to_string(), pid));
                all.insert(0, (name, pid));
            }
            // What is kept: of each name its newest, of these the newest of all.
            let mut counts = [0; 4];
            let expected: Vec<u32> = all
                .iter()
                .filter(|(name, _)| { counts[*name] += 1; counts[*name] <= of_one })
                .map(|(_, pid)| *pid)
                .take(of_all)
                .collect();
            let kept = pids(&history, None, usize::MAX);
            prop_assert!(kept.len() <= of_all && expected.starts_with(&kept));
            prop_assert_eq!(kept.first(), expected.first());
            for name in 0..4 {
                let of_this = pids(&history, Some(&name.to_string()), usize::MAX);
                let among_all: Vec<u32> = kept.iter().filter(|pid| all.contains(&(name, **pid))).copied().collect();
                prop_assert!(of_this.len() <= of_one);
                prop_assert_eq!(of_this, among_all);
            }
            let bytes: usize = history.query(None, usize::MAX).iter().map(|run| size_of_run(run)).sum();
            prop_assert_eq!(history.kept().ledger.bytes(), bytes);
        }
    }
}
