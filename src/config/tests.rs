//! The room as a whole: texts and files in, configuration or diagnostics out.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;
use crate::access::Role;
use crate::protocol::definition::Output;
use crate::protocol::{RestartPolicy, Signal};

const COMPLETE: &str = include_str!("../../config/procmand.toml");
const DEMO: &str = include_str!("../../config/demo.toml");

fn check(text: &str) -> Result<Loaded, ConfigErrors> {
    Config::from_text(text, Path::new("/etc/procman/test.toml"), &Places::system())
}

fn good(text: &str) -> Config {
    check(text).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}")).config
}

/// The diagnostics of a text that is wrong, without the file's name.
fn bad(text: &str) -> Vec<String> {
    match check(text) {
        Ok(_) => panic!("nothing was found wrong with\n{text}"),
        Err(ConfigErrors(errors)) => errors.iter().map(|e| e.to_string().replacen("/etc/procman/test.toml:", "", 1)).collect(),
    }
}

/// Checks that a text has exactly these mistakes, each said by the beginning of its diagnostic and a part of it.
fn wrong(text: &str, expected: &[(&str, &str)]) {
    let found = bad(text);
    let matches =
        found.len() == expected.len() && found.iter().zip(expected).all(|(f, (start, part))| f.starts_with(start) && f.contains(part));
    assert!(matches, "expected {expected:#?}, found {found:#?}");
}

