//! What the kernel does not do at once, or not at all: the daemon waits for it without harm to anybody, and goes on when it can.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use procman::procfs::Table;
use procman::protocol::reply::{Ended, View};
use procman::protocol::{Cause, Detail, ErrorCode, StateName};
use serde_json::{Value, json};

use super::harness::{Daemon, Setup, executable, is_alive, is_root, stat_of, until, within};

/// A small C program in the test's directory; whoever builds procman has a C compiler.
#[track_caller]
fn program(dir: &Path, name: &str, source: &str) -> PathBuf {
    let path = dir.join(name);
    let mut compiler =
        Command::new("cc").args(["-O1", "-x", "c", "-", "-o"]).arg(&path).stdin(Stdio::piped()).spawn().expect("there is a C compiler");
    compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success(), "cannot compile {name}");
    path
}

#[test]
fn a_program_that_is_being_written_is_refused_and_starts_once_it_is_not() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'once'\ncmd = ['{dir}/program']\n[[process]]\nname = 'again'\ncmd = ['{dir}/program']\nrestart = 'on-failure'\n\
         backoff = { initial = 0.05, factor = 1.0, jitter = 0.0 }\nstart_limit = { count = 0 }\n",
    );
    let path = daemon.path("program");
    executable(&path, "");
    fs::copy("/bin/sleep", &path).unwrap();
    let writing = File::options().append(true).open(&path).unwrap();
    let error = daemon.refusal("execute", json!({"name": "once"}));
    assert_eq!((error.code, &error.details["errno_name"]), (ErrorCode::SpawnFailed, &Detail::Text("ETXTBSY".into())), "{error}");
    assert!(error.message.contains("program"), "{error}");
    let view = daemon.view("once");
    assert_eq!((view.state, view.cause, view.pid), (StateName::Fatal, Some(Cause::SpawnFailed), None));

    // With a policy it is tried until the writer is done.
    daemon.refusal("execute", json!({"name": "again"}));
    daemon.wait_for("again", |view| view.restarts >= 3);
    drop(writing);
    let definition = json!({"name": "once", "cmd": [path, "1000"], "replace": true});
    let _: View = daemon.call("register", definition);
    until("nobody writes it any more", || daemon.call::<Value>("execute", json!({"name": "once"})).is_object().then_some(()));
    // Without an argument it ends at once, but it is executed.
    daemon.wait_for("again", |view| view.cause == Some(Cause::Exit));
}

#[test]
fn a_limit_on_processes_holds_up_only_what_is_above_it() {
    let user = if is_root() { "user = 'nobody'\n" } else { "" };
    limited_processes(Setup::new(&limited(user)), &[]);
}

/// Nothing counts root's processes; whoever becomes another user is counted when its program is executed. Where the daemon is not root, the kernel
/// already refuses to make the process, and a thread, too.
#[test]
fn a_limit_on_the_processes_of_the_daemons_user_does_it_no_harm() {
    if !is_root() {
        return eprintln!("skipped: this is what the test above does here");
    }
    // It may read and write what is root's, but it is not root.
    let capabilities = ["--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"];
    let as_user = [&["setpriv", "--reuid=64999", "--regid=64999", "--clear-groups"][..], &capabilities[..]].concat();
    limited_processes(Setup::new(&limited("")).wrapped(&as_user), &as_user);
}

/// Two sub-processes, the second of which is started again and again.
fn limited(user: &str) -> String {
    format!(
        "[[process]]\nname = 'first'\n{user}cmd = ['sleep', '1000']\nstdout = 'log'\n\
         [[process]]\nname = 'second'\n{user}cmd = ['sleep', '1000']\nrestart = 'on-failure'\nstart_limit = {{ count = 0 }}\n\
         backoff = {{ initial = 0.05, factor = 1.0, jitter = 0.0 }}\n"
    )
}

/// Puts a limit on the daemon and lifts it again, `as_user` who may do that.
#[track_caller]
fn limited_processes(setup: Setup, as_user: &[&str]) {
    let daemon = setup.start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let highest = limits.lines().find_map(|line| line.strip_prefix("Max processes")?.split_whitespace().nth(1)).unwrap();
    // The soft limit alone, so that it can be lifted again.
    let limit = |processes: &str| {
        let [pid, limit] = [format!("--pid={}", daemon.pid()), format!("--nproc={processes}:")];
        let words = [as_user, &["prlimit", &pid, &limit]].concat();
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
    };
    let pid = daemon.execute("first").pid;
    limit("0");
    let error = daemon.refusal("execute", json!({"name": "second"}));
    assert_eq!(error.details["errno_name"], Detail::Text("EAGAIN".into()), "{error}");
    let refused = if is_root() && as_user.is_empty() { "cannot execute" } else { "cannot make a process" };
    assert!(error.message.contains(refused), "{error}");
    daemon.wait_for("second", |view| view.restarts >= 3 && view.cause == Some(Cause::SpawnFailed));
    assert!(is_alive(pid));
    // What it does on threads of their own goes on, too, whether or not it has made them before.
    let _: Value = daemon.call("status", json!({}));
    let _: Value = daemon.call("zombies", json!({}));
    let _: Value = daemon.call("processes", json!({"items": "sleep"}));
    let _: Value = daemon.call("logs", json!({"name": "first"}));
    limit(highest);
    let view = daemon.wait_for_state("second", StateName::Running);
    assert!(view.restarts >= 3);
    assert_eq!(daemon.quit("first").returncode, Some(-15), "what ran was not harmed");
}

