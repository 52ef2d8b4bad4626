//! The real `procmanctl`: what it prints where, and its exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command as Program, Output, Stdio};

use procman::client::Endpoint;
use procman::protocol::reply::{Each, Ended, Executed, RunningPids, ViewWithStatus};
use procman::protocol::request::Command;
use procman::protocol::{ErrorCode, StateName, WireError};

use super::fake::{Act, Fake, done, refused, view};

fn procmanctl(endpoint: &Endpoint) -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_procmanctl"));
    program.env("PROCMAN_ENDPOINT", endpoint.to_string()).env("TZ", "UTC").stdin(Stdio::null());
    program
}

/// One call against a daemon of canned replies.
fn call(line: &str, script: impl FnMut(&procman::protocol::codec::Request) -> Act + Send + 'static) -> Called {
    let fake = Fake::start(script);
    let output = procmanctl(&fake.endpoint).args(line.split(' ')).output().unwrap();
    Called::from(output)
}

#[derive(Debug)]
struct Called {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Called {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn not_found() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no sub-process \"web\"")
}

#[test]
fn a_list_in_a_pipe_is_plain() {
    let called = call("list", |request| done(request, &[view("a", StateName::Running), view("b", StateName::Fatal)]));
    assert_eq!((called.code, called.err.as_str()), (Some(0), ""));
    assert_eq!(
        called.out,
        "\
NAME  GROUP  STATE    PID  UPTIME  RESTARTS  LAST END  COMMAND
a     -      running    -  -              0  -         sleep 60
b     -      fatal      -  -              0  -         sleep 60
"
    );
}

#[test]
fn json_is_the_reply_on_one_line() {
    let called = call("--json is-running web", |request| done(request, &false));
    let reply: serde_json::Value = serde_json::from_str(&called.out).unwrap();
    assert_eq!((called.code, called.out.lines().count()), (Some(1), 1));
    assert_eq!((&reply["success"], &reply["result"]), (&true.into(), &false.into()));

    let called = call("--json is-running web", |request| refused(request, &not_found()));
    let reply: serde_json::Value = serde_json::from_str(&called.out).unwrap();
    assert_eq!((called.code, &reply["error"]["code"]), (Some(1), &"not_found".into()));
    assert_eq!(called.err, "procmanctl: not_found: there is no sub-process \"web\"\n");
}

#[test]
fn a_refusal_is_told_on_standard_error() {
    let called = call("execute web", |request| refused(request, &not_found()));
    assert_eq!((called.code, called.out.as_str()), (Some(1), ""));
    assert_eq!(called.err, "procmanctl: not_found: there is no sub-process \"web\"\n");
}

#[test]
fn status_of_one_exits_by_its_state() {
    for state in StateName::ALL {
        let runs = matches!(state, StateName::Starting | StateName::Running);
        let called = call("status web", |request| done(request, &ViewWithStatus { view: view("web", *state), status: None }));
        assert_eq!(called.code, Some(i32::from(!runs)), "{state}");
        assert!(called.out.starts_with(&format!("web {state}\n")), "{}", called.out);
    }
}

#[test]
fn questions_exit_by_their_answer() {
    for (line, yes) in [("is-running web", true), ("exists web", false)] {
        let called = call(line, move |request| done(request, &yes));
        assert_eq!((called.code, called.out.as_str()), (Some(i32::from(!yes)), if yes { "yes\n" } else { "no\n" }));
    }
    let called = call("is-process-running x", |request| done(request, &RunningPids::First(0)));
    assert_eq!((called.code, called.out.as_str()), (Some(1), "0\n"));
    let called = call("returncode web", |request| done(request, &None::<i32>));
    assert_eq!((called.code, called.out.as_str()), (Some(0), "none\n"));
}

#[test]
fn survivors_and_entries_that_were_refused_exit_1() {
    let ended = |survivors| Ended {
        name: "web".parse().unwrap(),
        survivors,
        returncode: Some(0),
        signal: None,
        terminated: vec![7],
        killed: vec![],
    };
    assert_eq!(call("quit web", move |request| done(request, &ended(0))).code, Some(0));
    let called = call("quit web", move |request| done(request, &ended(1)));
    assert_eq!((called.code, called.err.as_str()), (Some(1), "procmanctl: web: 1 process outlives SIGKILL\n"));
    let called = call("restart --all", |request| {
        let run = Executed { name: "web".parse().unwrap(), pid: 8, uuid: "u".into(), state: StateName::Running };
        done(
            request,
            &[Each::Done(run), Each::Refused { name: "db".parse().unwrap(), error: WireError::new(ErrorCode::Busy, "try again") }],
        )
    });
    assert_eq!((called.code, called.out.as_str()), (Some(1), "web: running, PID 8\n"));
    assert_eq!(called.err, "procmanctl: db: busy: try again\n");
}