/// The lines that are commented out, with their comment sign taken away: `#key = …` and `#[table]`, but not `# prose`.
fn uncommented(text: &str) -> String {
    text.lines()
        .map(|line| line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn an_empty_file_means_the_defaults() {
    let config = good("");
    assert_eq!(config.state_dir, Path::new("/var/lib/procman"));
    assert_eq!(config.control.endpoints, ["ipc:///run/procman/control.sock".parse().unwrap()]);
    assert_eq!((config.control.max_request_bytes, config.control.socket_mode, config.control.socket_group), (1 << 20, 0o660, None));
    assert_eq!(config.events.endpoints, ["ipc:///run/procman/events.sock".parse().unwrap()]);
    assert_eq!(config.metrics.listen, Some("127.0.0.1:9469".parse().unwrap()));
    assert_eq!((config.metrics.refresh_interval, config.metrics.prefix.as_str()), (Duration::from_secs(1), ""));
    assert_eq!(config.processes, []);
    assert_eq!(config.source, Path::new("/etc/procman/test.toml"));
}

#[test]
fn the_complete_file_says_the_defaults() {
    let process = "\n[[process]]\nname = 'x'\ncmd = ['y']\n";
    let said = check(&format!("{COMPLETE}{process}")).unwrap();
    assert_eq!(said, check(process).unwrap());
    assert_eq!(said.warnings, []);
}

#[test]
fn the_complete_file_shows_every_key_and_no_other() {
    // What is found by host and port needs a port.
    let text = uncommented(COMPLETE)
        .replace("[\"ipc:///run/procman/control.sock\"]", "[\"ipc:///run/procman/control.sock\", \"tcp://127.0.0.1:6150\"]");
    let config = good(&text);
    assert_eq!(config.processes.len(), 4, "it shows `instances`");
    assert_eq!((config.control.guarded.len(), config.control.access.clients.len()), (1, 1));
    assert_eq!(config.control.socket_group.as_deref(), Some("procman"));

    let table: toml::Table = text.parse().unwrap();
    fn keys(table: &toml::Table) -> Vec<&str> {
        table.keys().map(String::as_str).collect()
    }
    let sorted = |keys: &[&'static str]| {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(&table), sorted(settings::TABLES));
    for (name, expected) in [
        ("daemon", settings::DAEMON_KEYS),
        ("control", settings::CONTROL_KEYS),
        ("events", settings::EVENTS_KEYS),
        ("metrics", settings::METRICS_KEYS),
        ("limits", limits::KEYS),
        ("cgse", settings::CGSE_KEYS),
        ("defaults", Definition::KEYS),
    ] {
        assert_eq!(keys(table[name].as_table().unwrap()), sorted(expected), "[{name}]");
    }
    let control = &table["control"];
    assert_eq!(keys(control["curve"].as_table().unwrap()), sorted(access::CURVE_KEYS));
    assert_eq!(keys(control["client"][0].as_table().unwrap()), sorted(access::CLIENT_KEYS));
    assert_eq!(keys(control["endpoint"][0].as_table().unwrap()), sorted(access::ENDPOINT_KEYS));
    for key in ["backoff", "start_limit", "log"] {
        assert_eq!(keys(table["defaults"][key].as_table().unwrap()), sorted(process::sub_keys(key).unwrap()), "{key}");
    }
}

#[test]
fn the_keys_inside_a_key_are_those_of_the_definition() {
    for key in Definition::KEYS {
        let Some(keys) = process::sub_keys(key) else { continue };
        let unknown = toml::from_str::<Definition>(&format!("{key} = {{ xyzzy = 1 }}")).unwrap_err();
        for known in keys {
            assert!(unknown.message().contains(&format!("`{known}`")), "{unknown}");
        }
        assert_eq!(unknown.message().matches('`').count(), 2 * (1 + keys.len()), "{unknown}");
    }
}

#[test]
fn the_demonstration_is_right() {
    let loaded = Config::from_text(DEMO, Path::new("/src/procman/config/demo.toml"), &Places::system()).unwrap();
    let config = loaded.config;
    assert_eq!(config.state_dir, Path::new("/src/procman/target/demo/state"));
    let endpoints: Vec<_> = config.control.endpoints.iter().map(Endpoint::to_string).collect();
    assert_eq!(endpoints, [format!("ipc://{}/control.sock", config.runtime_dir.display()), "tcp://127.0.0.1:4269".into()]);
    let said: Vec<_> = config.processes.iter().map(|p| (p.name.as_str(), p.autostart)).collect();
    assert_eq!(said, [("ticker", true), ("worker", true), ("flaky", true), ("stubborn", false), ("crash-loop", false)]);
    assert_eq!(config.processes[0].stdout, Output::File("/src/procman/target/demo/ticker.log".into()));
    // The one remark is about the TCP port.
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].message.contains("4269"));
}

#[test]
fn every_key_does_what_it_says() {
    let config = good(
        r#"
        [daemon]
        state_dir = "state"
        runtime_dir = "../run"
        cgroup = "off"
        [control]
        endpoints = ["ipc:///run/x.sock", "ipc://./y.sock", "tcp://127.0.0.1:4269", "tcp://*:*"]
        max_request_bytes = 67_108_864
        socket_mode = 0o600
        socket_group = "staff"
        allow_insecure_tcp = true
        [metrics]
        listen = ""
        refresh_interval = 3600
        prefix = "my:_1"
        [defaults]
        user = "nobody"
        env = { A = "1" }
        backoff = { initial = 1 }
        [[process]]
        name = "b"
        cmd = ["x"]
        env = { B = "2" }
        cwd = "work"
        stderr = "file:logs/b"
        stop_signal = "SIGINT"
        [[process]]
        name = "a"
        cmd = ["x", "y"]
        restart = "on-failure"
        [process.backoff]
        max = 5
        "#,
    );
    assert_eq!((config.state_dir, config.runtime_dir, config.cgroup), ("/etc/procman/state".into(), "/etc/run".into(), Cgroup::Off));
    let endpoints: Vec<_> = config.control.endpoints.iter().map(Endpoint::to_string).collect();
    assert_eq!(endpoints, ["ipc:///run/x.sock", "ipc:///etc/procman/y.sock", "tcp://127.0.0.1:4269", "tcp://*:*"]);
    assert_eq!((config.control.max_request_bytes, config.control.socket_mode), (64 << 20, 0o600));
    assert_eq!(config.control.socket_group.as_deref(), Some("staff"));
    let metrics = Metrics { listen: None, refresh_interval: Duration::from_secs(3600), prefix: "my:_1".into() };
    assert_eq!(config.metrics, metrics);
    let [b, a] = &config.processes[..] else { panic!("{:?}", config.processes) };
    assert_eq!((b.name.as_str(), b.user.as_deref(), b.stop_signal.number()), ("b", Some("nobody"), 2));
    assert_eq!(b.env, [("B".to_owned(), "2".to_owned())].into());
    assert_eq!(b.cwd.as_deref(), Some(Path::new("/etc/procman/work")));
    assert_eq!(b.stderr, Output::File("/etc/procman/logs/b".into()));
    assert_eq!(b.policy.backoff.initial, Duration::from_secs(1));
    assert_eq!((a.policy.restart, a.stop_signal, a.env.len()), (RestartPolicy::OnFailure, Signal::TERM, 1));
    // A table that an entry says replaces the default's table as a whole.
    assert_eq!((a.policy.backoff.initial, a.policy.backoff.max), (Duration::from_millis(500), Duration::from_secs(5)));
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    wrong(
        r#"[daemon]
state_dri = "x"
runtime_dir = 5
include = ["a[", ""]
[control]
endpoints = [
  "ipc://run/x",
  "tcp://*:1",
  "ipc:///x",
  "ipc:///x",
]
max_request_bytes = 10
socket_mode = 660
socket_group = ""
curves = {}
[metrics]
listen = "localhost:1"
refresh_interval = 0.05
prefix = "1a"
[metric]
[defaults]
stop_timeout = -1
name = "x"
[[process]]
name = "a b"
cmd = "sleep 1"
stop_signal = "NONE"
success_codes = [0, 256]
backoff = { initial = "1s", initail = 3, factor = 0.5 }
[[process]]
cmd = []
args = [
  "a",
  1,
]
stdout = "file:"
env = { A = 1, B = "x", "C=" = "y" }
ready = { tcp = "x" }
[[process]]
name = "x"
cwd = "~/x"
stderr = "syslog"
"#,
        &[
            ("2: daemon.state_dri: ", "did you mean `state_dir`?"),
            ("3: daemon.runtime_dir: ", "expected a path in quotes"),
            ("4: daemon.include: ", "\"a[\" is no pattern"),
            ("4: daemon.include: ", "no path"),
            ("7: control.endpoints: ", "three slashes"),
            ("8: control.endpoints: ", "allow_insecure_tcp"),
            ("10: control.endpoints: ", "said twice"),
            ("12: control.max_request_bytes: ", "1024 to 67108864"),
            ("13: control.socket_mode: ", "0o660"),
            ("14: control.socket_group: ", "no group's name"),
            ("15: control.curves: ", "did you mean `curve`?"),
            ("17: metrics.listen: ", "\"127.0.0.1:9469\""),
            ("18: metrics.refresh_interval: ", "0.1 to 3600"),
            ("19: metrics.prefix: ", "digit"),
            ("20: metric: ", "did you mean `metrics`?"),
            ("22: defaults.stop_timeout: ", "not a time"),
            ("23: defaults.name: ", "no such key"),
            ("25: process[#1].name: ", "is not a name"),
            ("26: process[#1].cmd: ", "list of words"),
            ("27: process[#1].stop_signal: ", "is not a signal"),
            ("28: process[#1].success_codes: ", "from 0 to 255"),
            ("29: process[#1].backoff.initail: ", "did you mean `initial`?"),
            ("29: process[#1].backoff.initial: ", "expected a number"),
            ("30: process[#2].name: ", "needs a name"),
            ("31: process[#2].cmd: ", "which program"),
            ("34: process[#2].args: ", "in quotes"),
            ("36: process[#2].stdout: ", "is not an output"),
            ("37: process[#2].env.A: ", "in quotes"),
            ("38: process[#2].ready: ", "is no address"),
            ("39: process[x].cmd: ", "which program"),
            ("41: process[x].cwd: ", "`~` is not expanded"),
            ("42: process[x].stderr: ", "is not an output"),
        ],
    );
}

#[test]
fn a_table_of_the_wrong_shape_is_explained() {
    wrong("[process]\nname = 'x'", &[("1: process: ", "two brackets")]);
    wrong("process = [1]", &[("1: process: ", "not an integer")]);
    wrong("daemon = 1\n[[control]]\n", &[("1: daemon: ", "[daemon]"), ("2: control: ", "not an array")]);
    wrong("[control]\nendpoints = 'ipc:///x'", &[("2: control.endpoints: ", "must be a list")]);
    wrong("[control]\nendpoints = []", &[("2: control.endpoints: ", "nobody could command")]);
}

#[test]
fn the_permissions_are_octal_or_refused() {
    assert_eq!(good("[control]\nsocket_mode = 0o000").control.socket_mode, 0);
    for mode in ["400", "432", "0x1b0", "0o1000", "-1", "'0660'", "0.5", "99999999999999999999"] {
        wrong(&format!("[control]\nsocket_mode = {mode}"), &[("2: control.socket_mode: ", "octal")]);
    }
    let warnings = check("[control]\nsocket_mode = 0o666").unwrap().warnings;
    assert!(warnings[0].message.contains("every user"), "{warnings:?}");
}

#[test]
fn numbers_are_in_range() {
    for bytes in ["1023", "67108865", "-1", "99999999999999999999", "1e6"] {
        assert_eq!(bad(&format!("[control]\nmax_request_bytes = {bytes}")).len(), 1, "{bytes}");
    }
    for seconds in ["0", "0.09", "3601", "nan", "inf", "-1", "'1s'"] {
        assert_eq!(bad(&format!("[metrics]\nrefresh_interval = {seconds}")).len(), 1, "{seconds}");
    }
    assert_eq!(good("[metrics]\nrefresh_interval = 0.1").metrics.refresh_interval, Duration::from_millis(100));
}

#[test]
fn tcp_is_refused_or_warned_about() {
    let endpoint = |endpoint: &str, more: &str| check(&format!("[control]\nendpoints = ['{endpoint}']\n{more}"));
    assert!(endpoint("ipc:///x", "").unwrap().warnings.is_empty());
    let loopback = endpoint("tcp://[::1]:5", "").unwrap().warnings;
    assert!(loopback[0].to_string().starts_with("/etc/procman/test.toml:2: control.endpoints: every user of this host"), "{loopback:?}");
    for open in ["tcp://0.0.0.0:5", "tcp://*:5", "tcp://192.0.2.1:*", "tcp://[::]:5", "tcp://eth0:5"] {
        let message = endpoint(open, "").unwrap_err().to_string();
        assert!(message.contains("SSH tunnel") && message.contains("allow_insecure_tcp = true"), "{message}");
        assert!(endpoint(open, "allow_insecure_tcp = false").is_err());
        let warnings = endpoint(open, "allow_insecure_tcp = true").unwrap().warnings;
        assert!(warnings[0].message.contains("any program"), "{warnings:?}");
    }
}

/// A public key.
const KEY: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";

#[test]
fn clients_are_known_by_their_keys() {
    let other = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
    let curve = "[control]\nendpoints = ['tcp://0.0.0.0:1']\n[control.curve]\nsecret_key_file = 'server.secret'\n";
    let client = |name: &str, key: &str, more: &str| format!("[[control.client]]\nname = '{name}'\npublic_key = '{key}'\n{more}\n");
    let both = format!(
        "{curve}{}{}",
        client("a", KEY, "role = 'operate'\nallow = ['device-*', 'group:core']"),
        client("b", other, "role = 'read'")
    );
    let Loaded { config, warnings } = check(&both).unwrap();
    assert_eq!(warnings, [], "what is encrypted may be reached over the network");
    assert_eq!(config.control.secret_key_file.as_deref(), Some(Path::new("/etc/procman/server.secret")));
    let a = config.control.access.clients.get(&KEY.parse().unwrap()).unwrap();
    assert_eq!((&*a.name, a.role, a.scope.to_string()), ("a", Role::Operate, "device-*, group:core".into()));
    assert!(config.control.access.clients.get(&other.parse().unwrap()).unwrap().scope.is_all());
    assert_eq!(check(curve).unwrap().warnings.len(), 1, "nobody gets in");

    let one = |more: &str| format!("{curve}{}", client("a", KEY, more));
    wrong(&one(""), &[("5: control.client.role: ", "this is missing")]);
    wrong(&one("role = 'root'"), &[("8: control.client.role: ", "no role")]);
    wrong(&one("role = 'read'\nallow = []"), &[("9: control.client.allow: ", "allow nothing")]);
    wrong(&one("role = 'read'\nallow = ['[']"), &[("9: control.client.allow: ", "no pattern")]);
    wrong(&one("role = 'read'\nalow = ['x']"), &[("9: control.client.alow: ", "did you mean `allow`?")]);
    wrong(&format!("{curve}{}", client("a", "short", "role = 'read'")), &[("7: control.client.public_key: ", "40 characters")]);
    wrong(&format!("{curve}{}", client("a b", KEY, "role = 'read'")), &[("6: control.client.name: ", "without blanks")]);
    wrong(&format!("{both}{}", client("a", "0".repeat(40).as_str(), "role = 'read'")), &[("15: control.client.name: ", "already")]);
    wrong(&format!("{both}{}", client("c", KEY, "role = 'read'")), &[("16: control.client.public_key: ", "the key of \"a\", too")]);
    wrong(&client("a", KEY, "role = 'read'"), &[("1: control.client: ", "say [control.curve], too")]);
    wrong("[control.curve]\n", &[("1: control.curve.secret_key_file: ", "`procmand keygen server` makes it")]);
}

#[test]
fn limits_are_in_range() {
    let limits = good("[limits]\nconnections = 10\nrequests_per_second = 0\nhandshake_timeout = 0.5\nlog_reply_bytes = 4096\n").limits;
    assert_eq!((limits.connections, limits.requests_per_second, limits.log_reply_bytes), (10, None, 4096));
    assert_eq!(limits.handshake_timeout, Duration::from_millis(500));
    wrong(
        "[limits]\nconnections = 1\nhandshake_timeout = 0\nprocesses = 1e9\nunread_replies = -1\nunread_event = 5",
        &[
            ("2: limits.connections: ", "out of range"),
            ("3: limits.handshake_timeout: ", "out of range"),
            ("4: limits.processes: ", "expected"),
            ("5: limits.unread_replies: ", "out of range"),
            ("6: limits.unread_event: ", "did you mean `unread_events`?"),
        ],
    );
}

#[test]
fn doors_for_those_who_may_not_do_everything() {
    let door = |more: &str| format!("[[control.endpoint]]\nendpoint = 'ipc:///r'\n{more}\n");
    let config = good(&door("role = 'read'\nsocket_mode = 0o666\nsocket_group = 'users'\nallow = ['a*']"));
    assert_eq!(config.control.endpoints.len(), 1, "the usual one stays");
    let guarded = &config.control.guarded[0];
    assert_eq!((guarded.endpoint.to_string(), guarded.role, guarded.socket_mode), ("ipc:///r".into(), Role::Read, Some(0o666)));
    assert_eq!((guarded.socket_group.as_deref(), guarded.scope.to_string()), (Some("users"), "a*".into()));
    assert!(good(&format!("[control]\nendpoints = []\n{}", door("role = 'read'"))).control.endpoints.is_empty());
    assert_eq!(check(&door("role = 'operate'\nsocket_mode = 0o666")).unwrap().warnings.len(), 1, "everybody may operate");

    wrong(&door(""), &[("1: control.endpoint.role: ", "missing")]);
    wrong("[[control.endpoint]]\nrole = 'read'", &[("1: control.endpoint.endpoint: ", "say where")]);
    wrong(&format!("{}{}", door("role = 'read'"), door("role = 'admin'")), &[("1: control.endpoint: ", "said twice")]);
    wrong(&format!("[events]\nendpoints = ['ipc:///r']\n{}", door("role = 'read'")), &[("2: events.endpoints: ", "already")]);
    wrong("[[control.endpoint]]\nendpoint = 'tcp://*:1'\nrole = 'read'", &[("2: control.endpoint.endpoint: ", "say [control.curve]")]);
    wrong(
        "[control]\nallow_insecure_tcp = true\n[[control.endpoint]]\nendpoint = 'tcp://*:1'\nrole = 'read'\nsocket_mode = 0o600",
        &[("4: control.endpoint.endpoint: ", "about Unix sockets")],
    );
}

#[test]
fn a_secret_key_that_others_can_read_is_refused() {
    let text = "[control]\nendpoints = ['tcp://127.0.0.1:1']\n[control.curve]\nsecret_key_file = 'server.secret'\n";
    let (dir, missing) = load(&[("main.toml", text)]);
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("control.curve.secret_key_file: ") && message.contains("keygen"), "{message}");
    let made = crate::access::keys::generate(&dir.path().join("server")).unwrap();
    let main = dir.path().join("main.toml");
    let config = Config::load(&main).unwrap().config;
    assert_eq!(config.control.access.server.unwrap().public, made.public);
    fs::set_permissions(&made.secret_file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Config::load(&main).unwrap_err().to_string().contains("chmod 600"));
}