#[test]
fn a_process_in_uninterruptible_sleep_ends_when_it_is_killed() {
    // A parent is in state D from vfork(2) on until the child executes something; these never do, and SIGTERM ends neither.
    let source = "#include <signal.h>\n#include <unistd.h>\nstatic void nothing(int s) {(void)s;}\n\
                  int main(void) { signal(SIGTERM, nothing); if (vfork() == 0) { write(1, \"up\\n\", 3); for (;;) pause(); } return 0; }\n";
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['{dir}/vforks']\nstdout = 'file:{dir}/up'\n");
    program(daemon.dir(), "vforks", source);
    let pid = daemon.execute("web").pid;
    daemon.lines("up", 1);
    until("it is in state D", || (stat_of(pid).unwrap().state == b'D').then_some(()));
    let [child] = daemon.wait_for_children("web", 1, "vforks")[..] else { panic!() };
    let ended: Ended = daemon.call("quit", json!({"name": "web", "timeout": 0.2}));
    assert_eq!((ended.survivors, ended.returncode, ended.terminated.len()), (0, Some(-9), 0), "{ended:?}");
    assert_eq!([pid, child].map(is_alive), [false, false]);
}

/// A group of the kernel's first freezer (cgroup v1), whose processes are in state D and take no signal, SIGKILL included.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` where this host has none.
    fn new() -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/freezer/procman-test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn freeze(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        until("it is frozen", || (fs::read_to_string(self.0.join("freezer.state")).unwrap().trim() == "FROZEN").then_some(()));
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        drop(fs::write(self.0.join("freezer.state"), "THAWED"));
        // It is busy until what was in it is gone.
        let deadline = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            super::harness::pause();
        }
    }
}

#[test]
fn a_process_that_even_sigkill_does_not_end_is_told_of_and_awaited() {
    let Some(freezer) = Freezer::new() else {
        eprintln!("this host has no freezer of cgroup v1: nothing else keeps a process from SIGKILL on purpose");
        return;
    };
    let daemon =
        Daemon::start("[[process]]\nname = 'frozen'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n");
    let pid = daemon.execute("frozen").pid;
    until("it is its program", || (stat_of(pid)?.name() == "sleep").then_some(()));
    freezer.freeze(pid);
    assert_eq!(stat_of(pid).unwrap().state, b'D');

    let began = Instant::now();
    let ended: Ended = daemon.call("quit", json!({"name": "frozen", "timeout": 0.1}));
    assert_eq!((ended.survivors, ended.killed.len()), (1, 0), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(daemon.view("frozen").state, StateName::Stopping, "it is not called stopped");
    let error = daemon.refusal("execute", json!({"name": "frozen"}));
    assert!(matches!(error.code, ErrorCode::AlreadyRunning | ErrorCode::Busy), "no second one beside it: {error}");
    // Nobody else is held up.
    daemon.execute("web");
    assert_eq!(daemon.quit("web").survivors, 0);

    freezer.thaw();
    daemon.wait_for_state("frozen", StateName::Stopped);
    assert!(!is_alive(pid));
    daemon.execute("frozen");
}

#[test]
fn ten_thousand_orphans_end_at_once() {
    const COUNT: u32 = 10_000;
    // Each child forks a grandchild and ends; the grandchild ends, too, and it is the daemon that has to reap it.
    let source = "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
        int main(int argc, char **argv) { (void)argc; signal(SIGCHLD, SIG_IGN);\n\
        for (int i = atoi(argv[1]); i > 0; ) { pid_t child = fork();\n\
          if (child == 0) { signal(SIGCHLD, SIG_DFL); pid_t own = fork(); if (own == 0) _exit(0); _exit(own < 0); }\n\
          if (child > 0) i--; else usleep(1000); }\n\
        puts(\"done\"); fflush(stdout); for (;;) pause(); }\n";
    let daemon = Daemon::start(&format!(
        "[[process]]\nname = 'storm'\ncmd = ['{{dir}}/storm', '{COUNT}']\nstdout = 'file:{{dir}}/out'\n\
         [[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n"
    ));
    program(daemon.dir(), "storm", source);
    let reaped = || daemon.metric("procman_orphans_reaped_total", &[]).unwrap_or(0.0);
    daemon.execute("web");
    let (before, began) = (reaped(), Instant::now());
    let pid = daemon.execute("storm").pid;
    let mut slowest = Duration::ZERO;
    within(Duration::from_secs(120), "all have ended", || {
        let asked = Instant::now();
        assert_eq!(daemon.view("web").state, StateName::Running);
        slowest = slowest.max(asked.elapsed());
        (daemon.read("out") == "done\n").then_some(())
    });
    let took = began.elapsed();
    assert!(slowest < Duration::from_secs(2), "an answer took {slowest:?} while {COUNT} processes ended in {took:?}");
    until("each of them was reaped", || (reaped() - before >= f64::from(COUNT)).then_some(()));
    let zombies = Table::scan().unwrap().children_of(daemon.pid()).filter(|stat| stat.is_zombie()).count();
    assert_eq!(zombies, 0, "after {took:?}");
    assert_eq!(daemon.view("storm").pid, Some(pid), "the one they came from was not mistaken");
    assert_eq!(daemon.quit("storm").returncode, Some(-15));
    assert_eq!(daemon.relatives().len(), 2, "the daemon and the one that had nothing to do with it");
}
