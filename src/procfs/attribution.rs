//! Who belongs to which run: decided purely, from one table.

use std::collections::BTreeSet;

use super::stat::{Identity, Stat};
use super::table::Table;

/// Who owns whom: runs by their place in the list of mains, processes by their place in the table.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    /// For each process of the table its run.
    pub(super) owners: Vec<Option<u32>>,
    /// Direct children of the daemon that belong to nobody.
    pub(super) unattributed: Vec<u32>,
}

impl Attribution {
    /// Attributes the processes of `table` to the runs whose main processes are `mains`.
    ///
    /// The daemon is a subreaper (`PR_SET_CHILD_SUBREAPER`), so every process that a run ever made is below its main process by parentage,
    /// or below an orphan that became the daemon's own child. Parentage is settled first; a main process is always its own run, wherever it
    /// stands. Of the processes that it leaves over, one belongs to a run, in this order,
    ///
    /// 1. if it was a member of that run before (`remembered`): membership is for life, and needs no reading;
    /// 2. if its session is that of the run's main process, which called setsid(2): nobody but descendants of a session's leader is ever
    ///    in it, and the kernel gives the number to no new process as long as one of them lives. It must not be the daemon's own session;
    /// 3. if it is a child of the daemon, or of somebody who took the children of an earlier daemon in (`fosters`), and its control group or its
    ///    environment names the run (`marker`, which may be slow and is asked last and of few).
    ///
    /// Descendants of those belong to the same run. What is left over belongs to nobody.
    pub(super) fn of(
        table: &Table,
        daemon: u32,
        fosters: &BTreeSet<u32>,
        mains: &[Identity],
        remembered: impl Fn(Identity) -> Option<u32>,
        mut marker: impl FnMut(&Stat) -> Option<u32>,
    ) -> Self {
        let mut claims = Claims { table, daemon, owners: vec![None; table.len()], parents: Vec::new() };

        let places: Vec<Option<usize>> = mains.iter().map(|main| claims.place_of(*main)).collect();
        for (run, place) in (0..).zip(&places) {
            if let Some(place) = *place {
                claims.owners[place] = Some(run); // all of them first: none is swallowed by another's tree
            }
        }
        for (run, place) in (0..).zip(&places) {
            if let Some(place) = *place {
                claims.claim_below(place, run);
            }
        }

        let sessions = Sessions::of(table, daemon, mains);
        let mut orphans = Vec::new();
        for place in 0..table.len() {
            let stat = table.at(place);
            if claims.owners[place].is_some() || stat.pid == daemon {
                continue;
            }
            if let Some(run) = remembered(stat.identity()).or_else(|| sessions.run(stat)) {
                claims.owners[place] = Some(run);
                claims.claim_below(place, run);
            } else if stat.ppid == daemon || fosters.contains(&stat.ppid) {
                orphans.push(place);
            }
        }

        let mut unattributed = Vec::new();
        for place in orphans {
            if claims.owners[place].is_some() {
                continue; // it is below one that was claimed just now
            }
            match marker(table.at(place)) {
                Some(run) => {
                    claims.owners[place] = Some(run);
                    claims.claim_below(place, run);
                }
                None if table.at(place).ppid == daemon => unattributed.push(place as u32),
                None => {}
            }
        }
        Self { owners: claims.owners, unattributed }
    }
}

struct Claims<'t> {
    table: &'t Table,
    daemon: u32,
    owners: Vec<Option<u32>>,
    parents: Vec<u32>,
}

impl Claims<'_> {
    fn place_of(&self, process: Identity) -> Option<usize> {
        self.table.place(process.pid).filter(|&place| self.table.at(place).identity() == process)
    }

    /// Gives everything below this process that has no owner yet to the run. What has one is not entered, so circles end here too.
    fn claim_below(&mut self, place: usize, run: u32) {
        self.parents.push(self.table.at(place).pid);
        while let Some(parent) = self.parents.pop() {
            for child in self.table.places_of_children(parent) {
                let pid = self.table.at(child).pid;
                if self.owners[child].is_none() && pid != self.daemon {
                    self.owners[child] = Some(run);
                    self.parents.push(pid);
                }
            }
        }
    }
}

