//! One example of everything that goes over the wire, with nothing left out that may be there.

use std::collections::BTreeMap;

use procman::protocol::definition::{
    BackoffDefinition, Definition, EnvFile, HealthDefinition, LimitsDefinition, LogDefinition, Output, ReadyDefinition, Seconds,
    StartLimitDefinition, StopRequestDefinition,
};
use procman::protocol::envelope::RequestId;
use procman::protocol::event::{Event, Noted, Stamp, StateChanged};
use procman::protocol::names::{Cause, EndedBy, EventName, Name, Origin, Overlap, RestartPolicy, Signal, StateName, Wanted};
use procman::protocol::reply::*;
use procman::protocol::request::*;
use procman::protocol::{Detail, ErrorCode, RegistryHealth, WireError};

const UUID: &str = "6fd1b8a0-c7c5-11f0-8de9-0242ac120002";

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn seconds(value: f64) -> Option<Seconds> {
    Some(Seconds::new(value).unwrap())
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A definition that says every key.
pub(crate) fn definition() -> Definition {
    Definition {
        group: Some(name("core")),
        cmd: Some(strings(&["python3", "-m", "egse.registry.server"])),
        args: Some(strings(&["start"])),
        shell: Some(false),
        env: Some(pairs(&[("LOG_LEVEL", "info")])),
        clear_env: Some(false),
        cwd: Some("/".into()),
        user: Some("cgse".into()),
        stdout: Some(Output::File("/var/log/registry.log".into())),
        stderr: Some(Output::Stdout),
        autostart: Some(true),
        restart: Some(RestartPolicy::OnFailure),
        success_codes: Some(vec![0, 143]),
        backoff: Some(BackoffDefinition {
            initial: seconds(0.25),
            factor: Some(1.5),
            max: seconds(30.0),
            jitter: Some(0.0),
            reset_after: seconds(120.0),
        }),
        start_limit: Some(StartLimitDefinition { count: Some(3), interval: seconds(60.0) }),
        start_seconds: seconds(1.0),
        stop_signal: Some("INT".parse().unwrap()),
        stop_timeout: seconds(8.5),
        ..Definition::default()
    }
}

/// A definition that says every key that came after the first.
pub(crate) fn later_definition() -> Definition {
    let zmq = || Some("tcp://127.0.0.1:6127".to_owned());
    Definition {
        cmd: Some(strings(&["python3", "-m", "egse.notifyhub.server"])),
        env_file: Some(EnvFile { path: "/etc/cgse/site.env".into(), optional: true }),
        user_group: Some("cgse".into()),
        supplementary_groups: Some(strings(&["dialout", "video"])),
        umask: Some("027".parse().unwrap()),
        nice: Some(-5),
        oom_score_adj: Some(-500),
        no_new_privs: Some(true),
        limits: Some(LimitsDefinition {
            nofile: Some("1024:4096".parse().unwrap()),
            core: Some("unlimited".parse().unwrap()),
            address_space: Some("8G".parse().unwrap()),
            memory_max: Some("2G".parse().unwrap()),
            pids_max: Some(512),
            cpu_weight: Some(200),
            ..LimitsDefinition::default()
        }),
        instances: Some(2),
        after: Some(vec![name("logger")]),
        requires: Some(vec![name("registry")]),
        stdout: Some(Output::Log),
        stderr: Some(Output::Journal),
        log: Some(LogDefinition {
            max_size: Some("10M".parse().unwrap()),
            keep: Some(5),
            compress: Some(true),
            max_age: seconds(604_800.0),
        }),
        schedule: Some("0 3 * * *".into()),
        overlap: Some(Overlap::Skip),
        ready: Some(ReadyDefinition {
            zmq: zmq(),
            socket: Some("DEALER".into()),
            frames: Some(strings(&["REQ", "{\"action\": \"health\"}"])),
            expect: Some("ok".into()),
            timeout: seconds(10.0),
            interval: seconds(0.5),
            try_timeout: seconds(1.0),
            ..ReadyDefinition::default()
        }),
        health: Some(HealthDefinition {
            tcp: Some("127.0.0.1:6127".into()),
            interval: seconds(5.0),
            timeout: seconds(1.0),
            failures: Some(3),
            ..HealthDefinition::default()
        }),
        stop_request: Some(StopRequestDefinition {
            zmq: zmq(),
            frames: Some(strings(&["REQ", "{\"action\": \"terminate\"}"])),
            timeout: seconds(1.0),
            ..StopRequestDefinition::default()
        }),
        ..Definition::default()
    }
}

/// A request of the golden messages.
pub(crate) struct SampleRequest {
    pub(crate) file: &'static str,
    pub(crate) description: &'static str,
    pub(crate) command: Command,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) client: Option<Name>,
}

