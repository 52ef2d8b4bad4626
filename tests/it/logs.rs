//! What sub-processes write, from the file to `procmanctl logs -f`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use procman::protocol::reply::{LogLines, View};
use procman::protocol::{ErrorCode, StateName};
use procman::sys::pidfd::PidFd;
use serde_json::json;

use super::harness::{Daemon, Setup, until};

/// `procmanctl logs -f`, and what it prints.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn of(endpoint: &str, arguments: &[&str], complaints: &std::path::Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_procmanctl"))
            .args(["--timeout", "2", "--endpoint", endpoint, "logs", "-f"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(complaints).unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("a line comes")
    }

    /// Interrupts it as Ctrl-C does.
    fn interrupt(mut self) -> ExitStatus {
        PidFd::open(self.child.id()).unwrap().send_signal(libc::SIGINT).unwrap();
        until("it has left", || self.child.try_wait().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn logs(daemon: &Daemon, arguments: serde_json::Value) -> LogLines {
    daemon.call("logs", arguments)
}

#[test]
fn each_output_is_read_where_it_went() {
    let daemon = Daemon::start(
        "[defaults]\nlog = { max_size = '1M' }\n
        [[process]]\nname = 'web'\ncmd = ['echo one; echo two >&2; printf part']\nshell = true\nstdout = 'log'\nstderr = 'log'\n
        [[process]]\nname = 'both'\ncmd = ['echo one; echo two >&2']\nshell = true\nstdout = 'file:{dir}/both.log'\nstderr = 'stdout'\n
        [[process]]\nname = 'mute'\ncmd = ['true']\n",
    );
    let names = ["..", ".", "@a:b-c.d"];
    for name in names {
        let _: View = daemon.call("register", json!({"name": name, "cmd": ["echo", name], "stdout": "log"}));
    }
    for name in ["web", "both"].iter().chain(&names) {
        daemon.execute(name);
        daemon.wait_for_state(name, StateName::Exited);
    }
    let out = logs(&daemon, json!({"name": "web"}));
    assert_eq!((out.lines, out.offset, out.truncated), (vec!["one".to_owned()], 4, false), "a line is shown once it is whole");
    assert_eq!(logs(&daemon, json!({"name": "web", "stream": "stderr"})).lines, ["two"]);
    assert_eq!(logs(&daemon, json!({"name": "both", "stream": "stderr"})).lines, ["one", "two"]);
    assert_eq!(logs(&daemon, json!({"name": "both", "offset": 4})).lines, ["two"]);
    for name in names {
        assert_eq!(logs(&daemon, json!({"name": name})).lines, [name]);
    }
    let inside: Vec<String> =
        fs::read_dir(daemon.path("state/logs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(inside.len(), 4, "{inside:?}");
    let mode = |path: &str| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(daemon.path(path)).unwrap().permissions()) & 0o777;
    assert_eq!((mode("state/logs"), mode("state/logs/web"), mode("state/logs/web/stdout.log")), (0o750, 0o750, 0o640));

    let error = daemon.refusal("logs", json!({"name": "mute"}));
    assert!(error.code == ErrorCode::BadRequest && error.message.contains("`stdout = \"log\"`"), "{error:?}");
    assert_eq!(daemon.refusal("logs", json!({"name": "web", "max_bytes": 0})).code, ErrorCode::BadRequest);
    assert_eq!(daemon.refusal("logs", json!({"name": "web", "stream": "stdin"})).code, ErrorCode::BadRequest);
    assert_eq!(daemon.refusal("logs", json!({"name": "nobody"})).code, ErrorCode::NotFound);

    // The second run goes on in the same file.
    daemon.execute("web");
    daemon.wait_for_state("web", StateName::Exited);
    assert_eq!(logs(&daemon, json!({"name": "web", "offset": 4})).lines, ["partone"]);
}

#[test]
fn without_a_journald_the_remedy_is_said() {
    if std::path::Path::new("/run/systemd/journal/stdout").exists() {
        return println!("skipped: a journald runs here");
    }
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['true']\nstdout = 'journal'\n");
    let error = daemon.refusal("execute", json!({"name": "web"}));
    assert_eq!(error.code, ErrorCode::SpawnFailed);
    assert!(error.message.contains("journald") && error.message.contains("\"log\""), "{error:?}");
}

/// Writes numbered lines, some thousand a burst, until the file `stop` is there. Says `done` behind the last.
const WRITER: &str = r#"my ($n, $stop) = (0, shift); my ($dir) = $stop =~ m{(.*)/}; $| = 0;
until (-e $stop || !-d $dir) { for (1..500) { syswrite STDOUT, sprintf("%099d\n", $n++) or die } select undef, undef, undef, 0.005 }
syswrite STDOUT, "done $n\n";"#;

/// A daemon that has `web`, which writes on without it; it can be reached at `endpoint`, and keeps its state in `shared`.
fn writing_daemon(shared: &std::path::Path, endpoint: &str) -> Daemon {
    let (shared, writer) = (shared.display(), WRITER);
    let process = format!(
        "[[process]]\nname = 'web'\ncmd = ['/usr/bin/perl', '-e', '''{writer}''', '{shared}/stop']\nclear_env = true\nstdout = 'log'\n\
         log = {{ max_size = '256K', keep = 10000 }}\n"
    );
    Setup::new(&process).state_dir(&format!("{shared}/state")).endpoint(endpoint).start()
}

#[test]
fn following_neither_loses_nor_doubles_a_line_whatever_happens_to_the_daemon() {
    let shared = tempfile::Builder::new().prefix("pm").tempdir().unwrap();
    let endpoint = format!("ipc://{}/c.sock", shared.path().display());
    let rotated = |daemon: &Daemon| daemon.metric("procman_log_rotations_total", &[]).is_some_and(|count| count >= 20.0).then_some(());

    let mut daemon = writing_daemon(shared.path(), &endpoint);
    let complaints = shared.path().join("complaints");
    let follower = Follower::of(&endpoint, &["web"], &complaints);
    let asked = |daemon: &Daemon| daemon.metric("procman_requests_total", &["command=\"logs\"", "outcome=\"ok\""]);
    until("it follows", || asked(&daemon).is_some_and(|count| count >= 1.0).then_some(()));
    // Without the variable it outlives the daemon; it ends when it finds the file.
    let writer = PidFd::open(daemon.execute("web").pid).unwrap();
    assert_eq!(follower.next(), format!("{:099}", 0));
    until("20 rotations", || rotated(&daemon));
    daemon.kill();
    drop(daemon);
    until("the follower says so", || fs::read_to_string(&complaints).unwrap().contains("waiting for the daemon").then_some(()));

    // The next daemon finds what the killed one has left half done, under a process that writes on.
    let daemon = writing_daemon(shared.path(), &endpoint);
    until("20 rotations of the next daemon", || rotated(&daemon));
    fs::write(shared.path().join("stop"), "").unwrap();
    let mut expected = 1_u64;
    loop {
        let line = follower.next();
        if let Some(count) = line.strip_prefix("done ") {
            assert_eq!(count.parse::<u64>().unwrap(), expected);
            break;
        }
        assert_eq!(line.parse::<u64>().unwrap(), expected, "lost, doubled or out of order");
        expected += 1;
    }
    until("the writer has ended", || writer.send_signal(0).is_err().then_some(()));
    let said = fs::read_to_string(&complaints).unwrap();
    assert!(said.contains("the daemon answers again") && !said.contains("not kept"), "{said}");
    assert_eq!(follower.interrupt().code(), Some(0));

    // From the beginning, through parts that are compressed by now.
    let files =
        || fs::read_dir(shared.path().join("state/logs/web")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    until("old parts are compressed", || (files().filter(|name| name.ends_with(".gz")).count() > 20).then_some(()));
    let (mut offset, mut next) = (0, 0_u64);
    let began = Instant::now();
    while next < expected {
        let answer = logs(&daemon, json!({"name": "web", "offset": offset, "lines": 100_000, "max_bytes": 1 << 20}));
        assert!(!answer.truncated && !answer.lines.is_empty() && began.elapsed() < Duration::from_secs(60));
        for line in answer.lines.iter().take_while(|line| !line.starts_with("done")) {
            assert_eq!(line.parse::<u64>().unwrap(), next);
            next += 1;
        }
        offset = answer.offset;
    }
}

#[test]
fn what_is_old_is_rotated_and_what_is_too_old_goes() {
    // Far less than `max_size`, and nothing is written any more.
    let daemon = Daemon::start(
        "[[process]]\nname = 'web'\ncmd = ['sh', '-c', 'seq 1 2000; exec sleep 1000']\nstdout = 'log'\n\
         log = { max_size = '1G', max_age = 1 }\n",
    );
    daemon.execute("web");
    until("its output is old", || daemon.metric("procman_log_rotations_total", &[]).is_some_and(|count| count >= 1.0).then_some(()));
    let parts = || fs::read_dir(daemon.path("state/logs/web")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    until("and then too old", || parts().all(|name| name == "stdout.log" || name.ends_with(".record")).then_some(()));
    let kept = logs(&daemon, json!({"name": "web", "offset": 0, "lines": 5000}));
    assert!(kept.truncated && kept.lines.last().is_some_and(|line| line == "2000"), "less than a block of it stays: {kept:?}");
}

#[test]
fn following_ends_when_nobody_reads() {
    let daemon = Daemon::start("[[process]]\nname = 'web'\ncmd = ['echo', 'one']\nstdout = 'log'\nautostart = true\n");
    daemon.wait_for_state("web", StateName::Exited);
    let mut child = Command::new(env!("CARGO_BIN_EXE_procmanctl"))
        .args(["--endpoint", &daemon.endpoint(), "logs", "-f", "web"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    // The pipe is closed, and no further line comes.
    assert_eq!(until("it has left", || child.try_wait().unwrap()).code(), Some(0));
}