/// The sessions that main processes lead or led, ascending by number.
struct Sessions(Vec<(i32, u64, u32)>);

impl Sessions {
    fn of(table: &Table, daemon: u32, mains: &[Identity]) -> Self {
        let own = table.get(daemon).map_or(0, |daemon| daemon.session);
        let mut sessions = Vec::with_capacity(mains.len());
        for (run, main) in (0..).zip(mains) {
            let Ok(number) = i32::try_from(main.pid) else { continue };
            // A PID that another process has by now says that this session is over.
            let over = table.get(main.pid).is_some_and(|holder| holder.identity() != *main);
            if number != own && number != 0 && !over {
                sessions.push((number, main.start_time, run));
            }
        }
        sessions.sort_unstable();
        Self(sessions)
    }

    fn run(&self, stat: &Stat) -> Option<u32> {
        // Of two mains that had the PID one after the other, the later one that is not younger than the process.
        let end = self.0.partition_point(|&(number, start, _)| (number, start) <= (stat.session, stat.start_time));
        let &(number, _, run) = self.0.get(end.checked_sub(1)?)?;
        (number == stat.session).then_some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::stat;
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::collections::BTreeMap;

    const DAEMON: u32 = 100;

    fn with_session(mut stat: Stat, session: i32) -> Stat {
        stat.session = session;
        stat
    }

    fn owners(table: &Table, attribution: &Attribution) -> BTreeMap<u32, u32> {
        table.iter().zip(&attribution.owners).filter_map(|(stat, owner)| Some((stat.pid, (*owner)?))).collect()
    }

    fn main(pid: u32) -> Identity {
        stat(pid, 0).identity()
    }

    #[test]
    fn each_rule_in_its_order() {
        let table = Table::new(vec![
            with_session(stat(DAEMON, 1), 50),
            with_session(stat(101, DAEMON), 101), // main of run 0
            with_session(stat(102, 101), 101),    // its child
            with_session(stat(103, 102), 103),    // main of run 1, which stands below run 0
            with_session(stat(104, 103), 103),
            with_session(stat(110, DAEMON), 110), // remembered as of run 1
            with_session(stat(111, 110), 110),
            with_session(stat(112, DAEMON), 101), // in the session of run 0; its marker would say run 1
            with_session(stat(113, DAEMON), 50),  // marked as of run 1, in the daemon's session
            with_session(stat(114, 113), 50),
            with_session(stat(115, DAEMON), 50), // nobody's
            with_session(stat(116, 115), 50),
            with_session(stat(120, 1), 120), // a stranger that bears a marker
        ]);
        let marks = BTreeMap::from([(112, 1), (113, 1), (120, 0)]);
        let mut asked = Vec::new();
        let attribution = Attribution::of(
            &table,
            DAEMON,
            &BTreeSet::new(),
            &[main(101), main(103)],
            |process| (process == main(110)).then_some(1),
            |stat| {
                asked.push(stat.pid);
                marks.get(&stat.pid).copied()
            },
        );
        let expected = BTreeMap::from([(101, 0), (102, 0), (103, 1), (104, 1), (110, 1), (111, 1), (112, 0), (113, 1), (114, 1)]);
        assert_eq!(owners(&table, &attribution), expected);
        assert_eq!(attribution.unattributed.iter().map(|&place| table.at(place as usize).pid).collect::<Vec<_>>(), [115]);
        assert_eq!(asked, [113, 115], "environments are read only where nothing else tells");
    }

    #[test]
    fn who_took_orphans_in_is_asked_for_them() {
        let table = Table::new(vec![
            stat(DAEMON, 1),
            stat(101, 1), // main of run 0, of an earlier daemon
            stat(102, 1), // an orphan of it
            stat(103, 102),
            stat(104, 1),  // a stranger
            stat(105, 90), // marked, but nobody's who takes orphans in
        ]);
        let marks = BTreeMap::from([(102, 0), (105, 0)]);
        let fosters = BTreeSet::from([1]);
        let attribution = Attribution::of(&table, DAEMON, &fosters, &[main(101)], |_| None, |stat| marks.get(&stat.pid).copied());
        assert_eq!(owners(&table, &attribution), BTreeMap::from([(101, 0), (102, 0), (103, 0)]));
        assert!(attribution.unattributed.is_empty());
    }

    #[test]
    fn a_pid_that_was_used_again_gives_no_session_away() {
        let mut stranger = with_session(stat(101, DAEMON), 101);
        stranger.start_time += 5;
        let table = Table::new(vec![stat(DAEMON, 1), stranger, with_session(stat(102, DAEMON), 101)]);
        let attribution = Attribution::of(&table, DAEMON, &BTreeSet::new(), &[main(101)], |_| None, |_| None);
        assert_eq!(owners(&table, &attribution), BTreeMap::new());
        assert_eq!(attribution.unattributed.len(), 2);
    }

    #[test]
    fn the_daemon_is_nobodys_member() {
        let table = Table::new(vec![stat(90, 1), stat(DAEMON, 90), stat(101, DAEMON)]);
        let attribution = Attribution::of(&table, DAEMON, &BTreeSet::new(), &[main(90)], |_| None, |_| None);
        assert_eq!(owners(&table, &attribution), BTreeMap::from([(90, 0)]));
    }

    proptest! {
        /// Any table, also one that no kernel would show: parentage in circles, sessions and memories at random.
        #[test]
        fn any_table_is_divided(
            processes in proptest::collection::vec((90..130_u32, 90..130_u32, 90..130_i32), 0..40),
            mains in proptest::collection::btree_set(90..130_u32, 0..6),
            memories in proptest::collection::btree_map(90..130_u32, 0..6_u32, 0..10),
            marks in proptest::collection::btree_map(90..130_u32, 0..6_u32, 0..10),
        ) {
            let table = Table::new(processes.into_iter().map(|(pid, ppid, session)| with_session(stat(pid, ppid), session)).collect());
            let mains: Vec<Identity> = mains.into_iter().filter(|&pid| pid != DAEMON).map(main).collect();
            let runs = mains.len() as u32;
            let known = |map: &BTreeMap<u32, u32>, pid| map.get(&pid).copied().filter(|&run| run < runs);
            let attribution =
                Attribution::of(&table, DAEMON, &BTreeSet::new(), &mains, |process| known(&memories, process.pid), |stat| known(&marks, stat.pid));

            prop_assert_eq!(attribution.owners.len(), table.len());
            for (run, main) in (0..).zip(&mains) {
                if let Some(place) = table.place(main.pid) {
                    prop_assert_eq!(attribution.owners[place], Some(run), "a main is always its own run");
                }
            }
            for (stat, owner) in table.iter().zip(&attribution.owners) {
                prop_assert!(stat.pid != DAEMON || owner.is_none());
                let is_main = mains.iter().any(|main| main.pid == stat.pid);
                if let Some(parent) = table.place(stat.ppid).and_then(|place| attribution.owners[place]) && stat.pid != DAEMON && !is_main {
                    prop_assert!(owner.is_some(), "no child of a member is nobody's");
                    if known(&memories, stat.pid).is_none() && stat.session < 90 {
                        prop_assert_eq!(*owner, Some(parent));
                    }
                }
            }
            let unattributed: BTreeSet<u32> = attribution.unattributed.iter().map(|&place| table.at(place as usize).pid).collect();
            let expected: BTreeSet<u32> =
                table.iter().zip(&attribution.owners).filter(|(stat, owner)| stat.ppid == DAEMON && stat.pid != DAEMON && owner.is_none())
                    .map(|(stat, _)| stat.pid).collect();
            prop_assert_eq!(unattributed, expected);
        }
    }

    /// What may happen to processes; the index chooses among those that live.
    #[derive(Clone, Debug)]
    enum Happening {
        /// The daemon starts a run.
        Start,
        Fork(Index),
        SetSid(Index),
        /// It executes something with an environment of its own.
        ForgetMarker(Index),
        /// Its children become the daemon's.
        Die(Index),
        Look,
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            1 => Just(Happening::Start),
            4 => any::<Index>().prop_map(Happening::Fork),
            1 => any::<Index>().prop_map(Happening::SetSid),
            1 => any::<Index>().prop_map(Happening::ForgetMarker),
            2 => any::<Index>().prop_map(Happening::Die),
            2 => Just(Happening::Look),
        ]
    }