pub(crate) fn requests() -> Vec<SampleRequest> {
    let by_name = || ByName { name: name("registry") };
    let one = |text: &str| Items::One(text.into());
    let sample = |file, description, command| SampleRequest { file, description, command, request_id: None, client: None };
    let mut all = vec![
        sample("ping", "Is the daemon there?", Command::Ping(NoArgs {})),
        sample("info", "What daemon is it?", Command::Info(NoArgs {})),
        sample(
            "register",
            "Define a sub-process, saying every key.",
            Command::Register(Box::new(Register { name: name("registry"), replace: true, definition: definition() })),
        ),
        sample(
            "register-later",
            "Define a sub-process, saying the keys that came later.",
            Command::Register(Box::new(Register { name: name("notify"), replace: false, definition: later_definition() })),
        ),
        sample(
            "register-least",
            "Define a sub-process, saying only what must be said.",
            Command::Register(Box::new(Register {
                name: name("web@1:a.b_c-d"),
                replace: false,
                definition: Definition { cmd: Some(strings(&["sleep", "9"])), ..Definition::default() },
            })),
        ),
        sample("unregister", "Forget a sub-process.", Command::Unregister(by_name())),
        sample(
            "execute",
            "Start it, with arguments and a variable for this run only.",
            Command::Execute(Execute {
                name: name("registry"),
                args: strings(&["--debug"]),
                env: pairs(&[("SIMULATOR", "1")]),
                wait: false,
                timeout: None,
            }),
        ),
        sample(
            "execute-wait",
            "Start it, and answer once it is ready, or after ten seconds.",
            Command::Execute(Execute { name: name("registry"), args: vec![], env: BTreeMap::new(), wait: true, timeout: seconds(10.0) }),
        ),
        sample(
            "quit",
            "End it, with ten seconds of patience.",
            Command::Quit(Quit { name: Some(name("registry")), timeout: seconds(10.0), ..Quit::default() }),
        ),
        sample("quit-group", "End every sub-process of a group.", Command::Quit(Quit { group: Some(name("core")), ..Quit::default() })),
        sample("quit-all", "End every sub-process.", Command::Quit(Quit { all: true, ..Quit::default() })),
        sample(
            "reap",
            "End what is below it, and leave the process itself alone.",
            Command::Reap(Reap { name: name("registry"), timeout: seconds(0.5), children_only: true }),
        ),
        sample(
            "restart",
            "Quit it, then execute it with another argument.",
            Command::Restart(Restart {
                name: Some(name("registry")),
                timeout: seconds(2.0),
                args: strings(&["--debug"]),
                env: pairs(&[("SIMULATOR", "1")]),
                ..Restart::default()
            }),
        ),
        sample("restart-all", "Restart every sub-process.", Command::Restart(Restart { all: true, ..Restart::default() })),
        sample(
            "signal",
            "Send SIGHUP to the whole tree.",
            Command::Signal(SendSignal { name: name("registry"), signal: Signal::from_number(1).unwrap(), tree: true }),
        ),
        sample("list", "Every registered sub-process.", Command::List(List::default())),
        sample(
            "list-some",
            "Those of a group that are in a state.",
            Command::List(List { group: Some(name("core")), state: Some(StateName::Running), ..List::default() }),
        ),
        sample(
            "list-items",
            "Host processes, as `processes` answers them.",
            Command::List(List { items: Some(one("sleep")), contains: Some(false), case_sensitive: Some(true), ..List::default() }),
        ),
        sample("status", "The status of one.", Command::Status(Status { name: Some(name("registry")) })),
        sample("status-all", "The status of the daemon and of all.", Command::Status(Status::default())),
        sample("zombies", "Every zombie on the host.", Command::Zombies(NoArgs {})),
        sample(
            "processes",
            "Host processes that match one item.",
            Command::Processes(Match { items: one("feesim"), contains: true, case_sensitive: false }),
        ),
        sample(
            "process_info",
            "Host processes that match two items exactly.",
            Command::ProcessInfo(Match { items: Items::Many(strings(&["dpu_cs", "--zeromq"])), contains: false, case_sensitive: true }),
        ),
        sample(
            "is_process_running",
            "All PIDs that match.",
            Command::IsProcessRunning(IsProcessRunning { items: one("feesim"), contains: true, case_sensitive: false, as_list: true }),
        ),
        sample("is_running", "Does it run?", Command::IsRunning(by_name())),
        sample("exists", "Is there a process?", Command::Exists(by_name())),
        sample("returncode", "How did the last run end?", Command::Returncode(by_name())),
        sample("children", "All its descendants.", Command::Children(by_name())),
        sample("events", "Everything that is kept.", Command::Events(Events::default())),
        sample(
            "events-since",
            "A hundred, from one on of a run of the daemon.",
            Command::Events(Events { since: Some(41), daemon: Some(DAEMON.into()), limit: Some(100) }),
        ),
        sample("history", "The last runs of all.", Command::History(History::default())),
        sample("history-name", "The last runs of one.", Command::History(History { name: Some(name("registry")), limit: Some(5) })),
        sample(
            "logs",
            "Where an earlier answer ended.",
            Command::Logs(Logs {
                name: name("registry"),
                stream: LogStream::Stderr,
                lines: Some(1000),
                offset: Some(4_294_967_296),
                max_bytes: Some(1 << 20),
            }),
        ),
        sample(
            "logs-last",
            "The last lines.",
            Command::Logs(Logs { name: name("registry"), stream: LogStream::Stdout, lines: None, offset: None, max_bytes: None }),
        ),
        sample("audit", "The last commands that were to change something.", Command::Audit(Audit::default())),
        sample("audit-name", "Those about one.", Command::Audit(Audit { name: Some(name("registry")), limit: Some(5) })),
        sample("reload", "Read the configuration again.", Command::Reload(Reload::default())),
        sample("reload-dry_run", "Say what that would do.", Command::Reload(Reload { dry_run: true })),
        sample("upgrade", "Go on with the program that is installed now.", Command::Upgrade(NoArgs {})),
        sample("shutdown-keep", "Leave, and leave them running.", Command::Shutdown(Shutdown { children: ChildrenAtShutdown::Keep })),
        sample("shutdown", "Leave.", Command::Shutdown(Shutdown { children: ChildrenAtShutdown::Quit })),
    ];
    for (file, description, request_id) in [
        ("ping-id-text", "A request whose id is a text.", RequestId::Text("r-1 ü".into())),
        ("ping-id-number", "A request whose id is a large number.", RequestId::Unsigned(u64::MAX)),
        ("ping-id-negative", "A request whose id is a negative number.", RequestId::Signed(-5)),
    ] {
        all.push(SampleRequest { file, description, command: Command::Ping(NoArgs {}), request_id: Some(request_id), client: None });
    }
    all.push(SampleRequest {
        file: "quit-client",
        description: "A client that names itself may send it again, and it is done once.",
        command: Command::Quit(Quit { name: Some(name("registry")), ..Quit::default() }),
        request_id: Some(RequestId::Unsigned(7)),
        client: Some(name("gui-1")),
    });
    all
}

