//! Every command, through the typed client and over a plain socket.

use std::collections::{BTreeMap, BTreeSet};

use procman::client::{Client, ClientError};
use procman::protocol::definition::{Definition, Output};
use procman::protocol::reply::{
    AuditEntry, Each, Ended, Executed, HostProcess, HostProcessInfo, Info, LogLines, NamedProcess, Nothing, PastRun, Pong, Reloaded,
    Replay, RunningPids, Signalled, StatusOfAll, Unregistered, View, ViewWithStatus,
};
use procman::protocol::request::{
    Audit, ByName, Command, Events, Execute, History, IsProcessRunning, Items, List, LogStream, Logs, Match, NoArgs, Quit, Reap, Register,
    Reload, Restart, SendSignal, Shutdown, Status,
};
use procman::protocol::{Cause, CommandName, Detail, ErrorCode, Name, Signal, StateName, VERSION, Wanted};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::harness::{Daemon, Setup, is_alive, stat_of, until};

const SLEEPER: &str = "[[process]]\nname = 'web'\ngroup = 'site'\ncmd = ['sleep']\nargs = ['1000']\n";

fn name(name: &str) -> Name {
    name.parse().unwrap()
}

/// A client that notes what it has asked.
struct Asking {
    client: Client,
    asked: BTreeSet<&'static str>,
}

