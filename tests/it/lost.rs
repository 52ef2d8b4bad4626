//! What was written is lost, in whole or in part: what runs is known by what it is, and nothing of it is ended or started twice for that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use procman::protocol::reply::{PastRun, View};
use procman::protocol::{Cause, StateName};
use procman::sys::pidfd::PidFd;
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, frame, is_alive, is_root, stat_of, until};

fn sleeper(name: &str, keys: &str) -> String {
    format!("[[process]]\nname = '{name}'\ncmd = ['sleep', '1000']\n{keys}\n")
}

const ALWAYS: &str = "autostart = true\nrestart = 'always'\nbackoff = { initial = 0.05 }\nstart_limit = { count = 0 }";

/// A program that nobody knows by its environment.
fn bare(keys: &str) -> String {
    format!("[[process]]\nname = 'bare'\ncmd = ['env', '-i', 'sleep', '1000']\n{keys}\n")
}

/// Removes the database and all that belongs to it.
fn remove_database(daemon: &Daemon) {
    for file in ["procman.db", "procman.db-wal", "procman.db-shm"] {
        drop(fs::remove_file(daemon.path(&format!("state/{file}"))));
    }
}

/// Where the groups of its runs are, where they have some.
fn groups(daemon: &Daemon) -> Option<PathBuf> {
    daemon.groups().filter(|path| path.exists())
}

fn count(daemon: &Daemon, program: &str) -> usize {
    daemon.relatives().into_iter().filter(|pid| stat_of(*pid).is_some_and(|stat| stat.name() == program)).count()
}

#[test]
fn a_boot_that_is_not_written_ends_nothing() {
    let mut daemon = Daemon::start(&sleeper("web", ALWAYS));
    let web = daemon.wait_for_state("web", StateName::Running).pid;
    daemon.kill_alone();
    let database = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM meta WHERE key = 'boot_id'", ()).unwrap(), 1);
    drop(database);
    daemon.start_next();
    let view = daemon.view("web");
    assert_eq!((view.pid, view.state), (web, StateName::Running));
}

#[test]
fn what_was_started_while_nothing_could_be_written_is_taken_over_in_the_place_of_what_was() {
    let mut daemon = Daemon::start(&sleeper("web", ALWAYS));
    let before = daemon.wait_for_state("web", StateName::Running);
    let database = rusqlite::Connection::open(daemon.path("state/procman.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let now = until("it is started anew, and nothing is written", || {
        let started: procman::protocol::reply::Executed = daemon.call("restart", json!({"name": "web"}));
        let status: procman::protocol::reply::StatusOfAll = daemon.call("status", json!({}));
        status.store_problem.map(|_| started)
    });
    daemon.kill_alone();
    drop(database);
    daemon.start_next();
    let view = daemon.view("web");
    assert_eq!((view.pid, view.uuid, view.state), (Some(now.pid), Some(now.uuid), StateName::Running));
    let ended = until("the one before is told of", || {
        let runs: Vec<PastRun> = daemon.call("history", json!({"name": "web"}));
        runs.into_iter().find(|run| Some(&run.uuid) == before.uuid.as_ref())
    });
    assert_eq!(ended.cause, Cause::Lost, "how that one ended could not be written down");
    assert_eq!(count(&daemon, "sleep"), 1);
}

#[test]
fn a_program_without_an_environment_is_known_by_its_group() {
    let mut daemon = Daemon::start(&bare(&ALWAYS.replace("autostart = true", "")));
    if groups(&daemon).is_none() {
        return; // then there is nothing to know it by
    }
    daemon.execute("bare");
    let pid = daemon.wait_for_state("bare", StateName::Running).pid.unwrap();
    until("it is its own program", || stat_of(pid).filter(|stat| stat.name() == "sleep"));
    daemon.kill_alone();
    remove_database(&daemon);
    daemon.start_next();
    let view = daemon.view("bare");
    assert_eq!((view.pid, view.state), (Some(pid), StateName::Running));
    daemon.quit("bare");
    assert!(!is_alive(pid));
}

#[test]
fn one_that_was_started_and_not_recorded_is_known_by_its_group() {
    let setup = Setup::new(&bare("restart = 'always'\nbackoff = { initial = 0.05 }"));
    let mut daemon = setup.env("PROCMAN_CRASH_AT", "before-record:1").start();
    let Some(groups) = groups(&daemon) else {
        return daemon.kill(); // then there is nothing to know it by
    };
    let asking = Peer::connect(zmq::REQ, &daemon.endpoint());
    asking.send(&[frame(&json!({"command": "execute", "name": "bare"}))]);
    daemon.leave_alone();
    let group = fs::read_dir(groups).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let pid = until("it is there", || fs::read_to_string(group.join("cgroup.procs")).unwrap().lines().next()?.parse::<u32>().ok());
    until("it is its own program", || stat_of(pid).filter(|stat| stat.name() == "sleep"));
    daemon.start_next();
    let view = daemon.view("bare");
    assert_eq!((view.pid, view.state), (Some(pid), StateName::Running));
    daemon.quit("bare");
    assert!(!is_alive(pid));
}