/// A view in which nothing is null.
pub(crate) fn view() -> View {
    View {
        name: name("registry"),
        group: Some(name("core")),
        state: StateName::Running,
        wanted: Wanted::Up,
        pid: Some(4100),
        uuid: Some(UUID.into()),
        started_at: Some(1_795_335_514.5),
        uptime: Some(13.0625),
        ready: true,
        health: Some("healthy".into()),
        returncode: Some(-15),
        signal: Some(15),
        cause: Some(Cause::Signal),
        restarts: 2,
        next_start_at: Some(1_795_335_530.25),
        cmd: strings(&["python3", "-m", "egse.registry.server"]),
        args: strings(&["start"]),
        shell: false,
        cwd: Some("/".into()),
        stdout: "file:/var/log/registry.log".into(),
        stderr: "stdout".into(),
        message: None,
        log_problem: None,
        cgse: None,
    }
}

/// How a service of CGSE is listed.
pub(crate) fn cgse_entry() -> CgseEntry {
    CgseEntry {
        service_type: "LOG_CS".into(),
        id: Some("log-cs-8a9d4f6e-6c51-4a55-9c53-5be1e4f3f1aa".into()),
        health: RegistryHealth::Unknown,
        since: Some(1_795_335_520.5),
        problem: Some("tcp://127.0.0.1:6100 does not answer within 2 s".into()),
    }
}