#[test]
fn events_have_endpoints_of_their_own() {
    let events = |text: &str| good(text).events.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(events("[events]"), ["ipc:///run/procman/events.sock"]);
    assert_eq!(events("[daemon]\nruntime_dir = '/r'"), ["ipc:///r/events.sock"]);
    assert_eq!(events("[events]\nendpoints = []"), [""; 0]);
    assert_eq!(events("[events]\nendpoints = ['ipc://./e', 'tcp://127.0.0.1:*']"), ["ipc:///etc/procman/e", "tcp://127.0.0.1:*"]);
    wrong("[events]\nendpoints = ['ipc:///e', 'ipc:///e']", &[("2: events.endpoints: ", "said twice")]);
    wrong("[events]\nendpoints = ['udp://x']", &[("2: events.endpoints: ", "say \"ipc:")]);
    wrong(
        "[control]\nendpoints = ['ipc:///e']\n[events]\nendpoints = ['ipc:///e']",
        &[("4: events.endpoints: ", "control.endpoints already")],
    );
    let control = "[daemon]\nruntime_dir = '/r'\n[control]\nendpoints = ['ipc:///r/events.sock']\n";
    wrong(control, &[("1: events.endpoints: ", "[] for none")]);
    assert_eq!(events(&format!("{control}[events]\nendpoints = []")), [""; 0]);

    let open = "[events]\nendpoints = ['tcp://*:5']\n";
    wrong(open, &[("2: events.endpoints: ", "SSH tunnel")]);
    let warnings = check(&format!("{open}[control]\nallow_insecure_tcp = true")).unwrap().warnings;
    assert!(warnings[0].message.contains("can read what happens"), "{warnings:?}");
    let warnings = check("[events]\nendpoints = ['tcp://127.0.0.1:5']").unwrap().warnings;
    assert!(warnings[0].message.starts_with("every user of this host can read what happens"), "{warnings:?}");
}

