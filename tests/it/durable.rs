//! The disk of the database is full, held by somebody, or gone: supervision goes on, everybody is told, and it heals by itself.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use procman::protocol::event::Event;
use procman::protocol::reply::{PastRun, Replay, StatusOfAll, View};
use procman::protocol::{Cause, StateName};
use serde_json::json;

use super::harness::{Daemon, Peer, Setup, frame, is_root, until, value_of};

const SITE: &str = "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'late'\ncmd = ['sleep', '1000']\n\
     [[process]]\nname = 'short'\ncmd = ['true']\n";

fn problem(daemon: &Daemon) -> Option<String> {
    daemon.call::<StatusOfAll>("status", json!({})).store_problem
}

fn events(daemon: &Daemon) -> Vec<String> {
    let replay: Replay = daemon.call("events", json!({}));
    let noted = replay.events.into_iter().filter_map(|event| match event {
        Event::Noted(noted) => Some(noted.event),
        Event::StateChanged(_) => None,
    });
    noted.collect()
}

/// While the disk is out of order: all is done, and all is told. Afterwards all of it is on the disk.
#[track_caller]
fn goes_on_and_heals(daemon: &mut Daemon, words: &str, mend: impl FnOnce(&Daemon)) {
    // Whatever is written first finds out.
    until("it is noticed", || {
        daemon.execute("short");
        daemon.wait_for_state("short", StateName::Exited);
        problem(daemon)
    });
    let said = problem(daemon).unwrap();
    assert!(said.contains("procman.db") && said.contains(words), "{said}");
    assert_eq!(daemon.metric("procman_store_up", &[]), Some(0.0));
    let late = daemon.execute("late").pid;
    let _: View = daemon.call("register", json!({"name": "new", "cmd": ["sleep", "1000"]}));
    assert!(events(daemon).contains(&"store_trouble".to_owned()));
    mend(daemon);
    until("it heals", || problem(daemon).is_none().then_some(()));
    assert_eq!(daemon.metric("procman_store_up", &[]), Some(1.0));
    assert!(events(daemon).contains(&"store_healed".to_owned()));
    assert_eq!(daemon.view("late").pid, Some(late));
}

#[test]
fn a_database_that_somebody_holds_is_waited_for() {
    let mut daemon = Daemon::start(SITE);
    let web = daemon.execute("web").pid;
    let connection = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    goes_on_and_heals(&mut daemon, "lock", |_| connection.execute_batch("ROLLBACK").unwrap());
    drop(connection);
    let late = daemon.view("late").pid;
    let runs = daemon.call::<Vec<PastRun>>("history", json!({"name": "short"})).len();
    daemon.replace();
    assert_eq!((daemon.view("web").pid, daemon.view("late").pid), (Some(web), late));
    assert_eq!(daemon.view("new").state, StateName::Stopped);
    assert_eq!(daemon.call::<Vec<PastRun>>("history", json!({"name": "short"})).len(), runs);
}

/// What a command asks for while somebody holds the database for a moment; `None` where that moment was so long that the daemon took it for trouble.
fn answered_behind_the_commit(daemon: &Daemon, request: &serde_json::Value, done: impl Fn(&View) -> bool) -> Option<()> {
    let connection = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let peer = Peer::connect(zmq::REQ, &daemon.endpoint());
    peer.send(&[frame(request)]);
    daemon.wait_for("web", done);
    let early = peer.has_more(0);
    connection.execute_batch("ROLLBACK").unwrap();
    let reply = value_of(&peer.receive()[0]);
    assert_eq!(reply["success"], true, "{reply}");
    if events(daemon).contains(&"store_trouble".to_owned()) {
        return None;
    }
    assert!(!early, "it was answered, and a daemon that is killed now is followed by one that does not know of it");
    Some(())
}

#[test]
fn what_was_answered_is_written_down() {
    let request = |command: &str| json!({"command": command, "name": "web"});
    for (request, done) in [
        (request("quit"), (|view| view.state == StateName::Stopped) as fn(&View) -> bool),
        (request("reap"), |view| view.state == StateName::Stopped),
    ] {
        until("the disk was not called out of order", || {
            let mut daemon = Daemon::start(SITE);
            daemon.execute("web");
            let held = answered_behind_the_commit(&daemon, &request, done);
            daemon.kill_alone();
            daemon.start_next();
            held?;
            assert_eq!(daemon.view("web").state, StateName::Stopped, "{request}");
            let runs: Vec<PastRun> = daemon.call("history", json!({"name": "web"}));
            assert_eq!(runs.iter().map(|run| run.cause).collect::<Vec<_>>(), [Cause::Quit], "{request}");
            Some(())
        });
    }
}

#[test]
fn a_database_that_is_taken_away_is_made_again() {
    let mut daemon = Daemon::start(SITE);
    let web = daemon.execute("web").pid;
    for file in ["procman.db", "procman.db-wal", "procman.db-shm"] {
        drop(fs::remove_file(daemon.path(&format!("state/{file}"))));
    }
    until("it is there again", || daemon.path("state/procman.db").exists().then_some(()));
    until("it is well", || problem(&daemon).is_none().then_some(()));
    let pid = daemon.execute("late").pid;
    daemon.replace();
    assert_eq!((daemon.view("web").pid, daemon.view("late").pid), (Some(web), Some(pid)));
}