/// A view that says also what came later.
pub(crate) fn later_view() -> View {
    View { message: Some("failed to start registry: no such program as \"pyton3\" in PATH".into()), ..view() }
}

/// A view as it is while it runs.
fn running_view() -> View {
    View { health: None, returncode: None, signal: None, cause: None, restarts: 0, next_start_at: None, ..view() }
}

/// A view in which everything is null that may be.
fn new_view() -> View {
    View {
        name: name("web"),
        group: None,
        state: StateName::Stopped,
        wanted: Wanted::Down,
        pid: None,
        uuid: None,
        started_at: None,
        uptime: None,
        ready: false,
        cwd: None,
        args: vec![],
        stdout: "null".into(),
        stderr: "null".into(),
        ..running_view()
    }
}

/// A status in which nothing is null.
pub(crate) fn status() -> ProcessStatus {
    ProcessStatus {
        pid: 4100,
        uuid: UUID.into(),
        create_time: 1_795_335_514.49,
        uptime: 13.07,
        memory: Memory { rss: 134_008_832, uss: Some(77_574_144), vms: 2_147_483_648, swap: 0 },
        cpu: Cpu { percent: 2.5, user: 0.7, system: 0.21, count: Some(2) },
        threads: 5,
        fds: Some(17),
        io: Io { read_bytes: Some(4096), write_bytes: Some(8192) },
        context_switches: ContextSwitches { voluntary: 100, involuntary: 3 },
        tree: Tree { processes: 2, rss: 140_000_000, cpu_percent: 3.25, ..Tree::default() },
    }
}

/// A status of a tree whose memory the kernel counts.
pub(crate) fn counted_status() -> ProcessStatus {
    let status = status();
    ProcessStatus { tree: Tree { memory: Some(150_000_000), memory_peak: Some(160_000_000), ..status.tree }, ..status }
}

/// A status in which everything is null that may be.
fn shy_status() -> ProcessStatus {
    ProcessStatus {
        memory: Memory { uss: None, ..status().memory },
        cpu: Cpu { count: None, ..status().cpu },
        fds: None,
        io: Io::default(),
        ..status()
    }
}

pub(crate) fn info() -> Info {
    Info {
        version: "0.1.0".into(),
        protocol: 1,
        pid: 4071,
        uuid: UUID.into(),
        uptime: 60.5,
        started_at: 1_795_335_454.0,
        hostname: "instrument".into(),
        endpoints: strings(&["ipc:///run/procman/control.sock"]),
        metrics_endpoint: Some("http://127.0.0.1:9469/metrics".into()),
        capabilities: Capabilities { cgroup: false, pidfd_exit_info: true, curve: true, subreaper: true },
        counts: StateName::ALL.iter().map(|state| (*state, u64::from(*state == StateName::Running))).collect(),
        events_endpoints: None,
        cgse_endpoints: None,
    }
}

/// What a daemon says that publishes events.
pub(crate) fn later_info() -> Info {
    Info { events_endpoints: Some(strings(&["ipc:///run/procman/events.sock", "tcp://127.0.0.1:6128"])), ..info() }
}