#[test]
fn a_default_socket_path_that_is_too_long_is_told_where_it_was_caused() {
    let deep = format!("/{}", "d".repeat(100));
    wrong(&format!("[daemon]\n\nruntime_dir = '{deep}'"), &[("3: control.endpoints: ", "another daemon.runtime_dir")]);
    let said = check(&format!("[daemon]\nruntime_dir = '{deep}'\n[control]\nendpoints = ['ipc:///x']")).unwrap();
    assert!(said.config.events.endpoints.is_empty() && said.warnings[0].message.starts_with("events are not published"));
}

#[test]
fn who_has_no_home_must_say_where() {
    let places = Places { config_file: None, state_dir: None, runtime_dir: None };
    let check = |text: &str| Config::from_text(text, Path::new("/x.toml"), &places);
    let ConfigErrors(errors) = check("").unwrap_err();
    assert_eq!(errors.iter().map(|e| e.key.as_deref().unwrap()).collect::<Vec<_>>(), ["daemon.state_dir", "daemon.runtime_dir"]);
    assert!(check("[daemon]\nstate_dir = '/s'\nruntime_dir = '/r'").is_ok());
    assert_eq!(check("not toml").unwrap_err().0.len(), 1);
}

#[test]
fn a_wrong_default_is_told_once() {
    let entries = "[[process]]\nname = 'a'\ncmd = ['x']\n[[process]]\nname = 'b'\ncmd = ['x']\nbackoff = { factor = 0 }\n";
    wrong(
        &format!("[defaults]\nstderr = 'file:x'\nstdout = 'stdout'\nbackoff = {{ factor = 0.5 }}\n{entries}"),
        &[("3: defaults.stdout: ", "itself"), ("4: defaults.backoff: ", "factor"), ("11: process[b].backoff: ", "factor")],
    );
}