#[test]
fn a_state_directory_that_is_made_again_is_still_that_of_what_runs() {
    let mut daemon = Daemon::start(&sleeper("web", ALWAYS));
    let web = daemon.wait_for_state("web", StateName::Running).pid.unwrap();
    daemon.kill_alone();
    // Not at the same place on the disk.
    fs::rename(daemon.path("state"), daemon.path("lost")).unwrap();
    daemon.start_next();
    let view = daemon.view("web");
    assert_eq!((view.pid, view.state), (Some(web), StateName::Running));
    assert_eq!(count(&daemon, "sleep"), 1);
    daemon.quit("web");
    assert!(!is_alive(web));
}

#[test]
fn one_whose_definition_cannot_be_registered_just_now_is_left_alone() {
    let mut daemon = Daemon::start(&sleeper("base", ""));
    let _: View = daemon.call("register", json!({"name": "campaign", "cmd": ["sleep", "1000"], "requires": ["base"]}));
    daemon.execute("base");
    let campaign = daemon.execute("campaign").pid;
    daemon.rewrite(&sleeper("other", ""));
    daemon.replace();
    assert_eq!(daemon.refusal("status", json!({"name": "campaign"})).code, procman::protocol::ErrorCode::NotFound);
    assert!(is_alive(campaign), "nobody has decided that it is to end");
    daemon.wait_for_log("its definition is not to be had");
    daemon.rewrite(&sleeper("base", ""));
    daemon.replace();
    let view = daemon.view("campaign");
    assert_eq!((view.pid, view.state), (Some(campaign), StateName::Running));
}

#[test]
fn one_whose_definition_is_lost_is_not_started_a_second_time() {
    let mut daemon = Daemon::start("");
    let definition = json!({"name": "nap", "cmd": ["sleep", "1000"]});
    let _: View = daemon.call("register", definition.clone());
    let pid = daemon.execute("nap").pid;
    daemon.kill_alone();
    remove_database(&daemon);
    daemon.start_next();
    daemon.wait_for_log("they are left alone");
    let _: View = daemon.call("register", definition);
    let error = daemon.refusal("execute", json!({"name": "nap"}));
    assert!(error.message.contains(&format!("process {pid} ")) && error.message.contains("start the daemon again"), "{error}");
    assert_eq!(count(&daemon, "sleep"), 1);
    daemon.replace();
    let view = daemon.view("nap");
    assert_eq!((view.pid, view.state), (Some(pid), StateName::Running));
    // Nothing is in the way any more.
    let _: Value = daemon.call("restart", json!({"name": "nap"}));
    assert!(!is_alive(pid));
}

#[test]
fn a_mark_makes_nobody_anothers_process() {
    if !is_root() {
        return eprintln!("skipped: only root can start what is another user's");
    }
    let mut daemon = Daemon::start(&sleeper("web", ""));
    let pid = daemon.execute("web").pid;
    // A process that has just executed its program shows no environment for a moment.
    let run = until("its environment is there", || {
        let environ = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap();
        let mut words = environ.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
        words.find_map(|word| word.strip_prefix("PROCMAN_RUN=").map(str::to_owned))
    });
    let (id, _) = run.split_once('/').map(|(id, rest)| (id.to_owned(), rest.to_owned())).unwrap();
    daemon.quit("web");
    // It says of itself that it is a run of `web`; only its user cannot be.
    let forge = "exec env PROCMAN_UUID=7d444840-9dc0-11d1-b245-5ffdce74fad2 PROCMAN_RUN=$0/web/$$ sleep 1000";
    let mut forger = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", forge, &id])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("it is its program", || stat_of(forger.id()).filter(|stat| stat.name() == "sleep"));
    daemon.replace();
    assert_eq!((daemon.view("web").state, daemon.view("web").pid), (StateName::Stopped, None));
    let web = daemon.execute("web").pid;
    assert!(web != forger.id() && is_alive(forger.id()));
    daemon.stop();
    assert!(is_alive(forger.id()), "it is nobody's");
    PidFd::open(forger.id()).unwrap().send_signal(libc::SIGKILL).unwrap();
    forger.wait().unwrap();
}