const DAEMON: &str = "1f0c2ae4-c7c5-11f0-bf26-3b8f6c0d2a11";

/// What a daemon says that takes commands from clients of CGSE's control servers.
pub(crate) fn info_in_cgse() -> Info {
    Info { cgse_endpoints: Some(strings(&["tcp://127.0.0.1:33445", "tcp://127.0.0.1:33446"])), ..later_info() }
}

/// A change of state in which nothing is null.
pub(crate) fn state_changed() -> StateChanged {
    StateChanged {
        seq: 41,
        time: 1_795_335_514.5,
        name: name("registry"),
        from: StateName::Running,
        to: StateName::Stopping,
        pid: Some(4100),
        returncode: Some(-11),
        signal: Some(11),
        cause: Some(Cause::CoreDump),
        daemon: DAEMON.into(),
    }
}

/// An event about a sub-process that is no change of state.
pub(crate) fn noted() -> Noted {
    let stamp = Stamp { seq: 42, time: 1_795_335_514.75, daemon: DAEMON.into() };
    Noted::new(stamp, EventName::RestartScheduled, Some(name("registry")), "will be started again in 0.5 s")
        .with("attempt", 1_i64)
        .with("delay", 0.5)
}

/// The events of the golden messages.
pub(crate) fn events() -> Vec<(&'static str, &'static str, &'static str, Event)> {
    let least = StateChanged {
        pid: None,
        returncode: None,
        signal: None,
        cause: None,
        from: StateName::Stopped,
        to: StateName::Starting,
        ..state_changed()
    };
    let about_nobody = Noted { name: None, details: BTreeMap::new(), ..noted() };
    vec![
        ("state", "StateChanged", "It was ended by a signal.", Event::StateChanged(state_changed())),
        ("state-first", "StateChanged", "Nothing is known of an end yet.", Event::StateChanged(least)),
        ("noted", "Noted", "Something else that happened to a sub-process.", Event::Noted(noted())),
        ("noted-daemon", "Noted", "The same about no sub-process.", Event::Noted(about_nobody)),
    ]
}

pub(crate) fn replay() -> Replay {
    let events = vec![Event::StateChanged(state_changed()), Event::Noted(noted())];
    Replay { events, next: 43, complete: true, daemon: DAEMON.into() }
}

/// A run in which nothing is null.
pub(crate) fn past_run() -> PastRun {
    PastRun {
        name: name("registry"),
        uuid: UUID.into(),
        pid: Some(4100),
        args: strings(&["--debug"]),
        started_at: 1_795_335_514.5,
        ended_at: 1_795_335_574.75,
        returncode: Some(-11),
        signal: Some(11),
        cause: Cause::CoreDump,
        duration: 60.25,
        core_dump: true,
        started_by: Origin::Policy,
        ended_by: EndedBy::Itself,
        message: Some("a sentence about it".into()),
    }
}

/// A run that could not begin.
fn failed_run() -> PastRun {
    PastRun {
        pid: None,
        args: vec![],
        ended_at: 1_795_335_514.5,
        returncode: None,
        signal: None,
        cause: Cause::SpawnFailed,
        duration: 0.0,
        core_dump: false,
        started_by: Origin::Execute,
        message: Some("no such program as \"wbe\" in PATH".into()),
        ..past_run()
    }
}

/// A command of which everything is known.
pub(crate) fn audit_entry() -> AuditEntry {
    AuditEntry {
        time: 1_795_335_514.5,
        principal: "admin".into(),
        endpoint: "ipc:///run/procman/control.sock".into(),
        peer: Some("uid=1000 gid=1000 pid=4711".into()),
        command: "quit".into(),
        target: Some("group:core".into()),
        request_id: Some("4711-1".into()),
        outcome: "not_found".into(),
        message: Some("no sub-process is in a group \"core\"".into()),
    }
}