/// The state directory as the daemon sees it, which has a file system of its own there.
fn state_of(daemon: &Daemon) -> PathBuf {
    let dir = daemon.dir().strip_prefix("/").unwrap();
    Path::new("/proc").join(daemon.pid().to_string()).join("root").join(dir).join("state")
}

#[test]
fn a_full_disk_stops_nothing() {
    if !is_root() {
        eprintln!("only root can mount a small disk: this is not tested");
        return;
    }
    let mount = "mkdir {dir}/state && mount -t tmpfs -o size=1m none {dir}/state && exec \"$@\"";
    let mut daemon = Setup::new(SITE).wrapped(&["unshare", "--mount", "sh", "-c", mount, "sh"]).start();
    let filler = state_of(&daemon).join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    goes_on_and_heals(&mut daemon, "room", |_| fs::remove_file(&filler).unwrap());
}

/// Files that cannot be written any more, until this is dropped.
struct Immutable(Vec<PathBuf>);

impl Immutable {
    /// `None` where that cannot be done.
    fn make(files: Vec<PathBuf>) -> Option<Self> {
        let immutable = Self(files);
        immutable.change("+i").then_some(immutable)
    }

    fn change(&self, how: &str) -> bool {
        Command::new("chattr").arg(how).args(&self.0).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        self.change("-i");
    }
}

#[test]
fn a_disk_that_becomes_read_only_stops_nothing() {
    let mut daemon = Daemon::start(SITE);
    let web = daemon.execute("web").pid;
    // The kernel mounts nothing read-only that somebody writes to. This refuses each write to the files, also to those that are open, as a file system
    // does that has found an error in itself.
    let files = ["procman.db", "procman.db-wal"].map(|file| daemon.path(&format!("state/{file}")));
    let Some(immutable) = Immutable::make(files.into()) else {
        return eprintln!("only root can do this, on ext4: this is not tested");
    };
    goes_on_and_heals(&mut daemon, "disk I/O error", |_| drop(immutable));
    let late = daemon.view("late").pid;
    daemon.replace();
    assert_eq!((daemon.view("web").pid, daemon.view("late").pid), (Some(web), late));
}

#[test]
fn a_daemon_that_starts_on_a_read_only_disk_takes_over_and_heals() {
    if !is_root() {
        eprintln!("only root can mount a disk read-only: this is not tested");
        return;
    }
    // What a file system is made that has found an error in itself; killed, the daemon leaves a write-ahead log, and one that leaves does not.
    for killed in [true, false] {
        let mut daemon = Daemon::start(SITE);
        let web = daemon.execute("web").pid;
        let _: View = daemon.call("register", json!({"name": "before", "cmd": ["sleep", "1000"]}));
        if killed {
            daemon.kill_alone();
        } else {
            daemon.signal(libc::SIGUSR1);
            assert_eq!(daemon.leave_alone().code(), Some(0));
        }
        assert_eq!(daemon.path("state/procman.db-wal").exists(), killed);
        let state = daemon.path("state").display().to_string();
        let mount = format!("mount --bind {state} {state} && mount -o remount,bind,ro {state} && exec \"$@\"");
        daemon.start_next_by(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
        assert_eq!((daemon.view("web").pid, daemon.view("before").state), (Some(web), StateName::Stopped));
        // What changes from here on only this daemon knows.
        let refused = daemon.refusal("upgrade", json!({})).message;
        assert!(["procman.db", "read-only", "goes on"].iter().all(|words| refused.contains(words)), "{refused}");
        goes_on_and_heals(&mut daemon, "read-only", |daemon| {
            let pid = daemon.pid().to_string();
            let remount = ["--target", &pid, "--mount", "mount", "-o", "remount,bind,rw", &state];
            assert!(Command::new("nsenter").args(remount).status().unwrap().success());
        });
        let late = daemon.view("late").pid;
        daemon.replace();
        assert_eq!((daemon.view("web").pid, daemon.view("late").pid), (Some(web), late));
        assert_eq!((daemon.view("before").state, daemon.view("new").state), (StateName::Stopped, StateName::Stopped));
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_no_reason_to_give_up_for_good() {
    if !is_root() {
        eprintln!("only root can mount a disk read-only: this is not tested");
        return;
    }
    let mount = "mkdir {dir}/state && mount -t tmpfs -o ro none {dir}/state && exec \"$@\"";
    // The unit has systemd try again at this code, and not at the one for a directory that is not the daemon's.
    for arguments in [&[][..], &["--check"]] {
        let setup = Setup::new(SITE).wrapped(&["unshare", "--mount", "sh", "-c", mount, "sh"]);
        let setup = arguments.iter().fold(setup, |setup, argument| setup.argument(argument));
        setup.refused().assert(74, &["state", "Read-only", "daemon.state_dir"]);
    }
}

#[test]
fn a_state_directory_that_is_made_again_is_still_held() {
    let daemon = Daemon::start(SITE);
    let pid = daemon.execute("web").pid;
    fs::remove_dir_all(daemon.path("state")).unwrap();
    until("it is noticed", || problem(&daemon));
    fs::create_dir(daemon.path("state")).unwrap();
    until("it heals", || problem(&daemon).is_none().then_some(()));
    let mut second = Command::new(env!("CARGO_BIN_EXE_procmand"));
    let output = second.arg("--config").arg(daemon.path("procmand.toml")).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert_eq!(daemon.view("web").pid, Some(pid));
}