impl Asking {
    #[track_caller]
    fn ask<T: DeserializeOwned>(&mut self, command: Command) -> T {
        self.asked.insert(command.name().as_str());
        self.client.request(&command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

#[test]
fn every_command_has_its_answer() {
    let mut daemon = Setup::new("").tcp().start();
    let mut client = Asking { client: daemon.client(), asked: BTreeSet::new() };
    let web = || ByName { name: name("web") };

    assert!(client.ask::<Pong>(Command::Ping(NoArgs {})).pong);
    let info: Info = client.ask(Command::Info(NoArgs {}));
    assert_eq!((info.pid, info.protocol, info.version.as_str()), (daemon.pid(), VERSION, env!("CARGO_PKG_VERSION")));
    assert_eq!((&info.endpoints[0], info.endpoints.len()), (&daemon.endpoint(), 2));
    assert!(info.capabilities.subreaper && info.uptime >= 0.0 && uuid::Uuid::parse_str(&info.uuid).unwrap().get_version_num() == 1);
    assert_eq!(info.counts.len(), StateName::ALL.len());

    let definition = Definition {
        group: Some(name("site")),
        cmd: Some(vec!["/bin/sh".into(), "-c".into(), "echo \"$0 $A $B\"; sleep 1000 & wait".into()]),
        env: Some(BTreeMap::from([("A".into(), "own".into()), ("B".into(), "own".into())])),
        stdout: Some(Output::File(daemon.path("out"))),
        ..Definition::default()
    };
    let view: View = client.ask(Command::Register(Box::new(Register { name: name("web"), replace: false, definition })));
    assert_eq!((view.name.as_str(), view.state, view.wanted, view.pid), ("web", StateName::Stopped, Wanted::Down, None));
    assert_eq!(client.ask::<Vec<View>>(Command::List(List::default())), [view]);
    assert_eq!(client.ask::<Option<i32>>(Command::Returncode(web())), None, "it never ran");
    assert!(!client.ask::<bool>(Command::Exists(web())) && !client.ask::<bool>(Command::IsRunning(web())));

    let (args, env) = (vec!["extra".to_owned()], BTreeMap::from([("B".to_owned(), "run".to_owned())]));
    let executed: Executed = client.ask(Command::Execute(Execute { name: name("web"), args, env, wait: false, timeout: None }));
    assert_eq!((executed.name.as_str(), executed.state), ("web", StateName::Running));
    assert_eq!(daemon.lines("out", 1), ["extra own run"]);
    assert!(client.ask::<bool>(Command::Exists(web())) && client.ask::<bool>(Command::IsRunning(web())));
    let of_the_group: Vec<View> =
        client.ask(Command::List(List { group: Some(name("site")), state: Some(StateName::Running), ..List::default() }));
    assert_eq!((of_the_group[0].pid, of_the_group.len()), (Some(executed.pid), 1));

    let children = until("the shell has its child", || {
        let children: Vec<NamedProcess> = client.ask(Command::Children(web()));
        (children.first()?.name == "sleep" && !children[0].cmdline.is_empty()).then_some(children)
    });
    assert_eq!((children.len(), &children[0].cmdline), (1, &vec!["sleep".to_owned(), "1000".to_owned()]));

    let ViewWithStatus { view, status } = client.ask(Command::Status(Status { name: Some(name("web")) }));
    let status = status.unwrap();
    assert_eq!((view.pid, status.pid, &status.uuid), (Some(executed.pid), executed.pid, &executed.uuid));
    assert!(status.memory.rss > 0 && status.threads == 1 && status.tree.processes == 2, "{status:?}");
    let all: StatusOfAll = client.ask(Command::Status(Status { name: None }));
    assert_eq!((all.daemon.pid, &all.daemon.uuid, all.processes.len()), (daemon.pid(), &info.uuid, 1));

    let items = Items::Many(vec!["echo".into(), "extra".into()]);
    let wanted = Match { items: items.clone(), contains: true, case_sensitive: false };
    let found = until("the shell waits for its child", || {
        let found: Vec<HostProcess> = client.ask(Command::Processes(wanted.clone()));
        let found = found.into_iter().find(|process| process.pid == executed.pid).unwrap();
        (found.status == "sleeping").then_some(found)
    });
    assert!(found.cmdline.starts_with("/bin/sh -c echo"), "{found:?}");
    let found: Vec<HostProcessInfo> = client.ask(Command::ProcessInfo(wanted));
    let found = found.iter().find(|process| process.pid == executed.pid).unwrap();
    assert_eq!((found.cmdline.len(), found.cmdline[3].as_str()), (4, "extra"));
    assert_eq!(found.create_time, status.create_time);
    let running = IsProcessRunning { items, contains: true, case_sensitive: false, as_list: true };
    match client.ask(Command::IsProcessRunning(running)) {
        RunningPids::All(pids) => assert!(pids.contains(&executed.pid) && pids.is_sorted()),
        RunningPids::First(pid) => panic!("{pid}"),
    }
    let zombies: Vec<NamedProcess> = client.ask(Command::Zombies(NoArgs {}));
    assert!(zombies.iter().all(|zombie| zombie.cmdline.is_empty()), "{zombies:?}");

    let signal = SendSignal { name: name("web"), signal: "CONT".parse().unwrap(), tree: false };
    assert_eq!(client.ask::<Signalled>(Command::Signal(signal)).signalled, [executed.pid]);
    let restarted: Executed = client.ask(Command::Restart(Restart { name: Some(name("web")), ..Restart::default() }));
    assert!(restarted.pid != executed.pid && restarted.uuid != executed.uuid);
    until("the new shell has its child", || (!client.ask::<Vec<NamedProcess>>(Command::Children(web())).is_empty()).then_some(()));
    let reaped: Ended = client.ask(Command::Reap(Reap { name: name("web"), timeout: None, children_only: false }));
    assert_eq!((reaped.survivors, reaped.terminated.len(), reaped.signal), (0, 2, Some(15)));
    let quit: Ended = client.ask(Command::Quit(Quit { name: Some(name("web")), ..Quit::default() }));
    assert_eq!((quit.survivors, quit.returncode, quit.terminated.len()), (0, Some(-15), 0), "it did not run any more");
    let replay: Replay = client.ask(Command::Events(Events::default()));
    assert!(replay.complete && replay.daemon == info.uuid && replay.next == replay.events.len() as u64 + 1, "{replay:?}");
    let history: Vec<PastRun> = client.ask(Command::History(History { name: Some(name("web")), limit: None }));
    let uuids: Vec<_> = history.iter().map(|run| run.uuid.as_str()).collect();
    assert_eq!(uuids, [&restarted.uuid, &executed.uuid], "newest first");
    let logs = Logs { name: name("web"), stream: LogStream::Stdout, lines: None, offset: None, max_bytes: None };
    assert_eq!(client.ask::<LogLines>(Command::Logs(logs)).lines, ["extra own run", "/bin/sh own own"], "what its file holds");
    let reloaded: Reloaded = client.ask(Command::Reload(Reload { dry_run: false }));
    assert_eq!(reloaded, Reloaded::default(), "the file has nothing, and what was registered at run time is left alone");
    assert_eq!(client.ask::<Unregistered>(Command::Unregister(web())).name, name("web"));
    let trail: Vec<AuditEntry> = client.ask(Command::Audit(Audit { name: None, limit: Some(2) }));
    assert_eq!(trail.iter().map(|entry| entry.command.as_str()).collect::<Vec<_>>(), ["unregister", "reload"]);
    assert_eq!(client.ask::<Nothing>(Command::Upgrade(NoArgs {})), Nothing {});
    daemon.wait_for_successor(&info.uuid);
    // Another program than the one that the client has talked to so far.
    let mut after = daemon.client();
    client.asked.insert("shutdown");
    assert_eq!(after.request::<Nothing>(&Command::Shutdown(Shutdown::default())).unwrap(), Nothing {});
    assert_eq!(daemon.wait_exit().code(), Some(0));

    let all: BTreeSet<&str> = CommandName::ALL.iter().map(|command| command.as_str()).collect();
    assert_eq!(client.asked, all, "a command without a test");
}

#[test]
fn the_same_definition_again_is_fine_another_needs_to_be_said() {
    let daemon = Daemon::start("");
    let first = json!({"name": "web", "cmd": ["sleep", "1000"]});
    let other = json!({"name": "web", "cmd": ["sleep", "2000"], "restart": "always"});
    let _: View = daemon.call("register", first.clone());
    let executed = daemon.execute("web");
    let again: View = daemon.call("register", first);
    assert_eq!(again.pid, Some(executed.pid));

    let error = daemon.refusal("register", other.clone());
    assert_eq!(error.code, ErrorCode::AlreadyExists);
    assert!(error.message.contains("replace: true"), "{error}");
    assert_eq!(daemon.view("web").cmd, ["sleep", "1000"]);

    let mut replacing = other;
    replacing["replace"] = true.into();
    let replaced: View = daemon.call("register", replacing);
    assert_eq!((replaced.pid, replaced.cmd[1].as_str()), (Some(executed.pid), "2000"), "the run goes on as it was started");
    let restarted: Executed = daemon.call("restart", json!({"name": "web"}));
    until("the new definition runs", || {
        let cmdline = procman::procfs::read_cmdline(restarted.pid).unwrap();
        (cmdline == ["sleep", "2000"]).then_some(())
    });

    // Unregistering ends it, and the name is free for anything.
    let _: Unregistered = daemon.call("unregister", json!({"name": "web"}));
    assert!(!is_alive(restarted.pid));
    assert_eq!(daemon.refusal("status", json!({"name": "web"})).code, ErrorCode::NotFound);
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["true"]}));
}