/// A command of which nothing is known that may not be.
fn shy_audit_entry() -> AuditEntry {
    AuditEntry {
        endpoint: "signal".into(),
        peer: None,
        command: "reload".into(),
        target: None,
        request_id: None,
        outcome: "ok".into(),
        message: None,
        ..audit_entry()
    }
}

pub(crate) fn reloaded() -> Reloaded {
    Reloaded {
        added: vec![name("web@1"), name("web@2")],
        changed: vec![name("hub"), name("registry")],
        removed: vec![name("old")],
        unchanged: vec![name("logger")],
        restarted: vec![name("registry")],
        ignored: vec!["control.endpoints".into()],
    }
}

pub(crate) fn executed() -> Executed {
    Executed { name: name("registry"), pid: 4100, uuid: UUID.into(), state: StateName::Starting }
}

pub(crate) fn ended() -> Ended {
    Ended {
        name: name("registry"),
        survivors: 0,
        returncode: Some(-15),
        signal: Some(15),
        terminated: vec![4100, 4101],
        killed: vec![70000],
    }
}

pub(crate) fn signalled() -> Signalled {
    Signalled { name: name("registry"), signalled: vec![4100, 4101] }
}

pub(crate) fn pong() -> Pong {
    Pong { pong: true, time: 1_795_335_514.25 }
}

pub(crate) fn log_lines() -> LogLines {
    LogLines { lines: strings(&["2026-11-22 20:41:00 ready", "bytes that are no UTF-8: \u{fffd}"]), offset: 4_294_967_400, truncated: true }
}

pub(crate) fn unregistered() -> Unregistered {
    Unregistered { name: name("registry") }
}

pub(crate) fn status_of_all() -> StatusOfAll {
    StatusOfAll {
        daemon: ProcessStatus { pid: 4071, ..status() },
        processes: vec![ViewWithStatus { view: running_view(), status: Some(status()) }, ViewWithStatus { view: new_view(), status: None }],
        store_problem: None,
        registry_problem: None,
        notify_hub_problem: None,
        metrics_hub_problem: None,
    }
}

pub(crate) fn host_process() -> HostProcess {
    HostProcess { pid: 10166, status: "sleeping".into(), cmdline: "python3 feesim start".into() }
}

pub(crate) fn host_process_info() -> HostProcessInfo {
    HostProcessInfo { pid: 10166, cmdline: strings(&["python3", "feesim", "start"]), create_time: 1_795_335_000.75 }
}

pub(crate) fn named_process() -> NamedProcess {
    NamedProcess { pid: 4101, name: "worker (1)".into(), cmdline: strings(&["worker", "a b", "\u{fffd}"]) }
}

/// A reply of the golden messages, encoded: the types differ.
pub(crate) struct SampleReply {
    pub(crate) file: &'static str,
    pub(crate) description: &'static str,
    pub(crate) command: Option<&'static str>,
    pub(crate) kind: &'static str,
    pub(crate) frame: Vec<u8>,
}

