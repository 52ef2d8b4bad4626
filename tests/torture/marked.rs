//! The processes of one scene: they bear a variable in their environment.

use std::fs;

use procman::procfs;
use procman::sys::pidfd::PidFd;

use super::random::let_pass;

/// The variable. Its value is the scene's.
pub(crate) const VARIABLE: &str = "PROCMAN_TORTURE";

/// A process that bears the mark.
#[derive(Clone, Debug)]
pub(crate) struct Bearer {
    pub(crate) pid: u32,
    /// The run it belongs to.
    pub(crate) uuid: Option<String>,
}

fn look_at(pid: u32, value: &str) -> Option<Bearer> {
    // Unreadable: it is gone.
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variable = |name: &str| {
        let words = environ.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
        words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    (variable(VARIABLE)? == value).then(|| Bearer { pid, uuid: variable(procfs::MARKER) })
}

/// Who bears it now, zombies left out: they have no environment any more.
pub(crate) fn bearers(value: &str) -> Vec<Bearer> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| look_at(pid, value)).collect()
}

/// The same, for a message.
pub(crate) fn describe(bearers: &[Bearer]) -> Vec<String> {
    let line = |bearer: &Bearer| format!("{}: {}", bearer.pid, procfs::read_cmdline(bearer.pid).unwrap_or_default().join(" "));
    bearers.iter().map(line).collect()
}

/// Kills all that bear it, until none is left.
pub(crate) fn kill_all(value: &str) {
    for _ in 0..500 {
        let bearers = bearers(value);
        if bearers.is_empty() {
            return;
        }
        for bearer in bearers {
            // The descriptor first, then the look: what it holds is what bears the mark.
            if let Ok(fd) = PidFd::open(bearer.pid)
                && look_at(bearer.pid, value).is_some()
            {
                drop(fd.send_signal(libc::SIGKILL));
            }
        }
        let_pass(std::time::Duration::from_millis(5));
    }
}
