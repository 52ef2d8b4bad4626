//! Keeps account of a scene: what each daemon says is held against the truth, and against what the daemons before it said.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use procman::client::Client;
use procman::protocol::reply::{PastRun, View};
use procman::protocol::request::{Command, History, List};
use procman::protocol::{StateName, Wanted};

use super::judge::{Verdict, judge};
use super::manager::Manager;
use super::operator::{Deeds, Wish};
use super::random::let_pass;
use super::scene::Part;
use super::table::Row;
use super::truth::Truth;

/// So many records are asked for at first; the runs of a second or two.
const RECENT: u64 = 500;
/// How long what was wanted may take to be.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// A list of what is wrong ends here.
const ENOUGH: usize = 20;

/// The account of one scene.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) row: Row,
    pub(crate) problems: Vec<String>,
    truth: Truth,
    /// By UUID: how each run ended, as was first said.
    told: HashMap<String, Option<i32>>,
    /// The process of each that keeps it.
    rocks: BTreeMap<String, u32>,
    /// Runs that a daemon answered for and that were not seen since.
    answered: BTreeSet<String>,
    /// Runs that are said to have had no process.
    unborn: Vec<String>,
    /// Whose status was lost before anybody could have handed its descriptor over.
    pub(crate) excused: u64,
}

fn list(client: &mut Client) -> BTreeMap<String, View> {
    let views: Vec<View> = client.request(&Command::List(List::default())).unwrap();
    views.into_iter().map(|view| (view.name.to_string(), view)).collect()
}

impl Books {
    pub(crate) fn open(manager: &Manager) -> Self {
        let truth = Truth::open(manager.scene.dir());
        let row = Row::new(&manager.scene);
        Self {
            row,
            problems: Vec::new(),
            truth,
            told: HashMap::new(),
            rocks: BTreeMap::new(),
            answered: BTreeSet::new(),
            unborn: Vec::new(),
            excused: 0,
        }
    }

    pub(crate) fn problem(&mut self, what: String) {
        if self.problems.len() < ENOUGH {
            self.problems.push(what);
        }
    }

    /// Holds everything that a daemon says against everything that is known. `deeds` are held meanwhile.
    pub(crate) fn check(&mut self, manager: &Manager, client: &mut Client, deeds: &mut Deeds) {
        let deadline = Instant::now() + PATIENCE;
        self.truth.read();
        // Those that have started by now must be known. One that ends between the two answers is in the second.
        let mut sought: BTreeSet<String> = self.truth.runs.keys().filter(|uuid| !self.told.contains_key(*uuid)).cloned().collect();
        self.answered.extend(deeds.answered.drain(..));
        sought.extend(std::mem::take(&mut self.answered));
        loop {
            let views = list(client);
            self.take_history(manager, client, deeds, RECENT);
            self.seek(&views, &mut sought);
            let misplaced = self.misplaced(&views, deeds);
            // What is being ended is told of once that is done, what was just started once the daemon has seen that, and what waits for its start is
            // started soon.
            if (misplaced.is_empty() && sought.is_empty()) || Instant::now() > deadline {
                misplaced.into_iter().for_each(|problem| self.problem(problem));
                break;
            }
            let_pass(TRY_AGAIN);
        }
        for uuid in sought {
            self.row.lost += 1;
            self.problem(format!("lost: {uuid}, in truth {:?}", self.truth.runs.get(&uuid)));
            self.told.insert(uuid, None); // told once
        }
        self.row.runs = self.truth.runs.len();
        self.row.doubled = self.truth.doubles.len();
        for double in self.truth.doubles.clone() {
            self.problem(format!("doubled: {double}"));
        }
        for uuid in &self.unborn {
            if let Some(run) = self.truth.runs.get(uuid) {
                self.row.wrong += 1;
                self.problems.push(format!("it was said to have had no process, and it has: {uuid}, {run:?}"));
            }
        }
        for wrong in std::mem::take(&mut deeds.wrong) {
            self.problem(format!("an answer: {wrong}"));
        }
    }

    /// Takes those off that are known: they are over, or they live under the daemon's eyes.
    fn seek(&mut self, views: &BTreeMap<String, View>, sought: &mut BTreeSet<String>) {
        let present: BTreeSet<&str> = views.values().filter(|view| view.pid.is_some()).filter_map(|view| view.uuid.as_deref()).collect();
        self.answered.extend(sought.iter().filter(|uuid| present.contains(uuid.as_str())).cloned());
        sought.retain(|uuid| !self.told.contains_key(uuid) && !present.contains(uuid.as_str()));
    }

