//! What the unit of systemd has run beside the daemon (`ExecStop=`, `ExecStopPost=`). To systemd a restart is a stop and a start, each with a SIGTERM
//! for the daemon, which quits its sub-processes. Which of the two is under way only systemd knows, as the job that it is carrying out for the unit.
//!
//! Where anything goes wrong here, the daemon is sent SIGTERM all the same: then everything is quit, in order.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::subprocess::containment::place;
use crate::sys::cgroup::{Group, Hierarchy};
use crate::sys::pidfd::PidFd;

/// How long the daemon may take to leave without its sub-processes: far more than it needs, and less than `TimeoutStopSec`.
const LEAVING: Duration = Duration::from_secs(60);
/// How long what is left of a unit that was stopped may take to end, once asked to; and once killed.
const REMNANTS: Duration = Duration::from_secs(5);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// The group, in that of a unit with delegated groups, in which systemd runs what is not the daemon (systemd 250 and later, the directory
/// "control group delegation" of its documentation).
const CONTROL: &str = ".control";

/// Why what was asked for the unit could not be done.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// systemd does not answer, or not what it should.
    #[error("cannot ask systemd what it is doing with {unit}: {reason}")]
    Unknown {
        /// The unit.
        unit: String,
        /// Why.
        reason: String,
    },
    /// The main process of the unit is another one than this was called for.
    #[error("the main process of {unit} is not {pid}, as the variable MAINPID says: this is for ExecStop= alone")]
    NotMain {
        /// The unit.
        unit: String,
        /// What the variable says.
        pid: u32,
    },
    /// It was asked to leave, and is still there.
    #[error("the daemon (process {pid}) has not left within {LEAVING:?}")]
    Stays {
        /// The daemon.
        pid: u32,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> UnitError {
    move |source| UnitError::System { what, source }
}

/// What systemd says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    main_pid: Option<u32>,
    /// The number of the job that is being carried out for it.
    job: Option<u32>,
}

impl Said {
    /// Of the lines `Property=value`; 0 is none.
    fn of(properties: &str) -> Self {
        let number = |key: &str| {
            let value = properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).filter(|number| *number != 0)
        };
        Self { main_pid: number("MainPID"), job: number("Job") }
    }
}

/// The type of the job with this number, in a table with its number, unit, type and state in each line.
fn type_of(job: u32, table: &str) -> Option<&str> {
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next()?.parse() == Ok(job);
        is_it.then(|| words.nth(1)).flatten()
    })
}