#[test]
fn nobody_there_exits_3_and_no_answer_4() {
    let endpoint = "ipc:///nonexistent/c.sock".parse().unwrap();
    let called = Called::from(procmanctl(&endpoint).arg("ping").output().unwrap());
    assert_eq!((called.code, called.out.as_str()), (Some(3), ""));
    assert!(called.err.starts_with("procmanctl: no daemon reached at ipc:///nonexistent/c.sock: No such file"), "{}", called.err);

    let called = call("ping --timeout 2", |_| Act::Silence);
    assert_eq!(called.code, Some(4));
    assert!(called.err.contains("no answer from ipc://"), "{}", called.err);
    assert_eq!(call("ping", |_| Act::Die).code, Some(3));
}

#[test]
fn a_file_is_registered_entry_by_entry() {
    let fake = Fake::start(|request| {
        let Command::Register(register) = &request.command else { panic!("{request:?}") };
        match register.name.as_str() {
            "taken" => refused(request, &WireError::new(ErrorCode::AlreadyExists, "another definition")),
            name => done(request, &view(name, StateName::Stopped)),
        }
    });
    let mut program = procmanctl(&fake.endpoint)
        .args(["register", "-", "--replace"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = "[defaults]\ncwd = '/'\n[[process]]\nname = 'a'\ncmd = ['x']\n[[process]]\nname = 'taken'\n[[process]]\nname = 'b'\n";
    program.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let called = Called::from(program.wait_with_output().unwrap());
    assert_eq!((called.code, called.out.as_str()), (Some(1), "a: registered, stopped\nb: registered, stopped\n"));
    assert_eq!(called.err, "procmanctl: taken: already_exists: another definition\n");
    let asked = fake.asked();
    assert_eq!(asked.len(), 3);
    for request in asked {
        let Command::Register(register) = request.command else { panic!("{request:?}") };
        assert!(register.replace && register.definition.cwd.is_some());
    }
}

#[test]
fn a_wrong_file_registers_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.toml");
    std::fs::write(&file, "[[process]]\nname = 'a'\ncmd = ['x']\n[[process]]\nname = 'b'\ncomand = ['x']\n").unwrap();
    let fake = Fake::start(|request| done(request, &view("a", StateName::Stopped)));
    let called = Called::from(procmanctl(&fake.endpoint).arg("register").arg(&file).output().unwrap());
    assert_eq!((called.code, called.out.as_str()), (Some(2), ""));
    assert_eq!(called.err, format!("procmanctl: {}:6: unknown key `comand`, did you mean `cmd`?\n", file.display()));
    assert!(fake.asked().is_empty());
}

#[test]
fn usage_errors_exit_2_and_help_exits_0() {
    let endpoint = "ipc:///nonexistent/c.sock".parse().unwrap();
    for (line, code) in
        [("quit", 2), ("conjure web", 2), ("--endpoint nonsense ping", 2), ("--help", 0), ("help quit", 0), ("--version", 0)]
    {
        let called = Called::from(procmanctl(&endpoint).args(line.split(' ')).output().unwrap());
        assert_eq!(called.code, Some(code), "{line}: {}", called.err);
        assert_eq!(called.out.is_empty(), code == 2, "{line}");
        assert_eq!(called.err.is_empty(), code == 0, "{line}");
    }
    let mut program = procmanctl(&endpoint);
    program.env_remove("PROCMAN_ENDPOINT").args(["--endpoint", "ipc:///nonexistent/other.sock", "ping"]);
    assert_eq!(Called::from(program.output().unwrap()).code, Some(3));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    // More than a pipe holds, so that the writer is still at it when the reader leaves.
    let many: Vec<_> = (0..5000).map(|n| view(&format!("sub-process-{n}"), StateName::Running)).collect();
    let fake = Fake::start(move |request| done(request, &many));
    for json in [&["list"][..], &["list", "--json"]] {
        let mut program = procmanctl(&fake.endpoint).args(json).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::with_capacity(64, program.stdout.take().unwrap());
        if json.len() == 1 {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert!(line.starts_with("NAME "), "{line}");
        }
        drop(reader);
        let mut err = String::new();
        program.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((program.wait().unwrap().code(), err.as_str()), (Some(0), ""));
    }
}

#[test]
fn what_the_daemon_says_cannot_speak_to_the_terminal() {
    let called =
        call("execute web", |request| refused(request, &WireError::new(ErrorCode::SpawnFailed, "no \x1b]0;owned\x07 here\u{9b}2J")));
    assert_eq!(called.err, "procmanctl: spawn_failed: no \\x1b]0;owned\\x07 here\\x9b2J\n");
    let called = call("--json execute web", |request| refused(request, &WireError::new(ErrorCode::SpawnFailed, "\u{9b}2J\x7f")));
    assert!(called.out.contains("\\u009b2J\\u007f"), "{}", called.out);
}
