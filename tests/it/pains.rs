//! What operators complain of in supervisors, and the test that holds each complaint. A complaint that no other file holds is held here.
//!
//! | complaint | held by |
//! |---|---|
//! | the end of the daemon loses or doubles processes | `adoption::what_lives_is_taken_over_and_behaves_like_any_other`, `adoption::what_ended_meanwhile_is_told_and_the_policy_decides`, `handover::another_program_takes_over_in_the_same_process`, and the torture tests |
//! | B starts only once A is up | `order::what_is_required_is_started_and_waited_for_until_it_is_ready`, `twelve::twelve_real_services_start_in_order_survive_each_kill_and_stop_in_reverse` |
//! | back-off has a cap, jitter, and an end | `policy::the_back_off_grows_and_says_when_it_ends`, `policy::a_crash_loop_ends_fatal_after_the_start_limit`; cap and new beginning: `src/subprocess/restart.rs::it_doubles_up_to_the_cap_and_starts_anew_after_a_long_run`; jitter: `src/subprocess/restart.rs::no_number_makes_a_delay_overflow`, `quit::a_quit_ends_the_back_off` |
//! | the whole tree ends | `quit::fifty_daemons_that_ignore_sigterm_are_gone_when_quit_answers`, `containment::what_gave_everything_away_is_found_and_ended`, `containment::what_forks_faster_than_anybody_looks_is_gone` |
//! | no command blocks or fails another | `pains::two_stops_at_a_time_one_of_which_hangs`, `together::a_status_is_answered_while_a_quit_waits_for_a_stubborn_process` |
//! | a bad command or log makes the daemon neither hang nor spin | `pains::what_cannot_start_costs_nothing_and_holds_up_nobody` |
//! | what an operator stopped stays stopped | `pains::what_was_stopped_while_it_waited_for_its_next_start_stays_down` |
//! | logs are rotated and compressed | `src/output/tests.rs::a_fast_writer_loses_no_line_while_its_file_is_cut`, `src/output/tests.rs::a_kill_at_any_moment_neither_loses_nor_doubles`, `src/output/gzip.rs::any_tool_reads_it`; compressed once rotated: `logs::following_neither_loses_nor_doubles_a_line_whatever_happens_to_the_daemon`; by age: `logs::what_is_old_is_rotated_and_what_is_too_old_goes`, `src/output/plan.rs::what_is_old_goes` |
//! | logs neither block a process, nor kill it by SIGPIPE, nor leak | `logs::following_neither_loses_nor_doubles_a_line_whatever_happens_to_the_daemon`, `logs_disk::a_full_disk_stops_nobody_is_told_and_heals`, `pains::a_reader_that_went_away_kills_nothing`, `pains::a_reader_that_reads_no_more_holds_up_nobody` |
//! | states and exit codes for programs | `pains::a_program_reads_what_happened` |
//! | a reload touches only what changed | `reload::what_has_not_changed_is_not_touched`, `reload::a_file_that_is_wrong_changes_nothing_and_all_mistakes_are_told`, `reload::a_dry_run_says_what_would_be_done_and_does_nothing`; what needs a restart: `src/supervisor/plan/tests.rs::what_a_process_is_started_with_needs_a_restart_and_the_rest_does_not` |
//! | running is not ready, hung is not dead | `ready::each_source_says_when_it_is_ready_and_not_before`, `ready::one_that_never_gets_ready_is_a_failed_start`, `health::one_that_hangs_is_started_anew` |
//! | the clock on the wall decides nothing | `pains::a_clock_that_is_set_back_and_forward_changes_nothing` |
//! | descriptors and scale | `pains::more_sub_processes_than_descriptors_by_default`, `scarce::out_of_descriptors_it_refuses_starts_and_serves_on` |
//! | zombies and unknown children | `orphans::no_zombie_of_the_daemon_outlives_a_second`, `faults::ten_thousand_orphans_end_at_once`, `quit::processes_without_its_environment_end_with_it` |

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use procman::protocol::reply::{Each, Ended, Executed, Pong, View, ViewWithStatus};
use procman::protocol::{Cause, StateName, Wanted};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Services, Setup, frame, stat_of, until, value_of};