#[test]
fn a_name_is_taken_once() {
    wrong(
        "[[process]]\nname = 'a'\ncmd = ['x']\n[[process]]\ncmd = ['x']\nname = 'a'\n",
        &[("6: process[a].name: ", "taken by the sub-process at /etc/procman/test.toml:2")],
    );
}

#[test]
fn what_is_not_toml_is_told_with_its_lines() {
    let found = bad("[daemon]\nstate_dir = \n[control]\n\nx = 1 2\n'unclosed\n");
    assert!(found.iter().all(|f| f.contains("not TOML")), "{found:?}");
    let lines: Vec<_> = found.iter().map(|f| f.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["2", "5", "6"], "{found:?}");
    wrong("[daemon]\nstate_dir = '/a'\nstate_dir = '/b'", &[("3: this is not TOML: duplicate key", "")]);
}

#[test]
fn processes_alone() {
    let text = "[defaults]\nuser = 'u'\n[[process]]\nname = 'a'\ncmd = ['x']\ncwd = '../w'";
    let [(name, definition)] = &parse_processes(text, Path::new("/d/f.toml")).unwrap()[..] else { panic!() };
    assert_eq!((name.as_str(), definition.user.as_deref(), definition.cwd.as_deref()), ("a", Some("u"), Some(Path::new("/w"))));
    assert_eq!(definition.stdout, None);
    let error = parse_processes("[daemon]\nx = 1\n[[process]]\n", Path::new("f.toml")).unwrap_err();
    assert!(error.to_string().starts_with("f.toml:1: daemon: this belongs into the main configuration file"), "{error}");
}

/// A directory with files in it, and what comes of the first.
fn load(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Loaded, ConfigErrors>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let loaded = load::load(&dir.path().join(files[0].0), &Places::system());
    (dir, loaded)
}

