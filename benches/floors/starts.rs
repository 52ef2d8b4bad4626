//! Starting and stopping 500 processes, against a loop of `posix_spawn`, and of signals.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procman::protocol::Signal;
use procman::sys::pidfd::PidFd;

use crate::Outcome;
use crate::daemon::{Containment, Daemon, SLEEP, names};
use crate::sample::Samples;
use crate::table::{Amount, Row};

const PROCESSES: usize = 500;
const ROUNDS: usize = 5;

/// Children of our own, killed and reaped when dropped.
#[derive(Default)]
pub(crate) struct Sleepers(Vec<Child>);

impl Sleepers {
    /// One more. Without anything to do between fork and exec, the standard library uses posix_spawn(3).
    pub(crate) fn start(&mut self, argument: &str) -> Outcome<()> {
        let mut command = Command::new(SLEEP[0]);
        command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(command.spawn()?);
        Ok(())
    }

    /// SIGTERM to all, then reaps all.
    fn stop(&mut self) -> Outcome<()> {
        for child in &self.0 {
            PidFd::open(child.id())?.send_signal(Signal::TERM.number())?;
        }
        for mut child in self.0.drain(..) {
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for (containment, word) in Containment::kinds()? {
        rows.extend(measure_with(containment, word)?);
    }
    Ok(rows)
}

fn measure_with(containment: Containment, word: &str) -> Outcome<[Row; 4]> {
    let mut daemon = Daemon::start_with(containment)?;
    let names = names(0..PROCESSES)?;
    daemon.register(&names)?;

    let (mut bare, mut bare_stop) = (Samples::default(), Samples::default());
    let (mut sequential, mut pipelined, mut stop) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let mut sleepers = Sleepers::default();
        bare.time(|| (0..PROCESSES).try_for_each(|_| sleepers.start(SLEEP[1])))?;
        bare_stop.time(|| sleepers.stop())?;
        sequential.time(|| daemon.execute(&names))?;
        stop.time(|| daemon.quit_all())?;
        pipelined.time(|| daemon.execute_pipelined(&names))?;
        stop.time(|| daemon.quit_all())?;
    }

    // One by one, as a client does that cares for the order.
    daemon.execute_pipelined(&names)?;
    let began = Instant::now();
    daemon.leave()?;
    let leaving = began.elapsed();

    let row = |what: &str, time: Duration| Row::new(format!("{what}{word}"), time);
    Ok([
        row("500 started, one request after the other", sequential.best()).against(bare.best(), "posix_spawn loop").ratio_at_most(1.5),
        row("500 started, requests pipelined", pipelined.best()).against(bare.best(), "posix_spawn loop").ratio_at_most(1.5),
        row("500 quit with one request", stop.best()).against(bare_stop.best(), "SIGTERM and wait").at_most(Amount::Seconds(2.0)),
        row("leaving with 500 running, in order", leaving),
    ])
}
