//! The kernel kills the daemon for lack of memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use procman::protocol::StateName;
use procman::protocol::reply::PastRun;
use serde_json::json;

use crate::harness::python::PYTHON;
use crate::harness::{Daemon, is_alive, pause, until};

/// A control group with little memory, of cgroup v1 or v2, that goes with this.
struct Narrow {
    path: PathBuf,
    limit: &'static str,
    counts: &'static str,
}

impl Narrow {
    /// `None` where nobody may make one.
    fn make() -> Option<Self> {
        let name = format!("procman-test-{}", uuid::Uuid::new_v4());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
            ("/sys/fs/cgroup/unified", "memory.max", "memory.events"),
        ];
        places.into_iter().find_map(|(place, limit, counts)| {
            let path = Path::new(place).join(&name);
            fs::create_dir(&path).ok()?;
            let narrow = Self { path, limit, counts };
            // The one at which swapping stops, too, where there is swap; not every host has it.
            narrow.write(limit, "67108864").then_some(narrow)
        })
    }

    fn write(&self, file: &str, text: &str) -> bool {
        fs::write(self.path.join(file), text).is_ok()
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(self.counts)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            pause();
        }
        eprintln!("{} ({}) could not be removed", self.path.display(), self.limit);
    }
}

/// Takes memory, a megabyte at a time, for as long as this process lives. It says when it begins.
fn hog(victim: u32) -> Child {
    let text = "import os, sys\nsys.stdin.readline()\nheld = []\nwhile os.path.exists('/proc/%s/exe' % sys.argv[1]) and open('/proc/%s/stat' % sys.argv[1]).read().rsplit(')')[1].split()[0] not in 'ZX':\n  held.append(bytearray(os.urandom(1 << 20)))\nprint('enough', flush=True)\nsys.stdin.readline()\n";
    Command::new(PYTHON).args(["-c", text, &victim.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_daemon_that_the_kernel_kills_for_lack_of_memory_has_a_successor_that_takes_all_over() {
    let Some(narrow) = Narrow::make() else {
        return eprintln!("skipped: no control group with a limit on memory can be made here");
    };
    let mut daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'loop'\ncmd = ['sleep', '0.05']\nrestart = 'always'\n\
         backoff = { initial = 0.05, factor = 1.0, jitter = 0.0 }\nstart_limit = { count = 0 }\n",
    );
    let web = daemon.execute("web");
    daemon.execute("loop");
    daemon.wait_for("loop", |view| view.restarts >= 3);
    let mut hog = hog(daemon.pid());
    let join = |pid: u32, score: &str| {
        fs::write(format!("/proc/{pid}/oom_score_adj"), score).unwrap();
        assert!(narrow.write("cgroup.procs", &pid.to_string()), "{pid} cannot be moved");
    };
    // The kernel wants to kill the one rather than the other.
    join(hog.id(), "0");
    join(daemon.pid(), "1000");
    drop(hog.stdin.take());
    let status = daemon.leave_alone();
    let mut line = String::new();
    BufReader::new(hog.stdout.take().unwrap()).read_line(&mut line).unwrap();
    drop(hog.kill());
    hog.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL), "{status}");
    assert!(narrow.kills() >= 1, "it was the kernel");

    assert!(is_alive(web.pid));
    daemon.start_next();
    let view = daemon.view("web");
    assert_eq!((view.pid, view.uuid, view.state), (Some(web.pid), Some(web.uuid), StateName::Running));
    let restarts = daemon.wait_for("loop", |view| view.restarts >= 3).restarts;
    daemon.wait_for("loop", |view| view.restarts >= restarts + 3);
    let runs: Vec<PastRun> = daemon.call("history", json!({"name": "loop", "limit": 1000}));
    let mut uuids: Vec<&String> = runs.iter().map(|run| &run.uuid).collect();
    uuids.sort();
    uuids.dedup();
    assert_eq!(uuids.len(), runs.len(), "each is told of once");
    until("it is as it was", || (daemon.view("web").pid == Some(web.pid)).then_some(()));
}