pub(crate) fn replies() -> Vec<SampleReply> {
    use procman::protocol::codec::{encode_error, encode_result};
    let id = RequestId::Unsigned(7);
    let mut all = Vec::new();
    macro_rules! reply {
        ($file:literal, $command:literal, $kind:literal, $result:expr, $description:literal) => {
            all.push(SampleReply {
                file: $file,
                description: $description,
                command: Some($command),
                kind: $kind,
                frame: encode_result(&$result, None).unwrap(),
            });
        };
    }
    reply!("ping", "ping", "Pong", pong(), "The daemon is there.");
    reply!("info", "info", "Info", info(), "What daemon it is.");
    reply!("info-no-metrics", "info", "Info", Info { metrics_endpoint: None, ..info() }, "One that serves no metrics.");
    reply!("info-events", "info", "Info", later_info(), "One that publishes events.");
    reply!("info-cgse", "info", "Info", info_in_cgse(), "One that is in CGSE.");
    reply!("register", "register", "View", new_view(), "Everything is null that may be.");
    let instances = [1, 2].map(|number| View { name: name(&format!("web@{number}")), group: Some(name("web")), ..new_view() }).to_vec();
    reply!("register-instances", "register", "[View]", instances, "With `instances` it is a list.");
    reply!("execute-wait", "execute", "Executed", Executed { state: StateName::Running, ..executed() }, "It is ready.");
    reply!("unregister", "unregister", "Unregistered", unregistered(), "The name is free again.");
    reply!("execute", "execute", "Executed", executed(), "It was started.");
    reply!("quit", "quit", "Ended", ended(), "The tree is gone.");
    let never_ran = Ended { returncode: None, signal: None, terminated: vec![], killed: vec![], ..ended() };
    reply!("quit-never-ran", "quit", "Ended", never_ran, "There was nothing to end.");
    let refused = WireError::new(ErrorCode::Busy, "registry has too much to do; try again");
    let several = vec![Each::Done(ended()), Each::Refused { name: name("web"), error: refused }];
    reply!("quit-all", "quit", "[Ended]", several, "One was ended, one refused.");
    reply!("reap", "reap", "Ended", Ended { survivors: 1, ..ended() }, "One process outlived SIGKILL.");
    reply!("restart", "restart", "Executed", Executed { state: StateName::Running, ..executed() }, "It runs again.");
    let enoent = spawn_failed();
    let several = vec![Each::Done(executed()), Each::Refused { name: name("web"), error: enoent.clone() }];
    reply!("restart-all", "restart", "[Executed]", several, "One was started, one could not be.");
    reply!("signal", "signal", "Signalled", signalled(), "Two processes were sent the signal.");
    reply!("list", "list", "[View]", vec![view(), running_view(), new_view()], "With everything, running, and new.");
    reply!("list-items", "list", "[HostProcess]", vec![host_process()], "With `items` it is `processes`.");
    let one = ViewWithStatus { view: running_view(), status: Some(shy_status()) };
    reply!("status", "status", "ViewWithStatus", one, "One whose kernel does not show everything.");
    let counted = ViewWithStatus { view: view(), status: Some(counted_status()) };
    reply!("status-counted", "status", "ViewWithStatus", counted, "One whose memory is counted for the whole tree.");
    reply!("status-all", "status", "StatusOfAll", status_of_all(), "The daemon, one that runs, one that does not.");
    reply!("zombies", "zombies", "[NamedProcess]", vec![NamedProcess { cmdline: vec![], ..named_process() }], "A zombie.");
    reply!("processes", "processes", "[HostProcess]", vec![host_process()], "One process matches.");
    reply!("process_info", "process_info", "[HostProcessInfo]", vec![host_process_info()], "One process matches.");
    reply!("is_process_running", "is_process_running", "int", RunningPids::First(0), "None matches.");
    reply!("is_process_running-list", "is_process_running", "[int]", RunningPids::All(vec![9, 10166]), "Two match.");
    reply!("is_running", "is_running", "bool", true, "It runs.");
    reply!("exists", "exists", "bool", false, "There is no process.");
    reply!("returncode", "returncode", "int or null", Some(-9), "SIGKILL ended it.");
    reply!("returncode-null", "returncode", "int or null", None::<i32>, "It runs or never ran.");
    reply!(
        "children",
        "children",
        "[NamedProcess]",
        vec![named_process()],
        "A name with spaces and parentheses, bytes that were not UTF-8."
    );
    reply!("list-message", "list", "[View]", vec![later_view()], "With what there is to say of its last end.");
    reply!("events", "events", "Replay", replay(), "Two events, none is missing.");
    let restarted: Replay = Replay { events: vec![], next: 1, complete: false, daemon: UUID.into() };
    reply!("events-none", "events", "Replay", restarted, "Another run of the daemon answers, and nothing has happened yet.");
    reply!("history", "history", "[PastRun]", vec![past_run(), failed_run()], "One that ended, one that could not begin.");
    reply!("logs", "logs", "LogLines", log_lines(), "Two lines, after some that are not kept any more.");
    let sick = View { log_problem: Some("/var/lib/procman/logs/registry/stdout.log was removed".into()), ..running_view() };
    reply!("list-log_problem", "list", "[View]", vec![sick], "Something is wrong with its log.");
    let listed = View { cgse: Some(cgse_entry()), ..running_view() };
    reply!("list-cgse", "list", "[View]", vec![listed], "It is a service of CGSE, whose registry cannot be asked now.");
    reply!("audit", "audit", "[AuditEntry]", vec![audit_entry(), shy_audit_entry()], "One that was refused, and a signal.");
    reply!("reload", "reload", "Reloaded", reloaded(), "One of each.");
    reply!("upgrade", "upgrade", "Nothing", Nothing {}, "The daemon goes on with the new program.");
    reply!("shutdown", "shutdown", "Nothing", Nothing {}, "The daemon will leave.");
    all.push(SampleReply {
        file: "ping-id",
        description: "A reply repeats the request's id.",
        command: Some("ping"),
        kind: "Pong",
        frame: encode_result(&pong(), Some(&id)).unwrap(),
    });
    for (file, error) in errors() {
        let frame = encode_error(&error, Some(&id)).unwrap();
        all.push(SampleReply { file, description: "A refusal.", command: None, kind: "error", frame });
    }
    all
}