#[test]
fn a_definition_that_is_wrong_is_refused_with_all_that_is_wrong() {
    let daemon = Daemon::start("");
    for (definition, words) in [
        (json!({}), &["`cmd`"][..]),
        (json!({"cmd": []}), &["`cmd`"]),
        (json!({"cmd": ["a\0b"], "cwd": ""}), &["`cmd`", "`cwd`"]),
        (json!({"cmd": ["a"], "env": {"A=B": "c"}}), &["`env`"]),
        (json!({"cmd": ["a"], "stdout": "file:relative"}), &["`stdout`", "absolute"]),
        (json!({"cmd": ["a"], "stdout": "nowhere"}), &["stdout", "nowhere"]),
        (json!({"cmd": ["a"], "restart": "sometimes"}), &["sometimes"]),
        (json!({"cmd": ["a"], "stop_signal": "NOPE"}), &["NOPE"]),
        (json!({"cmd": ["a"], "stop_timeout": -1.0}), &["-1"]),
        (json!({"cmd": ["a"], "comand": "a"}), &["comand"]),
        (json!({"cmd": "a"}), &["cmd"]),
    ] {
        let mut arguments = definition;
        arguments["name"] = "web".into();
        let error = daemon.refusal("register", arguments.clone());
        assert_eq!(error.code, ErrorCode::BadRequest, "{arguments}: {error}");
        for word in words {
            assert!(error.message.contains(word), "{arguments}: {word:?} is not in {error}");
        }
    }
    for bad in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
        assert_eq!(daemon.refusal("register", json!({"name": bad, "cmd": ["a"]})).code, ErrorCode::BadRequest, "{bad:?}");
    }
    assert_eq!(daemon.call::<Vec<View>>("list", json!({})), []);
}

