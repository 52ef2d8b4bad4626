//! PIDs begin anew and are somebody else's by now: strangers get no signal, and nothing is taken for what it is not.
//!
//! In a PID namespace of the test's own there are few PIDs, and strangers that come and go take each of them every second or so.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use procman::protocol::reply::{PastRun, View};
use procman::protocol::{Cause, StateName};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use crate::harness::{Daemon, at_length, is_root, pause, stat_of, until, within};

/// Set in the namespace.
const INSIDE: &str = "PROCMAN_TEST_FEW_PIDS";
/// The kernel hands out 300 and more once it has come to the end, so that there are 160 of them.
const PID_MAX: u32 = 460;
/// So many strangers live at a time.
const STRANGERS: usize = 40;

#[test]
fn a_pid_that_is_somebody_elses_by_now_gets_no_signal() {
    if std::env::var_os(INSIDE).is_some() {
        return among_strangers();
    }
    if !is_root() {
        return eprintln!("skipped: only root can make a PID namespace");
    }
    // The namespace's init, which reaps what comes to it, is a shell; everything ends with it.
    let spaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "\"$@\"; exit $?", "sh"];
    let this = ["--exact", "torment::wrapping::a_pid_that_is_somebody_elses_by_now_gets_no_signal", "--nocapture"];
    let status = Command::new("unshare").args(spaces).arg(std::env::current_exe().unwrap()).args(this).env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "in the namespace: {status}");
}

/// Lets PIDs begin anew behind [`PID_MAX`]. Where that is the whole host's matter (before Linux 6.14) the namespace's counter is set back instead.
fn few_pids(end: Arc<AtomicBool>) -> Option<JoinHandle<()>> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(14)) {
        fs::write("/proc/sys/kernel/pid_max", PID_MAX.to_string()).unwrap();
        return None;
    }
    Some(std::thread::spawn(move || {
        while !end.load(Ordering::Relaxed) {
            let last: u32 = fs::read_to_string("/proc/sys/kernel/ns_last_pid").unwrap().trim().parse().unwrap();
            if last > PID_MAX {
                fs::write("/proc/sys/kernel/ns_last_pid", "300").unwrap();
            }
            pause();
        }
    }))
}

/// Processes that have nothing to do with any daemon. Each ends by itself, and says so by its exit code.
#[derive(Default)]
struct Strangers {
    alive: Mutex<VecDeque<Child>>,
    /// Every PID that one of them ever had.
    pids: Mutex<BTreeSet<u32>>,
    harmed: Mutex<Vec<String>>,
}

impl Strangers {
    fn come_and_go(&self) {
        let mut alive = self.alive.lock().unwrap();
        // It lives until its input ends; it bears no mark of the test.
        match Command::new("/bin/cat").env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).spawn() {
            Ok(child) => {
                self.pids.lock().unwrap().insert(child.id());
                alive.push_back(child);
            }
            // There is no PID left just now.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}"),
        }
        while alive.len() > STRANGERS {
            let child = alive.pop_front().unwrap();
            self.part(child);
        }
    }

    fn part(&self, mut child: Child) {
        drop(child.stdin.take());
        let (pid, status) = (child.id(), child.wait().unwrap());
        if status.code() != Some(0) {
            self.harmed.lock().unwrap().push(format!("{pid}: {status}, signal {:?}", status.signal()));
        }
    }

    /// The one with this PID, if there is one just now. It stays until it is parted from.
    fn keep(&self, pid: u32) -> Option<Child> {
        let mut alive = self.alive.lock().unwrap();
        let at = alive.iter().position(|child| child.id() == pid)?;
        alive.remove(at)
    }

    #[track_caller]
    fn assert_unharmed(&self) {
        let harmed = self.harmed.lock().unwrap();
        assert!(harmed.is_empty(), "strangers were ended: {harmed:?}");
    }
}

fn site() -> String {
    let again =
        "restart = 'always'\nbackoff = { initial = 0.05, factor = 1.0, jitter = 0.5 }\nstart_limit = { count = 0 }\nstop_timeout = 0.5\n";
    let mut text = String::new();
    for at in 0..4 {
        text += &format!("[[process]]\nname = 'rock{at}'\ncmd = ['sleep', '1000']\n");
        text += &format!("[[process]]\nname = 'loop{at}'\ncmd = ['true']\nautostart = true\n{again}");
        text += &format!("[[process]]\nname = 'toy{at}'\ncmd = ['sleep', '1000']\n{again}");
        // Its grandchild leaves its session and its parent, and is looked for by PID and start time.
        let left = "setsid --fork sh -c \"trap : TERM; sleep 1000 & wait; wait\"";
        text += &format!("[[process]]\nname = 'fork{at}'\ncmd = ['sh', '-c', '{left}; exec sleep 1000']\n{again}");
    }
    text
}

