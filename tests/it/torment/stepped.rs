//! The host's clock is set while no daemon lives: what is recorded is still what runs, and times go on.

use std::fs;
use std::time::Instant;

use procman::protocol::StateName;
use procman::protocol::reply::{PastRun, Pong};
use procman::sys::pidfd::PidFd;
use serde_json::json;

use crate::harness::{Daemon, Services, Setup, at_length, stat_of, until};

fn history(daemon: &Daemon, name: &str) -> Vec<PastRun> {
    daemon.call("history", json!({"name": name, "limit": 1000}))
}

#[test]
fn a_clock_that_is_set_while_no_daemon_lives_changes_nothing() {
    let setup = Setup::new(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n\
         [[process]]\nname = 'ends'\ncmd = ['sleep', '1000']\n\
         [[process]]\nname = 'again'\ncmd = ['sleep', '1000']\nrestart = 'always'\nbackoff = { initial = 0 }\nstart_limit = { count = 0 }\n\
         [[process]]\nname = 'quit'\ncmd = ['sleep', '1000']\nautostart = true\n",
    );
    let library = Services::find(setup.dir()).library("faketime/libfaketimeMT.so.1");
    let clock = setup.dir().join("clock");
    let set = |offset: &str| {
        fs::write(clock.with_extension("new"), format!("{offset}\n")).unwrap();
        fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0");
    let mut daemon = setup
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", "{dir}/clock")
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    let began = Instant::now();
    let web = daemon.execute("web");
    daemon.wait_for_state("quit", StateName::Running);
    daemon.quit("quit");
    let started_at = daemon.view("web").started_at;
    let mut runs = 0;
    for offset in ["-3600", "+31536000", "-315360000", "+0"].into_iter().cycle().take(at_length(40, 4)) {
        let ends = daemon.execute("ends").pid;
        let again = daemon.wait_for_state("again", if runs == 0 { StateName::Stopped } else { StateName::Running }).pid;
        let again = again.unwrap_or_else(|| daemon.execute("again").pid);
        let uptime = daemon.view("web").uptime.unwrap();
        daemon.kill_alone();
        for pid in [ends, again] {
            PidFd::open(pid).unwrap().send_signal(libc::SIGTERM).unwrap();
            until("it has ended", || stat_of(pid).is_none_or(|stat| stat.is_zombie()).then_some(()));
        }
        set(offset);
        daemon.start_next();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let pong: Pong = daemon.call("ping", json!({}));
        assert!((pong.time - now - offset.parse::<f64>().unwrap()).abs() < 30.0, "it goes by that clock");

        let view = daemon.view("web");
        assert_eq!((view.pid, &view.uuid, view.state), (Some(web.pid), &Some(web.uuid.clone()), StateName::Running), "{offset}");
        assert_eq!(view.started_at, started_at, "that is as it was told before");
        assert!((uptime..=began.elapsed().as_secs_f64() + 1.0).contains(&view.uptime.unwrap()), "up for {:?} at {offset}", view.uptime);
        assert_eq!((daemon.view("quit").state, daemon.view("quit").pid), (StateName::Stopped, None), "{offset}");
        daemon.wait_for("again", |view| view.state == StateName::Running && view.pid != Some(again));
        daemon.wait_for("ends", |view| matches!(view.state, StateName::Exited | StateName::Lost));
        runs += 1;
        for name in ["ends", "again"] {
            let past = history(&daemon, name);
            assert_eq!(past.len(), runs, "{name} at {offset}: {past:?}");
            let lived = past[0].duration;
            assert!((0.0..=began.elapsed().as_secs_f64() + 1.0).contains(&lived), "{name} lived for {lived} s at {offset}");
        }
        let uuids: Vec<String> = history(&daemon, "again").into_iter().map(|run| run.uuid).collect();
        assert!(!uuids.contains(&daemon.view("again").uuid.unwrap()), "what runs is not over");
    }
}
