//! 2,000 sub-processes beside 200: what each of them costs must not grow with their number.
//!
//! Each number has a daemon of its own, and nothing of the other runs meanwhile: every look at the processes of the host would see it. The floor of
//! a row is what each of the 200 costs, so its ratio is the growth; where the kernel's own part grows, the row of bare starts shows by how much.

use std::time::Duration;

use procman::protocol::Name;
use procman::protocol::reply::StatusOfAll;
use procman::protocol::request::{Command, Status};

use crate::Outcome;
use crate::daemon::{Daemon, SLEEP, names};
use crate::memory::refresh_cost;
use crate::sample::Samples;
use crate::starts::Sleepers;
use crate::table::{Amount, Row};

const FEW: usize = 200;
const MANY: usize = 2000;
const ROUNDS: usize = 3;
/// How often each answer is asked for in a round.
const ANSWERS: usize = 10;
/// After so long no status is fresh any more, so that all of them are looked at for each answer: a few would otherwise be answered as last seen.
const STALE: Duration = Duration::from_millis(30);
/// Cost of each of many, in that of each of few.
const GROWTH: f64 = 1.2;

/// What so many cost together.
#[derive(Default)]
struct Costs {
    bare: Samples,
    start: Samples,
    status: Samples,
    scrape: Samples,
    quit: Samples,
    /// In seconds, and of one core in percent.
    pass: Vec<f64>,
    percent: Vec<f64>,
    /// Bytes over those of the idle daemon.
    resident: Vec<f64>,
    unique: Vec<f64>,
}

impl Costs {
    fn round(&mut self, names: &[Name]) -> Outcome<()> {
        {
            let mut sleepers = Sleepers::default();
            self.bare.time(|| names.iter().try_for_each(|_| sleepers.start(SLEEP[1])))?;
        }
        let mut daemon = Daemon::start()?;
        let idle = daemon.settled_memory()?;
        daemon.register(names)?;
        self.start.time(|| daemon.execute_pipelined(names))?;
        let running = daemon.settled_memory()?;
        self.resident.push(running.rss as f64 - idle.rss as f64);
        self.unique.push(running.uss as f64 - idle.uss as f64);
        for _ in 0..ANSWERS {
            daemon.let_pass(STALE)?;
            let all: StatusOfAll = self.status.time(|| daemon.ask(&Command::Status(Status { name: None })))?;
            if all.processes.iter().filter(|each| each.status.is_some()).count() != names.len() {
                return Err("not all of them have a status".into());
            }
            self.scrape.time(|| daemon.scrape())?;
        }
        let (percent, pass) = refresh_cost(&daemon)?;
        if let (Amount::Percent(percent), Amount::Seconds(pass)) = (percent, pass) {
            self.percent.push(percent);
            self.pass.push(pass);
        }
        self.quit.time(|| daemon.quit_all())?;
        daemon.leave()
    }
}

/// The smallest, as [`Samples::best`].
fn least(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let (mut few, mut many) = (Costs::default(), Costs::default());
    for _ in 0..ROUNDS {
        few.round(&names(0..FEW)?)?;
        many.round(&names(0..MANY)?)?;
    }
    type Cost = fn(&Costs) -> Amount;
    let costs: [(&str, Cost, bool); 9] = [
        ("posix_spawn loop", |costs| costs.bare.best().into(), false),
        ("started, requests pipelined", |costs| costs.start.best().into(), true),
        ("status of all in one reply", |costs| costs.status.best().into(), true),
        ("metrics scrape", |costs| costs.scrape.best().into(), true),
        ("one refresh", |costs| Amount::Seconds(least(&costs.pass)), true),
        ("refresh each second, of one core", |costs| Amount::Percent(least(&costs.percent)), false),
        ("quit with one request", |costs| costs.quit.best().into(), true),
        ("memory, resident", |costs| Amount::Bytes(least(&costs.resident)), true),
        ("memory, unique", |costs| Amount::Bytes(least(&costs.unique)), false),
    ];
    let mut rows = Vec::new();
    for (what, cost, bounded) in costs {
        let (of_few, of_many) = (cost(&few), cost(&many));
        rows.push(Row::new(format!("{MANY}: {what}"), of_many));
        let each = Row::new(format!("each of {MANY}: {what}"), of_many.per(MANY)).against(of_few.per(FEW), "each of 200");
        rows.push(if bounded { each.ratio_at_most(GROWTH) } else { each });
    }
    Ok(rows)
}