/// Holds the table above against the tests that there are.
#[test]
fn each_test_of_the_table_is_there() {
    let table: Vec<&str> = include_str!("pains.rs").lines().filter(|line| line.starts_with("//! |")).collect();
    assert_eq!(table.len(), 2 + 15);
    let mut named = 0;
    for test in table.iter().flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let (file, name) = test.split_once("::").unwrap();
        let file = if file.ends_with(".rs") { file.to_owned() } else { format!("tests/it/{file}.rs") };
        let text = fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert!(text.contains(&format!("fn {name}(")), "there is no test {name} in {file}");
        named += 1;
    }
    assert!(named >= 20, "{named}");
}

/// A process that takes its end only from SIGKILL; it says "up" once it does.
fn stubborn(name: &str) -> String {
    format!(
        "[[process]]\nname = '{name}'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']\nstdout = 'file:{{dir}}/{name}'\n"
    )
}

/// Processor time that a process has used, in seconds.
fn processor_seconds(pid: u32) -> f64 {
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap();
    stat_of(pid).unwrap().ticks() as f64 / hertz as f64
}

#[test]
fn two_stops_at_a_time_one_of_which_hangs() {
    let others: String = (0..4).map(|i| format!("[[process]]\nname = 'p{i}'\ncmd = ['sleep', '1000']\n")).collect();
    let daemon = Daemon::start(&format!("{}{}{others}", stubborn("a"), stubborn("b")));
    for name in ["a", "b", "p0", "p1", "p2"] {
        daemon.execute(name);
    }
    daemon.lines("a", 1);
    daemon.lines("b", 1);
    let hanging = Peer::connect(zmq::REQ, &daemon.endpoint());
    hanging.send(&[frame(&json!({"command": "quit", "name": "a", "timeout": 600}))]);
    daemon.wait_for_state("a", StateName::Stopping);

    // A second stop is done, not refused, and so is everything else.
    let ended: Ended = daemon.call("quit", json!({"name": "b", "timeout": 0.1}));
    assert_eq!((ended.survivors, ended.killed.len()), (0, 1));
    assert_eq!(daemon.quit("p0").returncode, Some(-15));
    daemon.execute("p3");
    let restarted: Executed = daemon.call("restart", json!({"name": "p1"}));
    let _: Value = daemon.call("signal", json!({"name": "p2", "signal": "KILL"}));
    daemon.wait_for_state("p2", StateName::Exited);
    let _: View = daemon.call("register", json!({"name": "more", "cmd": ["sleep", "1000"]}));
    daemon.execute("more");
    assert_eq!(daemon.view("p1").pid, Some(restarted.pid));
    assert_eq!(daemon.view("a").state, StateName::Stopping);
    assert!(!hanging.has_more(0), "all of that was done while one stop hung");
    let _: Ended = daemon.call("quit", json!({"name": "a", "timeout": 0}));
    assert_eq!(value_of(&hanging.receive()[0])["result"]["survivors"], 0);
}