fn among_strangers() {
    let end = Arc::new(AtomicBool::new(false));
    let turning = few_pids(end.clone());
    let strangers = Arc::new(Strangers::default());
    let coming = {
        let (strangers, end) = (strangers.clone(), end.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                strangers.come_and_go();
            }
        })
    };
    // The first 300 PIDs come once only.
    until("PIDs have begun anew", || {
        let pids = strangers.pids.lock().unwrap();
        (pids.last()? > &(PID_MAX - 20)).then_some(())
    });
    let mut daemon = Daemon::start(&site());
    let rocks: Vec<(String, u32)> = (0..4)
        .map(|at| {
            let name = format!("rock{at}");
            let pid = daemon.execute(&name).pid;
            (name, pid)
        })
        .collect();
    let (began, mut taken_over) = (Instant::now(), 0);
    for round in 0..at_length(200, 6) {
        for kind in ["toy", "fork"] {
            for at in 0..4 {
                let name = format!("{kind}{at}");
                let _: Value = daemon.call("restart", json!({"name": name}));
                match (round + at) % 4 {
                    0 => drop(daemon.quit(&name)),
                    1 => drop(daemon.call::<Value>("signal", json!({"name": name, "signal": "TERM", "tree": true}))),
                    2 => drop(daemon.call::<Value>("reap", json!({"name": name, "children_only": true, "timeout": 0.2}))),
                    _ => {}
                }
            }
        }
        strangers.assert_unharmed();

        // Some end while no daemon lives, and strangers have their PIDs when the next one comes.
        let victims: [View; 2] = ["toy3", "fork3"].map(|name| {
            let _: Value = daemon.call("restart", json!({"name": name}));
            daemon.wait_for_state(name, StateName::Running)
        });
        let _: Value = daemon.call("history", json!({"limit": 1}));
        daemon.kill_alone();
        let successors = victims.each_ref().map(|victim| {
            let pid = victim.pid.unwrap();
            PidFd::open(pid).unwrap().send_signal(libc::SIGKILL).unwrap();
            taken_over += 1;
            within(crate::harness::DEADLINE * 3, format_args!("a stranger has PID {pid}"), || strangers.keep(pid))
        });
        daemon.start_next();
        for victim in &victims {
            let name = victim.name.as_str();
            daemon.wait_for(name, |view| view.uuid != victim.uuid);
            let runs: Vec<PastRun> = daemon.call("history", json!({"name": name, "limit": 1000}));
            let told: Vec<&PastRun> = runs.iter().filter(|run| Some(&run.uuid) == victim.uuid.as_ref()).collect();
            // What nobody can tell is lost; what the stranger does is not its end.
            assert!(
                told.len() == 1 && matches!((told[0].cause, told[0].signal), (Cause::Lost, None) | (Cause::Signal, Some(9))),
                "{told:?}"
            );
            daemon.quit(name);
        }
        successors.into_iter().for_each(|stranger| strangers.part(stranger));
        for (name, pid) in &rocks {
            let view = daemon.view(name);
            assert_eq!((view.pid, view.restarts), (Some(*pid), 0), "{view:?}");
        }
        strangers.assert_unharmed();
    }

    // What was to be proven was put to the test: PIDs of runs that were over were strangers'.
    let runs: Vec<PastRun> = daemon.call("history", json!({"limit": 1_000_000}));
    let ours: BTreeSet<u32> = runs.iter().filter_map(|run| run.pid).collect();
    let both = strangers.pids.lock().unwrap().intersection(&ours).count();
    eprintln!("{} runs, {both} PIDs of theirs were strangers', too; {taken_over} at a recovery; {:?}", runs.len(), began.elapsed());
    assert!(both >= 30, "{both} PIDs only were used again");
    for (name, pid) in &rocks {
        assert!(stat_of(*pid).is_some());
        daemon.quit(name);
    }
    daemon.stop();
    end.store(true, Ordering::Relaxed);
    coming.join().unwrap();
    turning.into_iter().for_each(|thread| thread.join().unwrap());
    until("all have parted", || {
        let child = strangers.alive.lock().unwrap().pop_front();
        child.map(|child| strangers.part(child)).is_none().then_some(())
    });
    strangers.assert_unharmed();
}