/// Runs `systemctl` with the service manager that this process is a service of.
fn systemctl(unit: &str, arguments: &[&str]) -> Result<String, UnitError> {
    let unknown = |reason: String| UnitError::Unknown { unit: unit.to_owned(), reason };
    let mut command = Command::new("systemctl");
    if std::env::var_os("MANAGERPID").is_some() {
        command.arg("--user"); // set by a user's service manager alone (systemd.exec(5))
    }
    let output = command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").env("SYSTEMD_PAGER", "").output();
    let output = output.map_err(|error| unknown(format!("cannot run systemctl: {error}")))?;
    if !output.status.success() {
        return Err(unknown(format!("systemctl: {}, {}", String::from_utf8_lossy(&output.stderr).trim(), output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What systemd says of the unit, and the type of the job that it is carrying out for it.
fn ask(unit: &str) -> Result<(Said, Option<String>), UnitError> {
    // Behind `--` the name is a name, whatever it looks like; a pattern it would be for list-jobs.
    let said = Said::of(&systemctl(unit, &["show", "--property=MainPID", "--property=Job", "--", unit])?);
    let Some(job) = said.job else { return Ok((said, None)) };
    let jobs = systemctl(unit, &["list-jobs", "--no-legend", "--no-pager", "--plain", "--full"])?;
    let kind = type_of(job, &jobs).map(str::to_owned);
    Ok((said, kind))
}

/// For `ExecStop=`: where the unit is being restarted, has the daemon leave without its sub-processes, and returns once it has. Where it is being
/// stopped this does nothing: systemd sends the SIGTERM, and waits for as long as its settings say.
///
/// # Errors
/// It cannot be told which of the two, or the daemon does not leave.
pub fn exec_stop(unit: &str) -> Result<(), UnitError> {
    // Not set where the daemon has left by itself.
    let Some(pid) = std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok()) else { return Ok(()) };
    let main = match PidFd::open(pid) {
        Ok(main) => main,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(error) => return Err(system("cannot open the daemon's process")(error)),
    };
    let (said, job) = ask(unit)?;
    if job.as_deref() != Some("restart") {
        return Ok(());
    }
    // systemd knows of the end of its main process before anybody else can have the number: so the descriptor is that of the daemon.
    if said.main_pid != Some(pid) {
        return if said.main_pid.is_none() { Ok(()) } else { Err(UnitError::NotMain { unit: unit.to_owned(), pid }) };
    }
    match main.send_signal(libc::SIGUSR1) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        other => other.map_err(system("cannot send the daemon a signal"))?,
    }
    let patience = PollTimeout::try_from(LEAVING).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(main.as_fd(), PollFlags::POLLIN)], patience) {
        Ok(0) => Err(UnitError::Stays { pid }),
        Ok(_) => Ok(()),
        Err(errno) => Err(system("cannot wait for the daemon")(errno.into())),
    }
}

/// For `ExecStopPost=`, when the daemon has ended in whatever way: takes back what one that was killed has set up in the unit's control group, and would
/// keep the next one from being started in it; and, where the unit is being stopped, ends what a daemon has left that could not do so itself.
///
/// # Errors
/// It cannot be told whether the unit is being stopped, or the groups cannot be read.
pub fn exec_stop_post(unit: &str) -> Result<(), UnitError> {
    let group = Hierarchy::find().map_err(system("cannot find the unit's control group"))?;
    let group = group.and_then(|hierarchy| of_unit(&hierarchy.own).map(Path::to_owned));
    let Some(group) = group else { return Ok(()) }; // not delegated: nothing was set up, and what is left is no group of ours
    let group = Group::open(&group).map_err(system("cannot open the unit's control group"))?;
    let taken = place::take_back(&group).map_err(system("cannot take controllers back from the unit's control group"))?;
    if taken {
        let told =
            "procmand: for the next daemon to be started, control groups that sub-processes made themselves have lost their controllers";
        drop(writeln!(io::stderr(), "{told}"));
    }
    let remnants = |group: &Group| -> io::Result<Vec<u32>> {
        let control = group.child(CONTROL)?.members()?;
        Ok(group.members()?.into_iter().filter(|pid| !control.contains(pid)).collect())
    };
    let look = || remnants(&group).map_err(system("cannot read the unit's control group"));
    if look()?.is_empty() || ask(unit)?.1.as_deref() != Some("stop") {
        return Ok(());
    }
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let until = Instant::now() + REMNANTS;
        while Instant::now() < until {
            let left = look()?;
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                // It still is one of them, if it is so with the descriptor open. One that cannot be signalled has ended.
                if let Ok(fd) = PidFd::open(pid)
                    && look()?.contains(&pid)
                {
                    drop(fd.send_signal(signal));
                }
            }
            #[allow(clippy::disallowed_methods, reason = "between two looks at a fact; nothing is concluded from the time that passed")]
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// The group of the unit, of one that a control process of it is in.
fn of_unit(own: &Path) -> Option<&Path> {
    own.parent().filter(|_| own.ends_with(CONTROL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_says() {
        assert_eq!(Said::of("MainPID=78\nJob=1234\n"), Said { main_pid: Some(78), job: Some(1234) });
        assert_eq!(Said::of("Job=\nMainPID=0\n"), Said::default());
        let table = "12 other.service stop running\n1234 procmand@a\\x2db.service restart running\n";
        assert_eq!((type_of(1234, table), type_of(12, table), type_of(123, table)), (Some("restart"), Some("stop"), None));
        assert_eq!(type_of(7, "7\nNo jobs running.\n"), None);
    }

    #[test]
    fn only_a_control_process_has_a_group_of_the_unit() {
        assert_eq!(of_unit(Path::new("/c/procmand.service/.control")), Some(Path::new("/c/procmand.service")));
        assert_eq!(of_unit(Path::new("/c/procmand.service")), None);
    }
}
