//! What systemd is told (sd_notify(3)), on a socket that the test holds.

use std::os::unix::net::UnixDatagram;

use procman::protocol::StateName;
use procman::protocol::reply::{Executed, Pong};
use serde_json::json;

use super::harness::{DEADLINE, Daemon, Setup, until};

struct Listening {
    socket: UnixDatagram,
    /// All that was said, line by line.
    said: Vec<String>,
}

impl Listening {
    fn bind(setup: &Setup) -> Self {
        let socket = UnixDatagram::bind(setup.dir().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, said: Vec::new() }
    }

    /// Listens until this line has been said that often.
    #[track_caller]
    fn wait_for(&mut self, line: &str, times: usize) {
        let mut buffer = [0; 4096];
        while self.said.iter().filter(|said| *said == line).count() < times {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{line} was not said: {error}; {:?}", self.said));
            self.said.extend(std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned));
        }
    }

    fn has_said(&self, beginning: &str) -> bool {
        self.said.iter().any(|said| said.starts_with(beginning))
    }
}

const WEB: &str = "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n";

#[test]
fn it_says_when_it_is_ready_and_when_it_leaves() {
    let setup = Setup::new(WEB).env("NOTIFY_SOCKET", "{dir}/notify");
    let mut listening = Listening::bind(&setup);
    let daemon: Daemon = setup.start();
    listening.wait_for("READY=1", 1);
    assert!(!listening.has_said("STOPPING"));
    assert!(daemon.view("web").pid.is_some(), "what starts by itself was started");
    assert!(daemon.http("/readyz").starts_with("HTTP/1.1 200"));
    daemon.stop();
    listening.wait_for("STOPPING=1", 1);
    assert!(!listening.has_said("WATCHDOG"), "nobody watches");
    assert!(listening.said.iter().filter(|said| *said == "READY=1").count() == 1);
}

#[test]
fn it_says_when_it_reads_its_configuration_again() {
    let setup = Setup::new(WEB).env("NOTIFY_SOCKET", "{dir}/notify");
    let mut listening = Listening::bind(&setup);
    let daemon: Daemon = setup.start();
    listening.wait_for("READY=1", 1);
    daemon.signal(libc::SIGHUP);
    listening.wait_for("RELOADING=1", 1);
    listening.wait_for("READY=1", 2);
    // One that is wrong is over, too, and what is shown says so.
    daemon.rewrite("[[process]]\n");
    daemon.signal(libc::SIGHUP);
    listening.wait_for("READY=1", 3);
    let said: Vec<&str> =
        listening.said.iter().map(String::as_str).filter(|line| !["STATUS=", "FD"].iter().any(|other| line.starts_with(other))).collect();
    assert_eq!(said, ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1"]);
    assert!(listening.has_said("STATUS=The configuration could not be reloaded"), "{:?}", listening.said);
}

#[test]
fn it_keeps_the_watchdog_content() {
    let setup = Setup::new("").env("NOTIFY_SOCKET", "{dir}/notify").env("WATCHDOG_USEC", "300000").wrapped(&[
        "sh",
        "-c",
        "WATCHDOG_PID=$$ exec \"$@\"",
        "sh",
    ]);
    let mut listening = Listening::bind(&setup);
    let daemon = setup.start();
    listening.wait_for("READY=1", 1);
    let before = std::time::Instant::now();
    listening.wait_for("WATCHDOG=1", 5);
    assert!(before.elapsed().as_secs_f64() > 0.1, "not more often than needed");
    daemon.stop();
}

#[test]
fn a_watchdog_for_another_process_is_none_of_its_business() {
    let setup = Setup::new(WEB).env("NOTIFY_SOCKET", "{dir}/notify").env("WATCHDOG_USEC", "30000").env("WATCHDOG_PID", "1");
    let mut listening = Listening::bind(&setup);
    let daemon = setup.start();
    daemon.stop();
    listening.wait_for("STOPPING=1", 1);
    assert!(!listening.has_said("WATCHDOG"));
}

#[test]
fn a_stop_that_takes_long_asks_for_more_time() {
    let stubborn = "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']\nstdout = 'file:{dir}/up'\nstop_timeout = 0.2\n";
    let setup = Setup::new(stubborn).env("NOTIFY_SOCKET", "{dir}/notify");
    let mut listening = Listening::bind(&setup);
    let daemon = setup.start();
    daemon.execute("web");
    daemon.lines("up", 1);
    daemon.stop();
    listening.wait_for("STOPPING=1", 1);
    listening.wait_for("STATUS=1 sub-processes to quit", 1);
    assert!(listening.has_said("EXTEND_TIMEOUT_USEC="), "{:?}", listening.said);
}

#[test]
fn a_service_manager_that_does_not_read_holds_nobody_up() {
    let setup = Setup::new(WEB).env("NOTIFY_SOCKET", "{dir}/notify");
    let mut listening = Listening::bind(&setup);
    let daemon = setup.start();
    daemon.wait_for_state("web", StateName::Running);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = descriptors();
    // A socket that nobody reads takes ten messages (`net.unix.max_dgram_qlen`).
    for round in 1..=30 {
        let _: Executed = daemon.call("restart", json!({"name": "web"}));
        daemon.signal(libc::SIGHUP);
        until("it was read again", || (daemon.read("log").matches("the configuration was read again").count() >= round).then_some(()));
        assert!(daemon.call::<Pong>("ping", json!({})).pong);
    }
    assert!(descriptors() < before + 10, "descriptors that wait to be kept are those of what lives");
    // Once somebody reads, all is said that still holds, and what is over is not.
    listening.wait_for(&format!("FDNAME={}", daemon.view("web").uuid.unwrap()), 1);
    let kept = listening.said.iter().filter(|line| *line == "FDSTORE=1").count();
    assert!(kept < 20, "{:?}", listening.said);
    daemon.stop();
    listening.wait_for("STOPPING=1", 1);
}

#[test]
fn one_that_never_reads_does_not_keep_it_from_leaving() {
    let setup = Setup::new(WEB).env("NOTIFY_SOCKET", "{dir}/notify");
    let _listening = Listening::bind(&setup);
    let daemon = setup.start();
    for _ in 0..20 {
        let _: Executed = daemon.call("restart", json!({"name": "web"}));
    }
    daemon.stop();
}