#[test]
fn each_refusal_has_its_code() {
    let daemon = Daemon::start(SLEEPER);
    let refusal = |command: &str, arguments| daemon.refusal(command, arguments);
    let web = || json!({"name": "web"});

    let error = refusal("execute", json!({"name": "wep"}));
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("did you mean \"web\"?"), "{error}");
    for command in ["status", "quit", "reap", "restart", "unregister", "is_running", "exists", "returncode", "children"] {
        assert_eq!(refusal(command, json!({"name": "none"})).code, ErrorCode::NotFound, "{command}");
    }
    for signal in [json!("HUP"), json!("SIGHUP"), json!(1)] {
        assert_eq!(refusal("signal", json!({"name": "web", "signal": signal})).code, ErrorCode::NotRunning);
    }
    assert_eq!(refusal("signal", json!({"name": "web", "signal": "HUP", "tree": true})).code, ErrorCode::NotRunning);
    let executed = daemon.execute("web");
    let error = refusal("execute", web());
    assert_eq!((error.code, &error.details["pid"]), (ErrorCode::AlreadyRunning, &Detail::Int(executed.pid.into())));
    assert_eq!(stat_of(executed.pid).unwrap().name(), "sleep", "it runs on");

    assert_eq!(refusal("quit", json!({"group": "nobody"})).code, ErrorCode::NotFound);
    for (command, arguments) in [
        ("quit", json!({})),
        ("quit", json!({"name": "web", "all": true})),
        ("quit", json!({"name": "web", "group": "site"})),
        ("restart", json!({})),
        ("restart", json!({"group": "site", "args": ["x"]})),
        ("restart", json!({"all": true, "env": {"A": "b"}})),
        ("execute", json!({"name": "web", "env": {"A=B": "c"}})),
        ("execute", json!({"name": "web", "args": ["a\0b"]})),
        ("execute", json!({"name": "web", "args": "a"})),
        ("signal", json!({"name": "web"})),
        ("signal", json!({"name": "web", "signal": "NOPE"})),
        ("signal", json!({"name": "web", "signal": 0})),
        ("signal", json!({"name": "web", "signal": 65})),
        ("quit", json!({"name": "web", "timeout": -1})),
        ("quit", json!({"name": "web", "timeout": 1e300})),
        ("list", json!({"contains": true})),
        ("list", json!({"items": "x", "group": "site"})),
        ("list", json!({"state": "sleeping"})),
        ("processes", json!({})),
        ("shutdown", json!({"children": "eat"})),
    ] {
        assert_eq!(refusal(command, arguments.clone()).code, ErrorCode::BadRequest, "{command} {arguments}");
    }
    assert_eq!(daemon.view("web").pid, Some(executed.pid), "nothing of that has touched it");
}

