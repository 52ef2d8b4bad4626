//! The units and clocks of `/proc`.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use super::file::{number, open_dir, read_at};

/// Clock ticks in one second, the unit of the times in `/proc/PID/stat`; 100 on every Linux that one meets (sysconf(3), `_SC_CLK_TCK`).
pub fn clock_ticks() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| ask(SysconfVar::CLK_TCK).unwrap_or(100))
}

/// Bytes in one page of memory.
pub fn page_size() -> u64 {
    static SIZE: OnceLock<u64> = OnceLock::new();
    *SIZE.get_or_init(|| ask(SysconfVar::PAGE_SIZE).unwrap_or(4096))
}

fn ask(variable: SysconfVar) -> Option<u64> {
    u64::try_from(sysconf(variable).ok()??).ok().filter(|&value| value > 0)
}

/// Time since the host booted, suspension included (`CLOCK_BOOTTIME`): the clock that start times are counted on.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Time on the clock that nobody sets and that stands still while the host is suspended (`CLOCK_MONOTONIC`): the one of [`std::time::Instant`], but
/// the same for every process until the host boots again.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// The same at an instant of this process that is past, in nanoseconds: what is written down of it for later daemons of this boot.
pub fn nanoseconds_at(instant: Instant) -> u64 {
    u64::try_from(monotonic().saturating_sub(instant.elapsed()).as_nanos()).unwrap_or(u64::MAX)
}

/// Names this boot of the host: no two boots have the same (proc_sys_kernel(5), `random/boot_id`).
///
/// # Errors
/// `/proc` does not show it.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// When the host booted, in whole Unix seconds: `btime` of `/proc/stat`, as psutil takes it.
///
/// The kernel reckons it from the wall clock, so a step of that clock moves it. It is read once and again after each step: a daemon that
/// started before the clock was set does not date processes wrongly for ever.
pub fn boot_time() -> f64 {
    /// More than the two readings of clocks below lie apart, unless we are put aside between them, which costs a reading and no more.
    const STEP: Duration = Duration::from_millis(1);
    struct Known {
        offset: Duration,
        btime: u64,
    }
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let offset = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from).saturating_sub(since_boot());
    if let Some(known) = &*known
        && known.offset.abs_diff(offset) < STEP
    {
        return known.btime as f64;
    }
    let btime = read_btime().unwrap_or(offset.as_secs());
    *known = Some(Known { offset, btime });
    btime as f64
}

fn read_btime() -> io::Result<u64> {
    let mut buffer = Vec::new();
    let content = read_at(open_dir("/proc")?, "stat", &mut buffer)?;
    content
        .split(|&byte| byte == b'\n')
        .find_map(|line| number(line.strip_prefix(b"btime ")?))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/stat has no line btime"))
}

/// When a process with this start time was made, in Unix seconds, as psutil reckons it.
pub fn create_time(start_time: u64) -> f64 {
    start_time as f64 / clock_ticks() as f64 + boot_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_is_dated_as_the_kernel_dates_it() {
        let text = std::fs::read_to_string("/proc/stat").unwrap();
        let btime: f64 = text.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse().unwrap();
        assert_eq!(boot_time(), btime);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let reckoned = now - since_boot().as_secs_f64();
        assert!((boot_time() - reckoned).abs() < 1.5, "{} against {reckoned}", boot_time());
    }

    #[test]
    fn units_are_those_of_getconf() {
        let getconf = |name| {
            let out = std::process::Command::new("getconf").arg(name).output().unwrap().stdout;
            String::from_utf8(out).unwrap().trim().parse::<u64>().unwrap()
        };
        assert_eq!(clock_ticks(), getconf("CLK_TCK"));
        assert_eq!(page_size(), getconf("PAGE_SIZE"));
    }
}
