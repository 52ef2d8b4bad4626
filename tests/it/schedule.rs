//! Starts by the clock on the wall.

use procman::protocol::StateName;
use procman::protocol::event::Event;
use procman::protocol::reply::Replay;
use serde_json::json;

use super::harness::{Daemon, until};

#[test]
fn a_scheduled_one_shot_runs_at_its_times_and_says_when_the_next_is() {
    let daemon = Daemon::start("[[process]]\nname = 'tick'\ncmd = ['sh', '-c', 'date +%s >> {dir}/ticks']\nschedule = '* * * * * *'\n");
    let times: Vec<u64> = daemon.lines("ticks", 3).iter().map(|line| line.parse().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "once a second: {times:?}");
    let view = daemon.wait_for("tick", |view| view.next_start_at.is_some());
    let next = view.next_start_at.unwrap();
    assert!(next.fract() == 0.0 && next > *times.last().unwrap() as f64, "{next}");

    // Without the schedule it rests.
    daemon.call::<serde_json::Value>("register", json!({"name": "tick", "cmd": ["sh", "-c", "date +%s >> /dev/null"], "replace": true}));
    daemon.wait_for("tick", |view| view.next_start_at.is_none());
}

#[test]
fn a_time_that_comes_while_it_runs_is_left_out_and_reported() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'long'\ncmd = ['sh', '-c', 'echo run >> {dir}/runs; exec sleep 600']\nschedule = '* * * * * *'\n",
    );
    daemon.wait_for_state("long", StateName::Running);
    daemon.wait_for_log("scheduled times passed without a start");
    daemon.wait_for_log("overlap");
    assert_eq!(daemon.read("runs").lines().count(), 1);
}

#[test]
fn what_a_request_registers_is_scheduled_too_and_a_wrong_expression_is_refused() {
    let daemon = Daemon::start("");
    let error = daemon.refusal("register", json!({"name": "x", "cmd": ["true"], "schedule": "61 * * * *"}));
    assert!(error.message.contains("schedule") && error.message.contains("is no cron expression"), "{error}");
    let out = daemon.path("out");
    let cmd = json!(["sh", "-c", format!("echo run >> {}", out.display())]);
    daemon.call::<serde_json::Value>("register", json!({"name": "x", "cmd": cmd, "schedule": "* * * * * *"}));
    daemon.lines("out", 1);
    daemon.call::<serde_json::Value>("unregister", json!({"name": "x"}));
}

#[test]
fn times_that_pass_while_no_daemon_lives_are_reported() {
    let mut daemon = Daemon::start("[[process]]\nname = 'tick'\ncmd = ['true']\nschedule = '* * * * * *'\n");
    daemon.wait_for("tick", |view| view.next_start_at.is_some() && view.uuid.is_some());
    let next = daemon.view("tick").next_start_at.unwrap();
    let _: serde_json::Value = daemon.call("history", json!({"limit": 1}));
    daemon.kill_alone();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    until("three of its times have passed", || (now() > next + 3.0).then_some(()));
    daemon.start_next();
    let missed = until("that is told", || {
        let replay: Replay = daemon.call("events", json!({}));
        replay.events.into_iter().find_map(|event| match event {
            Event::Noted(noted) if noted.event == "schedule_missed" => Some(noted),
            Event::Noted(_) | Event::StateChanged(_) => None,
        })
    });
    let details = serde_json::to_value(&missed.details).unwrap();
    assert!(details["times"].as_u64().unwrap() >= 3 && details["why"] == "late", "{details}");
}
