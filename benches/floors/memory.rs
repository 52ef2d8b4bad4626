//! What the daemon costs: memory, and processor time for the background refresh.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::daemon::{Daemon, MemoryUse, names};
use crate::table::{Amount, Row};

/// How long the processor time of a daemon that is left alone is watched.
const WATCH: Duration = Duration::from_secs(5);

/// Over [`WATCH`]: percent of one core, and the mean of the refresh passes in seconds.
pub(crate) fn refresh_cost(daemon: &Daemon) -> Outcome<(Amount, Amount)> {
    let passes = || -> Outcome<(f64, f64)> {
        let metric = |part| daemon.metric(&format!("procman_refresh_duration_seconds_{part}"));
        Ok((metric("sum")?, metric("count")?))
    };
    let (began, cpu_before, (sum_before, count_before)) = (Instant::now(), daemon.cpu_seconds()?, passes()?);
    daemon.let_pass(WATCH)?;
    let percent = (daemon.cpu_seconds()? - cpu_before) / began.elapsed().as_secs_f64() * 100.0;
    let (sum, count) = passes()?;
    Ok((Amount::Percent(percent), Amount::Seconds((sum - sum_before) / (count - count_before))))
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let mut daemon = Daemon::start()?;
    let idle = daemon.settled_memory()?;
    let mut rows = vec![
        Row::new("memory of the idle daemon, resident", Amount::Bytes(idle.rss as f64)).at_most(Amount::Bytes(12.0 * 1024.0 * 1024.0)),
        Row::new("memory of the idle daemon, unique", Amount::Bytes(idle.uss as f64)),
    ];
    let mut started = 0;
    for count in [100, 1000] {
        let more = names(started..count)?;
        daemon.register(&more)?;
        daemon.execute(&more)?;
        started = count;
        let now = daemon.settled_memory()?;
        let each = |of: fn(&MemoryUse) -> u64| Amount::Bytes((of(&now) as f64 - of(&idle) as f64) / count as f64);
        let (percent, pass) = refresh_cost(&daemon)?;
        rows.extend([
            Row::new(format!("each of {count} running, resident"), each(|memory| memory.rss)).at_most(Amount::Bytes(24.0 * 1024.0)),
            Row::new(format!("each of {count} running, unique"), each(|memory| memory.uss)),
            Row::new(format!("refresh of {count}, one pass"), pass),
            Row::new(format!("refresh of {count} each second, of one core"), percent),
        ]);
    }
    daemon.quit_all()?;
    daemon.ping()?;
    daemon.leave()?;
    Ok(rows)
}