#[test]
fn what_cannot_start_costs_nothing_and_holds_up_nobody() {
    const ROUNDS: u64 = 8;
    let failing = |name: &str, keys: &str| {
        format!(
            "[[process]]\nname = '{name}'\nautostart = true\nrestart = 'always'\nstart_limit = {{ count = 0 }}\n\
             backoff = {{ initial = 0.25, factor = 1.0, jitter = 0.0 }}\n{keys}\n"
        )
    };
    let daemon = Setup::new(
        &[
            failing("no-program", "cmd = ['/no/such/program']"),
            failing("no-log", "cmd = ['true']\nstdout = 'file:{dir}/none/out'"),
            failing("fails-at-once", "cmd = ['false']"),
            "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n".to_owned(),
        ]
        .concat(),
    )
    .log("info")
    .start();
    let names = ["no-program", "no-log", "fails-at-once"];
    for name in names {
        daemon.wait_for(name, |view| view.restarts >= 1);
    }
    let (began, used) = (Instant::now(), processor_seconds(daemon.pid()));
    for name in names {
        daemon.wait_for(name, |view| view.restarts > ROUNDS);
        daemon.execute("web");
        assert_eq!(daemon.quit("web").survivors, 0);
    }
    let (took, used) = (began.elapsed().as_secs_f64(), processor_seconds(daemon.pid()) - used);
    // Whoever tries without a pause uses a whole processor. The questions of this test cost more than the starts do.
    assert!(used < took * 0.3, "{used} s of processor time in {took} s");
    for name in names {
        let restarts = daemon.view(name).restarts as f64;
        assert!(restarts <= 2.0 + began.elapsed().as_secs_f64() / 0.25 + 1.0, "{name}: {restarts}");
    }
    assert_eq!(daemon.view("no-log").cause, Some(Cause::SpawnFailed));
    assert!(daemon.read("log").len() < 200_000, "what fails again and again does not fill the log");
}

#[test]
fn what_was_stopped_while_it_waited_for_its_next_start_stays_down() {
    let flapping = |name: &str| {
        format!(
            "[[process]]\nname = '{name}'\ncmd = ['sh', '-c', 'echo run >> {{dir}}/{name}; exit 1']\nrestart = 'always'\n\
             backoff = {{ initial = 0.3, factor = 1.0, jitter = 0.0 }}\nstart_limit = {{ count = 0 }}\n"
        )
    };
    let daemon = Daemon::start(&[flapping("web"), flapping("clock")].concat());
    daemon.execute("web");
    daemon.execute("clock");
    daemon.wait_for("web", |view| view.state == StateName::Backoff && view.restarts >= 2);
    daemon.quit("web");
    let runs = daemon.read("web");
    // Another one with the same back-off is started several times meanwhile.
    let restarts = daemon.view("clock").restarts;
    daemon.wait_for("clock", |view| view.restarts >= restarts + 4);
    let view = daemon.view("web");
    assert_eq!((view.state, view.wanted, view.next_start_at), (StateName::Stopped, Wanted::Down, None));
    assert_eq!(daemon.read("web"), runs, "it was started again");
}

#[test]
fn a_reader_that_went_away_kills_nothing() {
    // The daemon's own log is a pipe, whose reader goes away: that is no reason to end, neither for the daemon nor for what it runs.
    let setup =
        Setup::new("[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'while :; do echo line; sleep 0.01; done']\nstdout = 'file:{dir}/out'\n");
    let pipe = setup.dir().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut reader = Command::new("cat").arg(&pipe).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let daemon = setup.wrapped(&["sh", "-c", "exec \"$@\" 2> {dir}/pipe", "sh"]).start();
    let pid = daemon.execute("web").pid;
    reader.kill().unwrap();
    reader.wait().unwrap();
    for _ in 0..20 {
        daemon.refusal("execute", json!({"name": "web"}));
    }
    let before = daemon.lines("out", 1).len();
    daemon.lines("out", before + 20);
    assert_eq!(daemon.view("web").pid, Some(pid));
    assert_eq!(daemon.quit("web").returncode, Some(-15));
}

#[test]
fn a_reader_that_reads_no_more_holds_up_nobody() {
    // A terminal that was stopped, a program that hangs: the pipe is full, and whoever waits for it waits for ever.
    let setup = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n").log("debug");
    let pipe = setup.dir().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let unread = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let mut daemon = setup.wrapped(&["sh", "-c", "exec \"$@\" 2> {dir}/pipe", "sh"]).start();
    // Each is told in the log: more than a pipe takes, and more than the daemon keeps for a reader that comes back.
    for _ in 0..8000 {
        let _: Pong = daemon.call("ping", json!({}));
    }
    daemon.execute("web");
    assert_eq!(daemon.quit("web").returncode, Some(-15));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    drop(unread);
}

