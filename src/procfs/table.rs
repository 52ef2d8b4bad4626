//! Every process of the host, from one pass over `/proc`.
//!
//! The kernel's own list of children (`/proc/PID/task/TID/children`) is a build option that many kernels lack, and proc_pid_task_children(5)
//! calls it unreliable while the children run. One pass over every `stat` costs 3 to 5 µs for each process and serves all trees at once.

use std::io;

use super::file::{Proc, pids};
use super::stat::Stat;

/// How often the list of processes is made at most: each pass reads only what is new since the last one, so the next hardly ever finds more.
const PASSES: usize = 8;

/// Every process of the host, ascending by PID. Not one instant: a process may be born or end while the others are read.
#[derive(Clone, Debug, Default)]
pub struct Table {
    stats: Vec<Stat>,
    /// Places in `stats`, ascending by parent and then by PID.
    by_parent: Vec<u32>,
}

impl Table {
    /// Reads it. A process that vanishes midway, or that the host hides from us, is left out.
    ///
    /// One that has ended may have forked just before, after the list was made: then the list is made again and what is new is read, so that a
    /// process which moves on by forking and exiting is not missed although at every moment there was one.
    ///
    /// # Errors
    /// `/proc` cannot be read at all, or what is missing has nothing to do with a process (EMFILE, ENOMEM …): never half a table.
    pub fn scan() -> io::Result<Self> {
        let mut listed = pids()?;
        let mut proc = Proc::open()?;
        let mut stats = Vec::with_capacity(listed.len());
        let mut new = listed.clone();
        for _ in 0..PASSES {
            let mut ended = false;
            for pid in new {
                match proc.read_of_living(pid, "stat")? {
                    Some(line) => {
                        let stat = Stat::parse(line)?;
                        ended |= stat.is_zombie();
                        stats.push(stat);
                    }
                    None => ended = true,
                }
            }
            if !ended {
                break;
            }
            let before = std::mem::replace(&mut listed, pids()?);
            new = listed.iter().copied().filter(|pid| before.binary_search(pid).is_err()).collect();
        }
        Ok(Self::new(stats))
    }

    /// A table of these processes; of several with one PID, one is kept.
    pub fn new(mut stats: Vec<Stat>) -> Self {
        stats.sort_by_key(|stat| stat.pid);
        stats.dedup_by_key(|stat| stat.pid);
        stats.shrink_to_fit();
        let mut by_parent: Vec<u32> = (0..).take(stats.len()).collect();
        by_parent.sort_by_key(|&place| stats[place as usize].ppid);
        Self { stats, by_parent }
    }

    /// The process that had this PID.
    pub fn get(&self, pid: u32) -> Option<&Stat> {
        Some(&self.stats[self.place(pid)?])
    }

