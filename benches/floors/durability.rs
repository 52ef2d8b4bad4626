//! What it costs that nothing is lost: a start with its intent written down, against one while the database is locked by somebody, so that nothing is
//! written and nobody waits for it; and how soon the next daemon answers when one was killed.

use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use crate::Outcome;
use crate::daemon::{Daemon, names};
use crate::sample::Samples;
use crate::table::{Amount, Row};

const STARTS: usize = 100;
const ROUNDS: usize = 5;
const RUNNING: usize = 1000;
/// More than the daemon gives a locked database before that is trouble.
const TROUBLE: Duration = Duration::from_secs(2);

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let mut rows = vec![recording()?];
    rows.extend(following()?);
    Ok(rows)
}

fn recording() -> Outcome<Row> {
    let mut daemon = Daemon::start()?;
    let names = names(0..STARTS)?;
    daemon.register(&names)?;
    let (mut written, mut unwritten) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        each_started(&mut daemon, &names, &mut written)?;
        let mut connection = Connection::open(daemon.database())?;
        let lock = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // The first that is to be written waits until it is clear that it cannot be.
        daemon.execute(&names[..1])?;
        daemon.let_pass(TROUBLE)?;
        daemon.quit_all()?;
        each_started(&mut daemon, &names, &mut unwritten)?;
        drop(lock);
        daemon.let_pass(TROUBLE)?;
    }
    daemon.leave()?;
    let row = Row::new("a start with its intent written down, p50".to_owned(), written.quantile(0.5));
    Ok(row.against(unwritten.quantile(0.5), "nothing written").ratio_at_most(1.2))
}

fn each_started(daemon: &mut Daemon, names: &[procman::protocol::Name], samples: &mut Samples) -> Outcome<()> {
    for name in names {
        samples.time(|| daemon.execute(std::slice::from_ref(name)))?;
    }
    daemon.quit_all()
}

fn following() -> Outcome<Vec<Row>> {
    let mut empty = Samples::default();
    let mut daemon = Daemon::start()?;
    for _ in 0..ROUNDS {
        let (next, took) = daemon.succeeded()?;
        daemon = next;
        empty.push(took);
    }
    let names = names(0..RUNNING)?;
    daemon.register(&names)?;
    daemon.execute_pipelined(&names)?;
    let mut full = Samples::default();
    for _ in 0..ROUNDS {
        // What is known of the last start is on its way to the disk still.
        daemon.let_pass(Duration::from_millis(200))?;
        let (next, took) = daemon.succeeded()?;
        daemon = next;
        full.push(took);
    }
    let began = Instant::now();
    daemon.quit_all()?;
    let quit = began.elapsed();
    daemon.leave()?;
    let row = Row::new("killed with 1000 running, until the next daemon answers, p50".to_owned(), full.quantile(0.5));
    Ok(vec![
        row.against(empty.quantile(0.5), "with nothing").at_most(Amount::Seconds(1.0)),
        Row::new("1000 that were taken over quit with one request".to_owned(), quit),
    ])
}