#[test]
fn included_files_follow_in_the_order_of_their_names() {
    let (dir, loaded) = load(&[
        (
            "main.toml",
            "[daemon]\ninclude = ['conf.d/*.toml', 'conf.d/a.toml', 'nothing/*.toml']\n[defaults]\nuser = 'root'\nargs = ['m']\n[[process]]\nname = 'm'\ncmd = ['x']",
        ),
        ("conf.d/b.toml", "[[process]]\nname = 'b'\ncmd = ['x']\ncwd = 'w'"),
        ("conf.d/a.toml", "[defaults]\nargs = ['a']\n[[process]]\nname = 'a'\ncmd = ['x']"),
        ("conf.d/.hidden.toml", "this is not TOML"),
        ("conf.d/b.toml.orig", "this is not TOML"),
    ]);
    let loaded = loaded.unwrap();
    let said: Vec<_> = loaded.config.processes.iter().map(|p| (p.name.as_str(), p.args[0].as_str(), p.user.as_deref())).collect();
    assert_eq!(said, [("m", "m", Some("root")), ("a", "a", Some("root")), ("b", "m", Some("root"))]);
    let base = dir.path().canonicalize().unwrap();
    assert_eq!(loaded.config.processes[2].cwd.as_deref(), Some(base.join("conf.d/w").as_path()));
    assert_eq!(loaded.config.source, base.join("main.toml"));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn whoever_is_named_in_the_order_must_be_there_and_not_in_a_cycle() {
    let process = |name: &str, more: &str| format!("[[process]]\nname = '{name}'\ncmd = ['x']\n{more}\n");
    wrong(
        &[
            process("a", "requires = ['regstry']"),
            process("registry", ""),
            process("b", "after = ['a', 'web@3']"),
            process("web", "instances = 2"),
        ]
        .concat(),
        &[
            ("4: process[a].requires: ", "there is no sub-process \"regstry\"; did you mean \"registry\"?"),
            ("12: process[b].after: ", "there is no sub-process \"web@3\"; did you mean \"web@"),
        ],
    );
    wrong(
        &[process("a", "requires = ['b']"), process("b", "after = ['c']"), process("c", "requires = ['a']")].concat(),
        &[("4: process[a].requires: ", "cycle, in which nobody could be the first: a requires b, b is after c, c requires a")],
    );
    wrong(
        &[
            "[defaults]\nafter = ['a']\n".to_owned(),
            process("a", "after = []"),
            process("b", ""),
            process("c", "requires = ['x']\nshell = 1"),
            process("d", "after = ['c']"),
        ]
        .concat(),
        &[("15: process[c].shell: ", "expected a boolean")],
    );
    good(&[process("web", "instances = 3"), process("a", "requires = ['web', 'web@2']")].concat());
    wrong(
        &process("web", "instances = 2\nrequires = ['web']"),
        &[("5: process[web].requires: ", "cycle, in which nobody could be the first: web@")],
    );
}

#[test]
fn the_order_is_held_over_all_files() {
    let (dir, loaded) = load(&[
        ("main.toml", "[daemon]\ninclude = ['*/*.toml']\n[[process]]\nname = 'a'\ncmd = ['x']\nrequires = ['b']"),
        (
            "d/b.toml",
            "[[process]]\nname = 'b'\ncmd = ['x']\nafter = ['c', 'nobody']\n[[process]]\nname = 'c'\ncmd = ['x']\n\nrequires = ['a']",
        ),
    ]);
    let found: Vec<_> = loaded.unwrap_err().0.iter().map(|e| e.to_string().replace(&format!("{}/", dir.path().display()), "")).collect();
    assert_eq!(
        found,
        [
            "main.toml:6: process[a].requires: this is a cycle, in which nobody could be the first: a requires b, b is after c, c requires a",
            "d/b.toml:4: process[b].after: there is no sub-process \"nobody\"",
        ]
    );
    let broken =
        [("main.toml", "[daemon]\ninclude = ['b.toml']\n[[process]]\nname = 'a'\ncmd = ['x']\nrequires = ['b']"), ("b.toml", "x = ")];
    let ConfigErrors(errors) = load(&broken).1.unwrap_err();
    assert_eq!(errors.len(), 1, "b may be in the file that cannot be read: {errors:?}");
}

#[test]
fn instances_are_told_apart_and_each_name_is_taken_once() {
    let config = good("[[process]]\nname = 'web'\ncmd = ['x', '%i']\ninstances = 2\n[[process]]\nname = 'y'\ncmd = ['%i']");
    let said: Vec<_> =
        config.processes.iter().map(|spec| (spec.name.as_str(), spec.cmd.join(" "), spec.group.as_ref().map(Name::as_str))).collect();
    assert_eq!(said, [("web@1", "x 1".into(), Some("web")), ("web@2", "x 2".into(), Some("web")), ("y", "%i".to_owned(), None)]);
    wrong(
        "[[process]]\nname = 'web'\ncmd = ['x']\ninstances = 2\n[[process]]\nname = 'web@2'\ncmd = ['x']\n[[process]]\nname = 'y@1'\ncmd = ['x']\n[[process]]\nname = 'y'\ncmd = ['x']\ninstances = 1\n[[process]]\nname = 'z'\ncmd = ['x']\ninstances = 0",
        &[("6: process[web@2].name: ", "test.toml:4"), ("14: process[y].instances: ", "y@1"), ("18: process[z].instances: ", "1 to 1000")],
    );
}

#[test]
fn what_is_wrong_with_included_files_is_told_together() {
    let (dir, loaded) = load(&[
        ("main.toml", "[daemon]\ninclude = [\n'conf.d/*.toml',\n'missing.toml',\n'*.toml']\n[[process]]\nname = 'x'\ncmd = ['x']"),
        ("conf.d/a.toml", "[daemon]\nstate_dir = '/'\n[cgse]\n[[process]]\nname = 'x'\ncmd = ['x']"),
        ("conf.d/b.toml", "x = "),
    ]);
    let ConfigErrors(errors) = loaded.unwrap_err();
    let found: Vec<_> = errors.iter().map(|e| e.to_string().replace(&format!("{}/", dir.path().display()), "")).collect();
    for (found, (start, part)) in found.iter().zip([
        ("main.toml:4: daemon.include: ", "there is no file \"missing.toml\""),
        ("main.toml:5: daemon.include: ", "itself"),
        ("conf.d/a.toml:1: daemon: ", "main configuration file"),
        ("conf.d/a.toml:3: cgse: ", "main configuration file"),
        ("conf.d/a.toml:5: process[x].name: ", "main.toml:7"),
        ("conf.d/b.toml:1: ", "not TOML"),
    ]) {
        assert!(found.starts_with(start) && found.contains(part), "{found}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    let message = |path: &Path| Config::load(path).unwrap_err().to_string();
    assert_eq!(message(&path), format!("{}: there is no such file", path.display()));
    assert!(message(dir.path()).ends_with("this is a directory; a configuration is a file"));
    assert!(message(&path.join("y")).contains("no such file"));
    assert!(message(Path::new("/dev/null")).contains("not a regular file"));
    assert!(message(Path::new("")).contains("no such file"));
    assert!(message(Path::new("/")).contains("directory"));

    fs::write(&path, b"[daemon]\n# \xff\n").unwrap();
    assert_eq!(message(&path), format!("{}:2: this is not UTF-8, which TOML demands", path.display()));

    fs::write(&path, vec![b'\n'; usize::try_from(load::MAX_FILE_BYTES).unwrap()]).unwrap();
    assert!(Config::load(&path).is_ok());
    fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(load::MAX_FILE_BYTES + 1).unwrap();
    assert!(message(&path).contains("larger than 4 MiB"));

    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(message(&path).contains("not a regular file"));

    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert!(message(&path).contains("cannot open it"));
}

#[test]
fn the_host_is_asked_for_groups_and_users() {
    let text = "[control]\nsocket_group = 'no-such-group'\n[[process]]\nname = 'a'\ncmd = ['x']\nuser = 'no-such-user'";
    let error = load(&[("x.toml", text)]).1.unwrap_err().to_string();
    assert!(error.contains("x.toml:2: control.socket_group: there is no group"), "{error}");
    let warnings = load(&[("x.toml", &text.replace("no-such-group", "root"))]).1.unwrap().warnings;
    assert!(warnings[0].to_string().contains("x.toml:6: process[a].user: there is no user"), "{warnings:?}");
}

#[test]
fn a_file_that_everybody_may_change_is_warned_about() {
    let (dir, loaded) = load(&[("x.toml", "")]);
    assert_eq!(loaded.unwrap().warnings, []);
    let path = dir.path().join("x.toml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Config::load(&path).unwrap().warnings[0].message.contains("chmod o-w"));
}

#[test]
fn without_a_file_the_defaults_are_used_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("procmand.toml");
    let places = Places { config_file: Some(file.clone()), ..Places::system() };
    let loaded = load::load_default(&places).unwrap();
    assert_eq!(loaded.config, Config { source: file.clone(), ..good("") });
    assert!(loaded.warnings[0].message.contains("built-in defaults"));
    fs::write(&file, "[metrics]\nlisten = ''").unwrap();
    assert_eq!(load::load_default(&places).unwrap().config.metrics.listen, None);
    // A link that leads nowhere is a mistake, not a missing file.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    assert!(load::load_default(&places).is_err());
}

#[test]
fn what_is_deep_or_long_does_no_harm() {
    let mega = 1 << 20;
    for text in [
        "[".repeat(mega),
        format!("x = {}", "[".repeat(mega)),
        format!("x = {}", "{a=".repeat(mega)),
        format!("{}x = 1", "a.".repeat(mega)),
        format!("[{}x]", "a.".repeat(mega)),
        format!("[[process]]\nname='x'\nenv.{}x = 1", "a.".repeat(mega)),
        format!("[daemon]\nstate_dir = '{}\0'", "x".repeat(mega)),
        format!("{} = 1", "x".repeat(mega)),
        format!("[[process]]\nname = '{}'\nstop_signal = '{}'", "x".repeat(mega), "y".repeat(mega)),
        (0..200_000).map(|n| format!("k{n} = 1\n")).collect(),
    ] {
        let ConfigErrors(errors) = check(&text).unwrap_err();
        assert!(!errors.is_empty() && errors.iter().all(|e| e.to_string().len() < 2000), "{:.200}", text);
    }
}

/// Parts that TOML, and this file, are made of.
fn fragment() -> impl Strategy<Value = String> {
    let words = Definition::KEYS.iter().chain(settings::TABLES).chain(settings::CONTROL_KEYS).chain(settings::DAEMON_KEYS);
    let words: Vec<&str> = words.chain(settings::EVENTS_KEYS).chain(settings::METRICS_KEYS).copied().collect();
    const SIGNS: &[&str] =
        &["[", "]", "[[", "]]", " = ", "\n", "\n", ".", ",", "{", "}", "\"", "'", "'''", "\\u00e9", "#", " ", "\r\n", "\u{feff}"];
    const VALUES: &[&str] =
        &["1", "-0.5", "true", "'x'", "['a', 'b']", "{ initial = 1 }", "1979-05-27", "'file:x'", "0o660", "inf", "'tcp://*:*'"];
    prop_oneof![
        4 => proptest::sample::select(words).prop_map(str::to_owned),
        4 => proptest::sample::select(SIGNS).prop_map(str::to_owned),
        2 => proptest::sample::select(VALUES).prop_map(str::to_owned),
        3 => (proptest::sample::select(Definition::KEYS), proptest::sample::select(VALUES)).prop_map(|(k, v)| format!("\n{k} = {v}\n")),
        1 => Just("\n[[process]]\nname = 'x'\n".to_owned()),
        1 => ".{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_it_and_every_line_it_names_exists(parts in prop::collection::vec(fragment(), 0..30)) {
        let text = parts.concat();
        if let Err(ConfigErrors(errors)) = check(&text) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!((1..=text.lines().count().max(1)).contains(&error.line.unwrap()), "{} in\n{:?}", error, text);
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
        let _ = parse_processes(&text, Path::new("x"));
    }

    #[test]
    fn what_is_accepted_is_sound(parts in prop::collection::vec(fragment(), 0..8)) {
        if let Ok(loaded) = check(&parts.concat()) {
            let config = loaded.config;
            prop_assert!(config.state_dir.is_absolute() && config.runtime_dir.is_absolute());
            prop_assert!(!config.control.endpoints.is_empty() && config.control.socket_mode <= 0o777);
            for spec in config.processes {
                prop_assert!(!spec.cmd.is_empty() && spec.cwd.is_none_or(|cwd| cwd.is_absolute()));
            }
        }
    }
}

#[test]
fn the_registry_of_cgse_is_off_unless_it_is_said() {
    assert_eq!(good("").cgse, None);
    let tcp = "[control]\nendpoints = ['tcp://127.0.0.1:6150']\n";
    let cgse = good(&format!("{tcp}[cgse]\n")).cgse.unwrap();
    assert_eq!((&*cgse.registry, &*cgse.heartbeat, &*cgse.service_type), ("tcp://127.0.0.1:6100", "tcp://127.0.0.1:6102", "PROCMAN"));
    assert_eq!((cgse.ttl, good(&format!("{tcp}[cgse]\nttl = 3\n")).cgse.unwrap().ttl), (30, 3));
    for bad in ["2", "3601", "-1", "'30'"] {
        wrong(&format!("{tcp}[cgse]\nttl = {bad}\n"), &[("4: cgse.ttl: ", "")]);
    }
    let doors = good("[cgse]\n").cgse.unwrap().control_server.unwrap();
    assert_eq!((doors.device.to_string(), doors.role), ("tcp://127.0.0.1:*".into(), Role::Admin));
    assert_eq!(doors.service, doors.device);
    let closed = "[cgse]\ndevice_endpoint = ''\nservice_endpoint = ''\n";
    assert_eq!(good(&format!("{tcp}{closed}")).cgse.unwrap().control_server, None);
    wrong(closed, &[("1: cgse: ", "TCP endpoint")]);
    wrong("[cgse]\ndevice_endpoint = ''", &[("1: cgse: ", "or neither")]);
    wrong(
        "[cgse]\ndevice_endpoint = 'ipc:///x'\nservice_endpoint = 'ipc:///y'",
        &[("2: cgse.device_endpoint: ", "host and port"), ("3: cgse.service_endpoint: ", "host and port")],
    );
    wrong("[cgse]\ndevice_endpoint = 'tcp://*:1'", &[("2: cgse.device_endpoint: ", "open to the network")]);
    wrong(
        "[cgse]\ndevice_endpoint = 'tcp://127.0.0.1:1'\nservice_endpoint = 'tcp://127.0.0.1:1'",
        &[("1: cgse.service_endpoint: ", "of its own")],
    );
    wrong("[cgse]\nrole = 'root'", &[("2: cgse.role: ", "no role")]);
    assert_eq!(check("[cgse]\n").unwrap().warnings.len(), 1, "everybody can command");
    assert_eq!(check("[cgse]\nrole = 'read'").unwrap().warnings, []);
    let curve = "[control]\n[control.curve]\nsecret_key_file = 's'\n[cgse]\n";
    assert_eq!(good(curve).cgse.unwrap().control_server.unwrap().role, Role::Read, "these doors have no keys");
    assert_eq!(
        (cgse.notify_hub, cgse.metrics_hub, cgse.metrics_interval),
        (None, None, Duration::from_secs(10)),
        "hubs are told nothing unasked"
    );
    let hubs = "[cgse]\nnotify_hub = 'tcp://h:1'\nmetrics_hub = 'tcp://[::1]:2'\nmetrics_interval = 0.5\n";
    let cgse = good(&format!("{tcp}{hubs}")).cgse.unwrap();
    assert_eq!((cgse.notify_hub.as_deref(), cgse.metrics_hub.as_deref()), (Some("tcp://h:1"), Some("tcp://[::1]:2")));
    assert_eq!(cgse.metrics_interval, Duration::from_millis(500));
    let mistakes = "[control]\nendpoints = ['tcp://127.0.0.1:6150']\n[cgse]\nregistry = 'ipc:///x'\nheartbeat = 'tcp://*:1'\nservice_type = 'a b'\nnotify_hub = 'x'\nmetrics_hub = 'tcp://h:0'\nmetrics_interval = 0.1\n";
    wrong(
        mistakes,
        &[
            ("4: cgse.registry: ", "tcp://127.0.0.1:6100"),
            ("5: cgse.heartbeat: ", "6102"),
            ("6: cgse.service_type: ", "blanks"),
            ("7: cgse.notify_hub: ", "tcp://127.0.0.1:6125"),
            ("8: cgse.metrics_hub: ", "6130"),
            ("9: cgse.metrics_interval: ", "0.5 to 3600 seconds"),
        ],
    );
}

#[test]
fn a_service_of_cgse_needs_its_registry_and_a_type_of_its_own() {
    let process = |name: &str, more: &str| format!("[[process]]\nname = '{name}'\ncmd = ['x']\n{more}\n");
    let typed = |name: &str, service_type: &str| process(name, &format!("cgse_service_type = '{service_type}'"));
    wrong(&typed("a", "A"), &[("4: process[a].cgse_service_type: ", "say [cgse]")]);
    good(&format!("[cgse]\n{}{}", typed("a", "A"), typed("b", "B")));
    wrong(&format!("[cgse]\n{}", typed("a", "PROCMAN")), &[("5: process[a].cgse_service_type: ", "the daemon's own")]);
    wrong(&format!("[cgse]\n{}{}", typed("a", "A"), typed("b", "A")), &[("9: process[b].cgse_service_type: ", "a has this type")]);
    let instances = |kind: &str| format!("[cgse]\n{}", process("d", &format!("instances = 2\ncgse_service_type = '{kind}'")));
    good(&instances("D_%i"));
    wrong(&instances("D"), &[("6: process[d].cgse_service_type: ", "d@1 has this type")]);
    let asked = |more: &str| format!("[cgse]\n{}", process("a", &format!("stop_request = {{ cgse = 'A' }}\n{more}")));
    good(&asked("cgse_service_type = 'A'"));
    wrong(&asked(""), &[("5: process[a].stop_request: ", "cgse_service_type = \"A\"")]);
    wrong(&asked("cgse_service_type = 'B'"), &[("5: process[a].stop_request: ", "cgse_service_type = \"A\"")]);
}