#[test]
fn a_program_reads_what_happened() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'code'\ncmd = ['sh', '-c', 'exit 42']\n[[process]]\nname = 'signal'\ncmd = ['sh', '-c', 'kill -SEGV $$']\n\
         [[process]]\nname = 'up'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'never'\ncmd = ['true']\n",
    );
    for name in ["code", "signal", "up"] {
        daemon.execute(name);
    }
    daemon.wait_for_state("code", StateName::Exited);
    daemon.wait_for_state("signal", StateName::Exited);
    let ctl = |words: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
        let output = program.arg("--json").args(words).env("PROCMAN_ENDPOINT", daemon.endpoint()).stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), serde_json::from_slice::<Value>(&output.stdout).unwrap_or(Value::Null))
    };
    for (name, exit, returncode, state) in [
        ("code", 1, json!(42), "exited"),
        ("signal", 1, json!(-11), "exited"),
        ("up", 0, Value::Null, "running"),
        ("never", 1, Value::Null, "stopped"),
    ] {
        let (code, reply) = ctl(&["status", name]);
        let result = &reply["result"];
        assert_eq!((code, &result["returncode"], &result["state"]), (exit, &returncode, &json!(state)), "{name}: {reply}");
        assert_eq!(ctl(&["returncode", name]).1["result"], returncode, "{name}");
    }
    assert_eq!(ctl(&["status", "nobody"]).0, 1);
}

/// The clock on the wall as the daemon and its children see it; the monotonic one is left alone. Nothing of the host's own clock is touched.
struct Clock(std::path::PathBuf);

impl Clock {
    fn offset(&self, offset: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n")).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    /// Sets it, and waits until the daemon is seen to go by it.
    #[track_caller]
    fn set(&self, daemon: &Daemon, offset: &str, seconds: f64) {
        self.offset(offset);
        until(format_args!("the daemon's clock is set {offset}"), || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            let pong: Pong = daemon.call("ping", json!({}));
            ((pong.time - now - seconds).abs() < 30.0).then_some(())
        });
    }
}

#[test]
fn a_clock_that_is_set_back_and_forward_changes_nothing() {
    let setup = Setup::new(&format!(
        "[[process]]\nname = 'clock'\ncmd = ['false']\nrestart = 'always'\nbackoff = {{ initial = 0.2, factor = 1.0, jitter = 0.0 }}\n\
         start_limit = {{ count = 0 }}\n\
         [[process]]\nname = 'patient'\ncmd = ['false']\nrestart = 'always'\nbackoff = {{ initial = 900, max = 900, jitter = 0.0 }}\n\
         [[process]]\nname = 'limited'\ncmd = ['false']\nrestart = 'always'\nbackoff = {{ initial = 0.3, factor = 1.0, jitter = 0.0 }}\n\
         start_limit = {{ count = 5, interval = 3000 }}\n\
         [[process]]\nname = 'long'\ncmd = ['sleep', '1000']\nstart_seconds = 900\n\
         [[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n{}",
        stubborn("stubborn")
    ));
    let library = Services::find(setup.dir()).library("faketime/libfaketimeMT.so.1");
    let clock = Clock(setup.dir().join("clock"));
    clock.offset("+0");
    let daemon = setup
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", "{dir}/clock")
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", MONOTONIC_IS_REAL)
        .start();
    let began = Instant::now();
    for name in ["clock", "patient", "limited", "long", "web", "stubborn"] {
        daemon.execute(name);
    }
    daemon.wait_for_state("patient", StateName::Backoff);

    for (offset, seconds) in [("-3600", -3600.0), ("+31536000", 31_536_000.0), ("+0", 0.0)] {
        daemon.lines("stubborn", 1);
        let hanging = Peer::connect(zmq::REQ, &daemon.endpoint());
        hanging.send(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 600}))]);
        daemon.wait_for_state("stubborn", StateName::Stopping);
        let shortly = Peer::connect(zmq::REQ, &daemon.endpoint());
        let _: View = daemon.wait_for("clock", |view| view.state == StateName::Backoff);

        clock.set(&daemon, offset, seconds);

        // What was to come soon comes, what was to come late does not come early.
        let restarts = daemon.view("clock").restarts;
        let (from, before) = (Instant::now(), restarts);
        daemon.wait_for("clock", |view| view.restarts >= restarts + 5);
        let made = daemon.view("clock").restarts - before;
        assert!(made as f64 <= 2.0 + from.elapsed().as_secs_f64() / 0.2, "{made} starts in {:?}: the back-off was skipped", from.elapsed());
        let patient = daemon.view("patient");
        assert_eq!((patient.state, patient.restarts), (StateName::Backoff, 0), "{offset}");
        assert_eq!(daemon.view("long").state, StateName::Starting, "{offset}");
        assert!(!hanging.has_more(0), "the time to stop ended early at {offset}");
        let uptime = daemon.call::<ViewWithStatus>("status", json!({"name": "web"})).view.uptime.unwrap();
        assert!((0.0..=began.elapsed().as_secs_f64() + 1.0).contains(&uptime), "up for {uptime} s at {offset}");
        shortly.send(&[frame(&json!({"command": "quit", "name": "stubborn", "timeout": 0.2}))]);
        for peer in [hanging, shortly] {
            assert_eq!(value_of(&peer.receive()[0])["result"]["killed"].as_array().unwrap().len(), 1, "{offset}");
        }
        fs::remove_file(daemon.path("stubborn")).unwrap();
        daemon.execute("stubborn");
    }
    // Five starts within the interval on no clock but the one that nobody sets.
    let limited = daemon.wait_for_state("limited", StateName::Fatal);
    assert_eq!(limited.restarts, 4);
    let _: Ended = daemon.call("quit", json!({"name": "stubborn", "timeout": 0}));
}