fn spawn_failed() -> WireError {
    WireError::new(ErrorCode::SpawnFailed, "failed to start web: no such program as \"wbe\" in PATH")
        .with("errno", 2)
        .with("errno_name", "ENOENT")
        .with("command", "wbe")
}

/// Every code once, with its details.
fn errors() -> Vec<(&'static str, WireError)> {
    let error = WireError::new;
    vec![
        ("error-bad_request", error(ErrorCode::BadRequest, "quit: unknown argument `timout`")),
        (
            "error-bad_request-mistakes",
            error(
                ErrorCode::BadRequest,
                "reload: nothing was changed, the configuration is wrong: /etc/procman/procmand.toml:3: x: there is no such key",
            )
            .with("mistakes", Detail::List(vec![Detail::Text("/etc/procman/procmand.toml:3: x: there is no such key".into())])),
        ),
        (
            "error-unsupported_version",
            error(ErrorCode::UnsupportedVersion, "protocol version 2 is not spoken here, only 1 is")
                .with("supported", Detail::List(vec![Detail::Int(1)])),
        ),
        (
            "error-unknown_command",
            error(ErrorCode::UnknownCommand, "there is no command \"exceute\", did you mean \"execute\"?").with("nearest", "execute"),
        ),
        ("error-not_found", error(ErrorCode::NotFound, "no sub-process is registered as web")),
        ("error-already_exists", error(ErrorCode::AlreadyExists, "web is registered with another definition; say `replace: true`")),
        ("error-already_running", error(ErrorCode::AlreadyRunning, "web runs already, as process 4100").with("pid", 4100)),
        ("error-not_running", error(ErrorCode::NotRunning, "web does not run")),
        (
            "error-not_running-required",
            error(ErrorCode::NotRunning, "web requires db, which is fatal; start db first, or look why it does not run").with("name", "db"),
        ),
        (
            "error-not_running-not_ready",
            error(ErrorCode::NotRunning, "web did not get ready: it exited with code 3; it is exited now")
                .with("cause", Cause::Exit.as_str())
                .with("returncode", 3),
        ),
        ("error-spawn_failed", spawn_failed()),
        ("error-permission_denied", error(ErrorCode::PermissionDenied, "the role \"read\" does not allow execute")),
        (
            "error-permission_denied-role",
            error(ErrorCode::PermissionDenied, "execute needs the role operate, yours is read")
                .with("needed", "operate")
                .with("role", "read"),
        ),
        ("error-busy", error(ErrorCode::Busy, "web has too much to do; try again")),
        ("error-timeout", error(ErrorCode::Timeout, "web has not ended within 2 s; the work goes on")),
        ("error-shutting_down", error(ErrorCode::ShuttingDown, "the daemon is leaving")),
        ("error-internal", error(ErrorCode::Internal, "the supervisor of web is gone")),
        (
            "error-internal-interrupted",
            error(ErrorCode::Internal, "the daemon was ended while it carried this out, and it is not done a second time")
                .with("begun_at", 1_700_000_000_i64),
        ),
    ]
}