    /// A process of the model, with what only the model knows.
    struct Model {
        stat: Stat,
        run: u32,
        marked: bool,
        seen: bool,
    }

    proptest! {
        /// A history as a kernel would make it: every process that can be known is in its own run, and none in another's.
        #[test]
        fn no_history_loses_or_exchanges_a_process(history in proptest::collection::vec(happening(), 0..120)) {
            let mut living: Vec<Model> = Vec::new();
            let mut mains: Vec<Identity> = Vec::new();
            let mut memory: BTreeMap<Identity, u32> = BTreeMap::new();
            let mut next = DAEMON;
            for happening in history.into_iter().chain([Happening::Look]) {
                match happening {
                    Happening::Start => {
                        next += 1;
                        let stat = with_session(stat(next, DAEMON), next as i32);
                        living.push(Model { run: mains.len() as u32, marked: true, seen: false, stat: stat.clone() });
                        mains.push(stat.identity());
                    }
                    Happening::Fork(index) if !living.is_empty() => {
                        next += 1;
                        let parent = index.get(&living);
                        let (run, marked) = (parent.run, parent.marked);
                        let child = with_session(stat(next, parent.stat.pid), parent.stat.session);
                        living.push(Model { stat: child, run, marked, seen: false });
                    }
                    Happening::SetSid(index) if !living.is_empty() => {
                        let place = index.index(living.len());
                        living[place].stat.session = living[place].stat.pid as i32;
                    }
                    Happening::ForgetMarker(index) if !living.is_empty() => {
                        let place = index.index(living.len());
                        living[place].marked = false;
                    }
                    Happening::Die(index) if !living.is_empty() => {
                        let dead = living.swap_remove(index.index(living.len()));
                        for child in living.iter_mut().filter(|process| process.stat.ppid == dead.stat.pid) {
                            child.stat.ppid = DAEMON;
                        }
                    }
                    Happening::Fork(_) | Happening::SetSid(_) | Happening::ForgetMarker(_) | Happening::Die(_) => {}
                    Happening::Look => {
                        let table = Table::new(
                            living.iter().map(|process| process.stat.clone()).chain([with_session(stat(DAEMON, 1), 1), stat(1, 0)]).collect(),
                        );
                        let marked = |stat: &Stat| living.iter().find(|p| p.stat.pid == stat.pid && p.marked).map(|p| p.run);
                        let attribution = Attribution::of(&table, DAEMON, &BTreeSet::new(), &mains, |process| memory.get(&process).copied(), marked);
                        let owners = owners(&table, &attribution);
                        for process in &mut living {
                            let owner = owners.get(&process.stat.pid).copied();
                            prop_assert!(owner.is_none() || owner == Some(process.run), "{} is in another run", process.stat.pid);
                            process.seen |= owner.is_some();
                            prop_assert!(!process.seen || owner.is_some(), "{} was a member and is none", process.stat.pid);
                            prop_assert!(!process.marked || process.stat.ppid != DAEMON || owner.is_some());
                            prop_assert!(process.stat.session != mains[process.run as usize].pid as i32 || owner.is_some());
                        }
                        memory = table.iter().zip(&attribution.owners).filter_map(|(stat, run)| Some((stat.identity(), (*run)?))).collect();
                    }
                }
            }
        }
    }
}