/// "1": the monotonic clock goes on as it does. With "0" it is set, too, as if the other one decided: the test must fail then.
const MONOTONIC_IS_REAL: &str = "1";

#[test]
fn more_sub_processes_than_descriptors_by_default() {
    const COUNT: usize = 200;
    let processes: String = (0..COUNT).map(|i| format!("[[process]]\nname = 'p{i}'\ncmd = ['sleep', '1000']\n")).collect();
    // 128 would not do for one descriptor each.
    let daemon = Setup::new(&processes).log("info").wrapped(&["sh", "-c", "ulimit -Sn 128; exec \"$@\"", "sh"]).start();
    let descriptors = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = descriptors(daemon.pid());
    let started: Vec<Each<Executed>> = daemon.call("restart", json!({"all": true}));
    let pids: Vec<u32> = started
        .iter()
        .map(|each| match each {
            Each::Done(executed) => executed.pid,
            Each::Refused { .. } => panic!("{each:?}"),
        })
        .collect();
    assert_eq!(daemon.info().counts[&StateName::Running], COUNT as u64);
    until("each has been looked at", || {
        daemon.metric("procman_process_resident_memory_bytes", &["name=\"p199\""]).filter(|bytes| *bytes > 0.0)
    });
    let each = (descriptors(daemon.pid()) - before) as f64 / COUNT as f64;
    assert!(each < 3.5, "{each} descriptors for each sub-process");
    // While its loader runs, a program may have a library open for an instant.
    until("none of them got any", || pids.iter().all(|pid| descriptors(*pid) == 3).then_some(()));

    let ended: Vec<Each<Ended>> = daemon.call("quit", json!({"all": true}));
    assert!(ended.iter().all(|each| matches!(each, Each::Done(ended) if ended.survivors == 0)), "{ended:?}");
    until("the descriptors are given back", || (descriptors(daemon.pid()) < before + COUNT / 4).then_some(()));
    // Again and again: nothing adds up.
    for _ in 0..3 {
        let _: Vec<Each<Executed>> = daemon.call("restart", json!({"all": true}));
        let _: Vec<Each<Ended>> = daemon.call("quit", json!({"all": true}));
    }
    until("the descriptors are given back", || (descriptors(daemon.pid()) < before + COUNT / 4).then_some(()));
}