#[test]
fn a_group_or_all_are_meant_at_once() {
    let process = |name: &str, group: &str| format!("[[process]]\nname = '{name}'\ngroup = '{group}'\ncmd = ['sleep', '1000']\n");
    let daemon = Daemon::start(&[process("a", "x"), process("b", "x"), process("c", "y")].concat());
    for name in ["a", "b", "c"] {
        daemon.execute(name);
    }
    let names = |ended: &[Each<Ended>]| -> Vec<String> {
        ended
            .iter()
            .map(|each| match each {
                Each::Done(ended) => ended.name.to_string(),
                Each::Refused { name, error } => panic!("{name}: {error}"),
            })
            .collect()
    };
    let ended: Vec<Each<Ended>> = daemon.call("quit", json!({"group": "x"}));
    assert_eq!(names(&ended), ["a", "b"]);
    assert_eq!(daemon.view("c").state, StateName::Running);

    let restarted: Vec<Each<Executed>> = daemon.call("restart", json!({"all": true}));
    assert!(restarted.len() == 3 && restarted.iter().all(|each| matches!(each, Each::Done(executed) if is_alive(executed.pid))));
    // One that cannot be started hides none of the others.
    let _: View = daemon.call("register", json!({"name": "d", "group": "x", "cmd": ["/no/such/program"]}));
    let restarted: Vec<Each<Executed>> = daemon.call("restart", json!({"group": "x"}));
    assert!(
        matches!(&restarted[..], [Each::Done(_), Each::Done(_), Each::Refused { name, error }]
        if name.as_str() == "d" && error.code == ErrorCode::SpawnFailed),
        "{restarted:?}"
    );
    let ended: Vec<Each<Ended>> = daemon.call("quit", json!({"all": true}));
    assert_eq!(names(&ended), ["a", "b", "c", "d"]);
    assert_eq!(daemon.info().counts[&StateName::Stopped], 4);
}

#[test]
fn an_end_is_told_as_python_tells_it() {
    let daemon = Daemon::start("");
    for (script, returncode, signal, cause) in [
        ("exit 0", 0, None, Cause::Exit),
        ("exit 3", 3, None, Cause::Exit),
        ("exit 255", 255, None, Cause::Exit),
        ("kill -KILL $$", -9, Some(9), Cause::Signal),
        ("kill -TERM $$", -15, Some(15), Cause::Signal),
    ] {
        let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sh", "-c", script], "replace": true}));
        daemon.execute("web");
        let view = daemon.wait_for_state("web", StateName::Exited);
        assert_eq!((view.returncode, view.signal, view.cause), (Some(returncode), signal, Some(cause)), "{script}");
        assert_eq!((view.pid, view.uptime, view.wanted), (None, None, Wanted::Down));
        assert_eq!(daemon.call::<Option<i32>>("returncode", json!({"name": "web"})), Some(returncode));
        assert!(!daemon.call::<bool>("exists", json!({"name": "web"})) && !daemon.call::<bool>("is_running", json!({"name": "web"})));
    }
    // While it runs the last one's code is not shown.
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "1000"], "replace": true}));
    daemon.execute("web");
    assert_eq!(daemon.call::<Option<i32>>("returncode", json!({"name": "web"})), None);
}

#[test]
fn a_client_over_tcp_is_served_as_one_over_ipc() {
    let daemon = Setup::new(SLEEPER).tcp().start();
    let endpoint = daemon.tcp().parse().unwrap();
    let mut client = Client::connect(&endpoint, Default::default()).unwrap();
    let executed: Executed = client
        .request(&Command::Execute(Execute { name: name("web"), args: vec![], env: BTreeMap::new(), wait: false, timeout: None }))
        .unwrap();
    assert_eq!(daemon.view("web").pid, Some(executed.pid));
    let kill = Command::Signal(SendSignal { name: name("web"), signal: Signal::KILL, tree: false });
    client.request::<Signalled>(&kill).unwrap();
    daemon.wait_for("web", |view| view.returncode == Some(-9));
    match client.request::<Signalled>(&kill) {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::NotRunning),
        other => panic!("{other:?}"),
    }
}