    /// All of them, ascending by PID.
    pub fn iter(&self) -> std::slice::Iter<'_, Stat> {
        self.stats.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.stats.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }

    /// The children of this PID, ascending.
    pub fn children_of(&self, pid: u32) -> impl Iterator<Item = &Stat> {
        self.places_of_children(pid).map(|place| &self.stats[place])
    }

    /// The children of this PID, their children and so on, ascending, without the process itself. As the table is not one instant,
    /// parentage may run in a circle in it; each process is named once all the same.
    pub fn descendants_of(&self, pid: u32) -> Vec<&Stat> {
        let mut found = vec![false; self.stats.len()];
        let mut parents = vec![pid];
        while let Some(parent) = parents.pop() {
            for place in self.places_of_children(parent) {
                let stat = &self.stats[place];
                if stat.pid != pid && !std::mem::replace(&mut found[place], true) {
                    parents.push(stat.pid);
                }
            }
        }
        self.stats.iter().zip(found).filter_map(|(stat, found)| found.then_some(stat)).collect()
    }

    /// How many zombies there are on the host.
    pub fn zombies(&self) -> u64 {
        self.stats.iter().filter(|stat| stat.state == b'Z').count() as u64
    }

    /// Where the process with this PID stands in [`Table::iter`].
    pub(super) fn place(&self, pid: u32) -> Option<usize> {
        self.stats.binary_search_by_key(&pid, |stat| stat.pid).ok()
    }

    /// The process at this place, which must be one of [`Table::iter`].
    pub(super) fn at(&self, place: usize) -> &Stat {
        &self.stats[place]
    }

    /// Where the children of this PID stand.
    pub(super) fn places_of_children(&self, pid: u32) -> impl Iterator<Item = usize> {
        let ppid = |place: &u32| self.stats[*place as usize].ppid;
        let first = self.by_parent.partition_point(|place| ppid(place) < pid);
        self.by_parent[first..].iter().take_while(move |place| ppid(place) == pid).map(|&place| place as usize)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::procfs::testing::TestProcess;
    use proptest::prelude::*;

    /// A process with nothing but parentage.
    pub(crate) fn stat(pid: u32, ppid: u32) -> Stat {
        Stat {
            pid,
            comm: b"test"[..].into(),
            state: b'S',
            ppid,
            pgrp: 0,
            session: 0,
            utime: 0,
            stime: 0,
            threads: 1,
            start_time: u64::from(pid) * 10,
            vsize: 0,
            rss_pages: 1,
        }
    }

    fn pids_of<'a>(stats: impl IntoIterator<Item = &'a Stat>) -> Vec<u32> {
        stats.into_iter().map(|stat| stat.pid).collect()
    }

    #[test]
    fn trees_are_walked_and_circles_do_not_hang() {
        let table = Table::new(vec![stat(5, 2), stat(1, 0), stat(2, 1), stat(3, 1), stat(9, 5), stat(20, 21), stat(21, 20), stat(30, 30)]);
        assert_eq!(pids_of(table.iter()), [1, 2, 3, 5, 9, 20, 21, 30]);
        assert_eq!(pids_of(table.children_of(1)), [2, 3]);
        assert_eq!(pids_of(table.descendants_of(1)), [2, 3, 5, 9]);
        assert_eq!(pids_of(table.descendants_of(20)), [21]);
        assert_eq!(pids_of(table.descendants_of(30)), Vec::<u32>::new());
        assert_eq!(pids_of(table.descendants_of(77)), Vec::<u32>::new());
        assert_eq!(table.get(9).unwrap().ppid, 5);
        assert!(table.get(4).is_none());
    }

    #[test]
    fn a_scan_sees_a_child_and_its_zombie() {
        let mut child = TestProcess::sleep();
        let table = Table::scan().unwrap();
        assert_eq!(table.get(child.id()).unwrap().ppid, std::process::id());
        assert!(table.children_of(std::process::id()).any(|stat| stat.pid == child.id()));
        assert!(table.descendants_of(1).iter().any(|stat| stat.pid == child.id()));
        child.kill();
        assert!(Table::scan().unwrap().get(child.id()).unwrap().is_zombie());
        assert!(Table::scan().unwrap().zombies() >= 1);
        child.end();
        assert!(Table::scan().unwrap().get(child.id()).is_none());
    }

    #[test]
    fn hostile_names_hide_nobody() {
        for name in [&b") R 1 1 ("[..], b"\n\n(42)", b"\xff\xfe\x80", b" ", b"a b"] {
            let mut child = TestProcess::spawn(name);
            let stat = Table::scan().unwrap().get(child.id()).cloned().unwrap();
            assert_eq!(&*stat.comm, name);
            assert_eq!((stat.ppid, stat.is_zombie()), (std::process::id(), false));
            assert_eq!(stat.name(), String::from_utf8_lossy(name));
            child.end();
        }
    }

    proptest! {
        #[test]
        fn descendants_are_those_whose_ancestry_leads_there(parents in proptest::collection::vec(0..40_u32, 0..40), root in 0..40_u32) {
            let table = Table::new((1..).zip(&parents).map(|(pid, &ppid)| stat(pid, ppid)).collect());
            let expected: Vec<u32> = table.iter().filter(|process| {
                let mut ancestor = process.ppid;
                let leads_there = (0..=parents.len()).any(|_| {
                    let there = ancestor == root;
                    ancestor = table.get(ancestor).map_or(u32::MAX, |parent| parent.ppid);
                    there
                });
                leads_there && process.pid != root
            }).map(|process| process.pid).collect();
            prop_assert_eq!(pids_of(table.descendants_of(root)), expected);
        }
    }
}
