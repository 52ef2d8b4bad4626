//! What a daemon goes through.

use std::time::{Duration, Instant};

use nix::sys::wait::WaitStatus;
use procman::client::Client;
use procman::procfs;
use procman::protocol::reply::Pong;
use procman::protocol::request::{Command, NoArgs};

use super::books::Books;
use super::keeper::Keeper;
use super::manager::{DEADLINE, Manager, Running};
use super::marked;
use super::operator::Operator;
use super::random::{Random, let_pass};
use super::reaper::Reaper;
use super::scene::{Means, Part, Scene};
use super::table::Row;

/// A kill comes this long after an answer, at most.
const LATEST: Duration = Duration::from_millis(300);
/// So many kills in a hundred come while the daemon is still recovering.
const EARLY: u64 = 30;
/// How long a daemon may take to come to a point.
const POINT: Duration = Duration::from_secs(10);
/// A recovery that takes longer waited for something, or the machine stood still.
const SLOW: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// A scene that is played.
struct Ordeal {
    manager: Manager,
    books: Books,
    operator: Operator,
    random: Random,
    remarks: Vec<String>,
}

/// What came out: the figures, and what was wrong.
pub(crate) struct Outcome {
    pub(crate) row: Row,
    pub(crate) problems: Vec<String>,
    pub(crate) remarks: Vec<String>,
}

/// Kills it at random moments.
pub(crate) fn random_kills(means: Means, reaper: &Reaper, seed: u64, kills: u64) -> Outcome {
    let (mut ordeal, mut running) = Ordeal::begin(means, reaper, seed);
    while ordeal.books.row.kills < kills && ordeal.books.problems.is_empty() {
        running.kill();
        ordeal.books.row.kills += 1;
        running = ordeal.manager.start(None);
        if ordeal.random.percent(EARLY) {
            let usual = ordeal.books.row.recoveries.last().copied().unwrap_or(LATEST);
            let within = ordeal.random.up_to(usual);
            ordeal.books.row.early += u64::from(ordeal.manager.reach(&running, within).is_none());
            continue;
        }
        let mut client = ordeal.recovered(&running);
        let _: Pong = client.request(&Command::Ping(NoArgs {})).unwrap();
        let_pass(ordeal.random.up_to(LATEST));
    }
    ordeal.end(running)
}

/// Has it killed at each of these points.
pub(crate) fn kills_at(means: Means, reaper: &Reaper, seed: u64, points: &[(&str, u64)]) -> Outcome {
    let (mut ordeal, mut running) = Ordeal::begin(means, reaper, seed);
    for (point, times) in points {
        running.kill();
        let doomed = ordeal.manager.start(Some(&format!("{point}:{times}")));
        if doomed.wait(POINT).is_none() {
            ordeal.books.problem(format!("the daemon never came to {point} for the {times}. time"));
            doomed.kill();
        }
        ordeal.books.row.kills += 2;
        running = ordeal.manager.start(None);
        drop(ordeal.recovered(&running));
        if !ordeal.books.problems.is_empty() {
            ordeal.books.problem(format!("that was at {point}, the {times}. time"));
            break;
        }
    }
    ordeal.end(running)
}

impl Ordeal {
    fn begin(means: Means, reaper: &Reaper, seed: u64) -> (Self, Running) {
        let scene = Scene::set(means);
        let mut random = Random(seed);
        let operator = Operator::begin(&scene, Random(random.next()));
        let manager = Manager::new(scene, reaper.clone());
        let books = Books::open(&manager);
        let mut ordeal = Self { manager, books, operator, random, remarks: Vec::new() };
        let running = ordeal.manager.start(None);
        let mut client = ordeal.manager.reach(&running, DEADLINE).expect("the daemon answers");
        for _ in 0..DEADLINE.as_millis() / LOOK.as_millis() {
            if ordeal.books.all_up(&mut client) {
                break;
            }
            let_pass(LOOK);
        }
        ordeal.check(&mut client);
        (ordeal, running)
    }

    /// A daemon that was just started has answered, and what it says is right.
    fn recovered(&mut self, running: &Running) -> Client {
        let Some(mut client) = self.manager.reach(running, DEADLINE) else {
            panic!("the daemon does not answer");
        };
        let took = self.manager.since_execution();
        self.books.row.recoveries.push(took);
        if took > SLOW {
            self.remarks.push(format!("a daemon answered after {took:?} only; its log: {}", self.manager.scene.save_log()));
        }
        self.check(&mut client);
        client
    }

    fn check(&mut self, client: &mut Client) {
        let mut deeds = self.operator.hold();
        self.books.check(&self.manager, client, &mut deeds);
        self.books.row.commands = deeds.done;
    }

    /// What is to go on goes on, what is to be gone is gone, and a daemon that is asked to leave leaves nothing.
    fn end(mut self, running: Running) -> Outcome {
        self.operator.stop();
        let since = u64::try_from(procfs::monotonic().as_micros()).unwrap();
        let mut client = self.manager.reach(&running, DEADLINE).expect("the daemon answers");
        self.wait("these are not started any more", |ordeal| {
            let names = ordeal.manager.scene.of(Part::Loop);
            ordeal.books.not_started_since(&names, since)
        });
        self.wait("these are of runs that are over", |ordeal| {
            let bearers = marked::bearers(&ordeal.manager.mark);
            let present = Books::present(&mut client);
            let strays = bearers.into_iter().filter(|bearer| bearer.uuid.as_ref().is_some_and(|uuid| !present.contains(uuid)));
            marked::describe(&strays.collect::<Vec<_>>())
        });
        self.check(&mut client);
        self.books.check_whole_history(&mut client);
        drop(client);
        let status = running.leave();
        if !matches!(status, WaitStatus::Exited(_, 0)) {
            self.books.problem(format!("the daemon was asked to leave, and {status:?}"));
        }
        for remains in self.manager.remains() {
            self.books.problem(format!("the daemon has left behind {remains}"));
        }
        for wrong in self.manager.keeper.iter().flat_map(Keeper::wrong) {
            self.books.problem(format!("a service manager would not understand {wrong:?}"));
        }
        let Self { manager, books, mut remarks, .. } = self;
        if books.excused > 0 {
            remarks.push(format!(
                "{} statuses were lost because the daemon was killed between the start and handing the descriptor over",
                books.excused
            ));
        }
        if !books.problems.is_empty() {
            remarks.push(format!("the daemon's log: {}", manager.scene.save_log()));
        }
        Outcome { row: books.row, problems: books.problems, remarks }
    }

    /// Waits until nothing is left of something.
    fn wait(&mut self, what: &str, mut left: impl FnMut(&mut Self) -> Vec<String>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let list = left(self);
            if list.is_empty() || !self.books.problems.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                return self.books.problem(format!("{what}: {list:?}"));
            }
            let_pass(LOOK);
        }
    }
}