    /// Reads records until one comes that was read before.
    fn take_history(&mut self, manager: &Manager, client: &mut Client, deeds: &Deeds, mut limit: u64) {
        let records: Vec<PastRun> = loop {
            let records: Vec<PastRun> = client.request(&Command::History(History { name: None, limit: Some(limit) })).unwrap();
            if (records.len() as u64) < limit || records.iter().any(|record| self.told.contains_key(&record.uuid)) {
                break records;
            }
            limit *= 4;
        };
        // Whoever ends by himself has written so by now.
        self.truth.read();
        let mut seen = BTreeSet::new();
        for record in records {
            if !seen.insert(record.uuid.clone()) {
                self.row.doubled += 1;
                self.problem(format!("twice in the history: {record:?}"));
            }
            match self.told.insert(record.uuid.clone(), record.returncode) {
                Some(before) if before == record.returncode => {}
                Some(before) => self.problem(format!("told again, with {before:?} before: {record:?}")),
                None => self.enter(manager, deeds, &record),
            }
        }
    }

    /// No run is told of twice, however long ago it was.
    pub(crate) fn check_whole_history(&mut self, client: &mut Client) {
        let records: Vec<PastRun> = client.request(&Command::History(History { name: None, limit: Some(u64::MAX) })).unwrap();
        let mut seen = BTreeSet::new();
        let twice: Vec<String> = records.into_iter().map(|record| record.uuid).filter(|uuid| !seen.insert(uuid.clone())).collect();
        if !twice.is_empty() {
            self.row.doubled += twice.len();
            self.problem(format!("twice in the history: {twice:?}"));
        }
    }

    fn enter(&mut self, manager: &Manager, deeds: &Deeds, record: &PastRun) {
        self.answered.remove(&record.uuid);
        let touched = deeds.wishes.contains_key(record.name.as_str());
        match judge(record, self.truth.runs.get(&record.uuid), touched) {
            Verdict::Known => self.row.known += 1,
            Verdict::Unborn => self.unborn.push(record.uuid.clone()),
            Verdict::Lost => {
                self.row.status_lost += 1;
                match &manager.keeper {
                    Some(keeper) if keeper.was_given(&record.uuid) => {
                        self.problem(format!("its descriptor was kept, and its status is lost: {record:?}"));
                    }
                    Some(_) => self.excused += 1,
                    None => {}
                }
            }
            Verdict::Wrong(why) => {
                self.row.wrong += 1;
                self.problem(format!("wrong: {why}"));
            }
        }
    }

    /// What is not where it was wanted.
    fn misplaced(&mut self, views: &BTreeMap<String, View>, deeds: &Deeds) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, part) in &self.row.names.clone() {
            let view = &views[name];
            let wish = deeds.wishes.get(name).unwrap_or(&Wish::Open);
            let is_right = match (part, wish) {
                (Part::Rock, _) => {
                    let kept = self.rocks.get(name).is_none_or(|pid| view.pid == Some(*pid));
                    self.rocks.extend(view.pid.map(|pid| (name.clone(), pid)));
                    kept && view.wanted == Wanted::Up
                }
                (Part::Loop, _) => view.wanted == Wanted::Up,
                (_, Wish::Open) => true,
                (_, Wish::Down) => view.wanted == Wanted::Down && view.pid.is_none(),
                (Part::Toy, Wish::Up(uuid)) => view.uuid.as_ref() == Some(uuid) && view.pid.is_some() && view.wanted == Wanted::Up,
                (Part::Once, Wish::Up(uuid)) => view.uuid.as_ref() == Some(uuid),
            };
            if !is_right {
                problems.push(format!("{name} is not where it was wanted, {wish:?}, {:?}: {view:?}", self.rocks.get(name)));
            }
        }
        problems
    }

    /// Whether all that must have a process have one.
    pub(crate) fn all_up(&mut self, client: &mut Client) -> bool {
        let views = list(client);
        self.row.names.iter().filter(|(_, part)| *part == Part::Rock).all(|(name, _)| views[name].state == StateName::Running)
    }

    /// Those of these that have not started since this time, in microseconds on the monotonic clock.
    pub(crate) fn not_started_since(&mut self, names: &[&str], time: u64) -> Vec<String> {
        self.truth.read();
        let started: BTreeSet<&str> = self.truth.runs.values().filter(|run| run.start > time).map(|run| run.name.as_str()).collect();
        names.iter().filter(|name| !started.contains(*name)).map(|name| (*name).to_owned()).collect()
    }

    /// The UUIDs of the runs under way.
    pub(crate) fn present(client: &mut Client) -> BTreeSet<String> {
        list(client).into_values().filter_map(|view| view.uuid).collect()
    }
}
