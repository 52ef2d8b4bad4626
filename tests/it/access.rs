//! Who gets in, and what they may do: keys, roles, and the sub-processes in their reach.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use procman::access::keys::{Generated, generate};
use procman::access::{PublicKey, SecretKey};
use procman::client::error::Refusal;
use procman::client::peer::Keys;
use procman::client::{Client, ClientError, ClientOptions, Peer as To};
use procman::protocol::StateName;
use procman::protocol::reply::{AuditEntry, Info, Reloaded, View};
use procman::protocol::request::{Command as Request, NoArgs};
use serde_json::{Value, json};

use super::harness::{DEADLINE, Daemon, Peer, Setup, frame, until, value_of};

/// A daemon under keys, and everybody's.
struct Guarded {
    daemon: Daemon,
    server: Generated,
}

const PROCESSES: &str = "[[process]]\nname = 'device-1'\ncmd = ['sleep', '1000']\nstdout = 'log'\n\
     [[process]]\nname = 'core-1'\ngroup = 'core'\ncmd = ['sleep', '1000']\nstdout = 'log'\n\
     [[process]]\nname = 'other'\ncmd = ['sleep', '1000']\nstdout = 'log'\n";

fn client_table(name: &str, key: &PublicKey, more: &str) -> String {
    format!("[[control.client]]\nname = '{name}'\npublic_key = '{key}'\n{more}\n")
}

impl Guarded {
    /// With these clients: name, and the rest of their tables.
    fn start(clients: &[(&str, &str)]) -> Self {
        let setup = Setup::new(PROCESSES).endpoint("tcp://127.0.0.1:*").events("endpoints = ['tcp://127.0.0.1:*', 'ipc://{dir}/e.sock']");
        let server = generate(&setup.dir().join("server")).unwrap();
        let mut control = "[control.curve]\nsecret_key_file = 'server.secret'\n".to_owned();
        for (name, more) in clients {
            let pair = generate(&setup.dir().join(name)).unwrap();
            control += &client_table(name, &pair.public, more);
        }
        Self { daemon: setup.control(&control).start(), server }
    }

    fn keys(&self, name: &str) -> Keys {
        let secret = SecretKey::read(&self.daemon.path(&format!("{name}.secret"))).unwrap();
        Keys { server: self.server.public, public: secret.public().unwrap(), secret }
    }

    fn connect(&self, keys: Option<Keys>) -> Result<Client, ClientError> {
        let to = To { endpoint: self.daemon.tcp().parse().unwrap(), keys };
        let mut client = Client::connect_to(&to, ClientOptions { timeout: DEADLINE })?;
        client.request::<Value>(&Request::Ping(NoArgs {})).map(|_| client)
    }

    fn by(&self, name: &str) -> By {
        let socket = self.peer(name, &self.daemon.tcp());
        By(socket)
    }

    /// A socket of this client at one of the daemon's TCP endpoints.
    fn peer(&self, name: &str, endpoint: &str) -> Peer {
        let keys = self.keys(name);
        let kind = if endpoint == self.daemon.tcp() { zmq::REQ } else { zmq::SUB };
        Peer::connect_with(kind, endpoint, |socket| {
            prepare(socket, &keys);
            if kind == zmq::SUB {
                socket.set_subscribe(b"").unwrap();
            }
        })
    }

    fn events_endpoint(&self) -> String {
        self.daemon.info().events_endpoints.unwrap().into_iter().find(|endpoint| endpoint.starts_with("tcp:")).unwrap()
    }

    /// Changes the file's text, and has it read again.
    fn reload(&self, change: impl FnOnce(String) -> String) -> Reloaded {
        let file = self.daemon.path("procmand.toml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, change(text)).unwrap();
        self.daemon.call("reload", json!({}))
    }
}

fn prepare(socket: &zmq::Socket, keys: &Keys) {
    socket.set_curve_serverkey(keys.server.bytes()).unwrap();
    socket.set_curve_publickey(keys.public.bytes()).unwrap();
    socket.set_curve_secretkey(keys.secret.bytes()).unwrap();
}

/// Asks as somebody.
struct By(Peer);

impl By {
    fn ask(&self, command: &str, arguments: Value) -> Value {
        let mut request = arguments;
        request["command"] = command.into();
        self.0.ask(&[frame(&request)])
    }

    /// Whether it is done, or the code of the refusal.
    fn outcome(&self, command: &str, arguments: Value) -> String {
        let reply = self.ask(command, arguments);
        if reply["success"] == true { "ok".to_owned() } else { reply["error"]["code"].as_str().unwrap().to_owned() }
    }
}

#[test]
fn each_role_may_what_it_may_and_no_more() {
    let site = Guarded::start(&[("viewer", "role = 'read'"), ("operator", "role = 'operate'"), ("boss", "role = 'admin'")]);
    let outcomes = |name: &str| {
        let by = site.by(name);
        [
            by.outcome("status", json!({})),
            by.outcome("logs", json!({"name": "other"})),
            by.outcome("execute", json!({"name": "other"})),
            by.outcome("quit", json!({"all": true})),
            by.outcome("audit", json!({})),
            by.outcome("register", json!({"name": format!("of-{name}"), "cmd": ["true"]})),
            by.outcome("reload", json!({})),
        ]
        .map(|outcome| outcome.replace("permission_denied", "no"))
    };
    assert_eq!(outcomes("viewer"), ["ok", "ok", "no", "no", "no", "no", "no"]);
    assert_eq!(outcomes("operator"), ["ok", "ok", "ok", "ok", "no", "no", "no"]);
    assert_eq!(outcomes("boss"), ["ok", "ok", "ok", "ok", "ok", "ok", "ok"]);
    // Each by its name, refusals too.
    let trail: Vec<AuditEntry> = site.daemon.call("audit", json!({"limit": 100}));
    let told = |name: &str, command: &str| {
        trail.iter().find(|entry| entry.principal == name && entry.command == command && entry.outcome != "begun").unwrap().outcome.clone()
    };
    assert_eq!(told("viewer", "execute"), "permission_denied");
    assert_eq!(told("operator", "execute"), "ok");
    assert_eq!(told("operator", "register"), "permission_denied");
    assert_eq!(told("boss", "register"), "ok");
}

#[test]
fn an_operator_reaches_no_further_than_its_patterns() {
    let site =
        Guarded::start(&[("a", "role = 'operate'\nallow = ['device-*', 'group:core']"), ("b", "role = 'admin'\nallow = ['device-*']")]);
    let a = site.by("a");
    for (command, arguments, outcome) in [
        ("execute", json!({"name": "device-1"}), "ok"),
        ("execute", json!({"name": "core-1"}), "ok"),
        ("execute", json!({"name": "other"}), "permission_denied"),
        // No stranger learns by that what there is.
        ("execute", json!({"name": "nobody"}), "permission_denied"),
        ("restart", json!({"group": "core"}), "ok"),
        ("signal", json!({"name": "other", "signal": "TERM"}), "permission_denied"),
        ("logs", json!({"name": "other"}), "permission_denied"),
        ("logs", json!({"name": "device-1"}), "ok"),
        ("quit", json!({"all": true}), "permission_denied"),
        ("reap", json!({"name": "other"}), "permission_denied"),
        ("status", json!({"name": "other"}), "ok"),
        ("list", json!({}), "ok"),
    ] {
        assert_eq!(a.outcome(command, arguments.clone()), outcome, "{command} {arguments}");
    }
    let refusal = a.ask("quit", json!({"name": "other"}));
    assert_eq!(refusal["error"]["message"], "\"other\" is not within your reach (device-*, group:core)");
    assert_eq!(site.daemon.view("other").state, StateName::Stopped, "nothing was changed");

    let b = site.by("b");
    for (command, arguments, outcome) in [
        ("register", json!({"name": "device-2", "cmd": ["sleep", "1000"]}), "ok"),
        ("register", json!({"name": "other", "cmd": ["true"], "replace": true}), "permission_denied"),
        ("unregister", json!({"name": "device-2"}), "ok"),
        ("unregister", json!({"name": "other"}), "permission_denied"),
        ("reload", json!({}), "permission_denied"),
        ("shutdown", json!({}), "permission_denied"),
        ("audit", json!({}), "permission_denied"),
    ] {
        assert_eq!(b.outcome(command, arguments.clone()), outcome, "{command} {arguments}");
    }
}

#[test]
fn a_stranger_is_told_what_is_wrong_and_gets_nothing() {
    let site = Guarded::start(&[("boss", "role = 'admin'")]);
    // Without a key, with one that nobody knows, and with that of another daemon.
    match site.connect(None) {
        Err(error @ ClientError::KeyRefused { refusal: Refusal::Mechanism, .. }) => {
            assert!(error.to_string().contains("--secret-key-file"), "{error}")
        }
        other => panic!("{:?}", other.err()),
    }
    generate(&site.daemon.path("stranger")).unwrap();
    match site.connect(Some(site.keys("stranger"))) {
        Err(error @ ClientError::KeyRefused { refusal: Refusal::Key, .. }) => {
            let own = site.keys("stranger").public.to_string();
            assert!(error.to_string().contains(&own) && error.to_string().contains("[[control.client]]"), "{error}");
        }
        other => panic!("{:?}", other.err()),
    }
    let impostor = Keys { server: site.keys("stranger").public, ..site.keys("boss") };
    let to = To { endpoint: site.daemon.tcp().parse().unwrap(), keys: Some(impostor) };
    let mut client = Client::connect_to(&to, ClientOptions { timeout: std::time::Duration::from_secs(1) }).unwrap();
    assert!(client.request::<Value>(&Request::Ping(NoArgs {})).is_err());
    assert!(site.daemon.metric("procman_strangers_refused_total", &[]).is_some_and(|refused| refused >= 1.0));
    site.connect(Some(site.keys("boss"))).unwrap();
    // What everybody sees of the daemon and its files holds no secret.
    let secret = fs::read_to_string(site.daemon.path("server.secret")).unwrap();
    assert!(!site.daemon.read("log").contains(secret.trim()));
}

#[test]
fn whoever_is_taken_out_is_cut_off_at_once_and_nobody_else() {
    let site = Guarded::start(&[("stays", "role = 'admin'"), ("goes", "role = 'admin'")]);
    let (stays, goes) = (site.by("stays"), site.by("goes"));
    let events = site.events_endpoint();
    let (hears, heard) = (site.peer("stays", &events), site.peer("goes", &events));
    until("both hear", || {
        site.daemon.execute("other");
        site.daemon.quit("other");
        (hears.has_more(10) && heard.has_more(10)).then_some(())
    });
    assert_eq!((stays.outcome("ping", json!({})), goes.outcome("ping", json!({}))), ("ok".into(), "ok".into()));
    let gone = client_table("goes", &site.keys("goes").public, "role = 'admin'");
    site.reload(|text| {
        assert!(text.contains(&gone));
        text.replace(&gone, "")
    });
    // Over the connection that it has, over a new one, and as a subscriber.
    let reply = goes.ask("status", json!({"request_id": 3}));
    assert_eq!((&reply["error"]["code"], &reply["request_id"]), (&json!("permission_denied"), &json!(3)));
    assert!(matches!(site.connect(Some(site.keys("goes"))), Err(ClientError::KeyRefused { refusal: Refusal::Key, .. })));
    assert_eq!(stays.outcome("ping", json!({})), "ok");
    until("the other one hears again", || {
        while hears.has_more(0) {
            hears.receive();
        }
        site.daemon.execute("other");
        site.daemon.quit("other");
        hears.has_more(20).then_some(())
    });
    while heard.has_more(0) {
        heard.receive();
    }
    site.daemon.execute("other");
    let sequence = |peer: &Peer| {
        let message = peer.receive();
        value_of(&message[1])["name"].clone()
    };
    assert_eq!(sequence(&hears), "other");
    assert!(!heard.has_more(200), "it hears nothing any more");
    site.daemon.quit("other");
    // Whoever comes back in is there without a restart of anything.
    site.reload(|text| text.replace("\n[events]", &format!("\n{gone}[events]")));
    until("it is known again", || site.connect(Some(site.keys("goes"))).ok());
}

#[test]
fn the_daemon_takes_another_key_at_a_reload() {
    let site = Guarded::start(&[("boss", "role = 'admin'")]);
    let port = site.daemon.tcp();
    site.connect(Some(site.keys("boss"))).unwrap();
    let other = generate(&site.daemon.path("other-server")).unwrap();
    let done = site.reload(|text| text.replace("'server.secret'", "'other-server.secret'"));
    assert_eq!(done.ignored, [""; 0]);
    let new = Keys { server: other.public, ..site.keys("boss") };
    until("the new key is used", || {
        let to = To { endpoint: port.parse().unwrap(), keys: Some(new.clone()) };
        let mut client = Client::connect_to(&to, ClientOptions { timeout: std::time::Duration::from_millis(500) }).ok()?;
        client.request::<Info>(&Request::Info(NoArgs {})).ok()
    });
    let former = To { endpoint: port.parse().unwrap(), keys: Some(site.keys("boss")) };
    let mut former = Client::connect_to(&former, ClientOptions { timeout: std::time::Duration::from_secs(1) }).unwrap();
    assert!(former.request::<Info>(&Request::Info(NoArgs {})).is_err(), "by the former key nobody gets in any more");
    // A file that is out of order changes nothing.
    fs::set_permissions(&other.secret_file, fs::Permissions::from_mode(0o644)).unwrap();
    let refusal = site.daemon.refusal("reload", json!({}));
    assert!(refusal.to_string().contains("chmod 600") || format!("{refusal:?}").contains("chmod 600"), "{refusal:?}");
    let to = To { endpoint: port.parse().unwrap(), keys: Some(new) };
    Client::connect_to(&to, ClientOptions { timeout: DEADLINE }).unwrap().request::<Info>(&Request::Info(NoArgs {})).unwrap();
}

#[test]
fn a_door_for_those_who_may_only_look() {
    let setup = Setup::new(PROCESSES).control(
        "[[control.endpoint]]\nendpoint = 'ipc://{dir}/read.sock'\nrole = 'read'\nsocket_mode = 0o666\n\
         [[control.endpoint]]\nendpoint = 'ipc://{dir}/devices.sock'\nrole = 'operate'\nallow = ['device-*']\nsocket_mode = 0o600\n",
    );
    let daemon = setup.start();
    let mode = |name: &str| fs::metadata(daemon.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("c.sock"), mode("read.sock"), mode("devices.sock")), (0o660, 0o666, 0o600));
    let at = |name: &str| By(Peer::connect(zmq::REQ, &format!("ipc://{}", daemon.path(name).display())));
    let (read, devices) = (at("read.sock"), at("devices.sock"));
    assert_eq!(read.outcome("status", json!({})), "ok");
    let refused = read.ask("execute", json!({"name": "other"}));
    assert_eq!(refused["error"]["message"], "execute needs the role operate, yours is read");
    assert_eq!(devices.outcome("execute", json!({"name": "device-1"})), "ok");
    assert_eq!(devices.outcome("execute", json!({"name": "other"})), "permission_denied");
    assert_eq!(daemon.view("other").state, StateName::Stopped);
    let views: Vec<View> = daemon.call("list", json!({"state": "running"}));
    assert_eq!(views.len(), 1);
}

#[test]
fn what_is_open_to_the_network_without_keys_is_refused() {
    for lines in ["", "[[control.endpoint]]\nendpoint = 'tcp://0.0.0.0:*'\nrole = 'read'\n"] {
        let setup = Setup::new("").control(lines);
        let setup = if lines.is_empty() { setup.endpoint("tcp://0.0.0.0:*") } else { setup };
        setup.refused().assert(78, &["[control.curve]", "procmand keygen"]);
    }
    Setup::new("").events("endpoints = ['tcp://0.0.0.0:*']").refused().assert(78, &["events.endpoints", "[control.curve]"]);
    let setup = || Setup::new("").control("[control.curve]\nsecret_key_file = 'server.secret'\n");
    setup().refused().assert(78, &["server.secret", "keygen"]);
    let setup = setup();
    let made = generate(&setup.dir().join("server")).unwrap();
    fs::set_permissions(made.secret_file, fs::Permissions::from_mode(0o640)).unwrap();
    setup.refused().assert(78, &["server.secret", "chmod 600"]);
}

fn procmanctl(home: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    program.args(arguments).env("XDG_CONFIG_HOME", home).env_remove("PROCMAN_ENDPOINT");
    let output = program.output().unwrap();
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn procmanctl_has_its_keys_from_a_file_or_from_flags() {
    let site = Guarded::start(&[("boss", "role = 'admin'")]);
    let home = site.daemon.path("home");
    fs::create_dir_all(home.join("procman")).unwrap();
    let (endpoint, server) = (site.daemon.tcp(), site.server.public.to_string());
    let secret = site.daemon.path("boss.secret");
    let flags = ["--endpoint", &endpoint, "--server-key", &server, "--secret-key-file", secret.to_str().unwrap()];
    let with = |more: &[&'static str]| procmanctl(&home, &[&flags[..], more].concat());
    assert_eq!(with(&["ping"]).0, Some(0));
    assert_eq!(with(&["execute", "other"]).0, Some(0));
    let (code, text) = procmanctl(&home, &["--endpoint", &endpoint, "ping"]);
    assert!(code == Some(3) && text.contains("takes known clients alone"), "{text}");
    let (code, text) = procmanctl(&home, &["--endpoint", &endpoint, "--server-key", &server, "ping"]);
    assert!(code == Some(2) && text.contains("--secret-key-file"), "{text}");

    fs::copy(&secret, home.join("procman/me.secret")).unwrap();
    let text = format!("endpoint = '{endpoint}'\nserver_key = '{server}'\nsecret_key_file = 'me.secret'\n");
    fs::write(home.join("procman/client.toml"), text).unwrap();
    let (code, text) = procmanctl(&home, &["list"]);
    assert!(code == Some(0) && text.contains("device-1"), "{text}");
    let (code, text) = procmanctl(&home, &["events"]);
    assert!(code == Some(0) && text.contains("other"), "{text}");
    // A Unix socket has no keys, and needs none.
    assert_eq!(procmanctl(&home, &["--endpoint", &site.daemon.endpoint(), "ping"]).0, Some(0));
    fs::set_permissions(home.join("procman/me.secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = procmanctl(&home, &["list"]);
    assert!(code == Some(2) && text.contains("chmod 600"), "{text}");

    let keygen = |base: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_procmand")).args(["keygen", base]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let base = site.daemon.path("made");
    let (code, out, _) = keygen(base.to_str().unwrap());
    assert_eq!((code, out.trim()), (Some(0), fs::read_to_string(site.daemon.path("made.public")).unwrap().trim()));
    let (code, _, err) = keygen(base.to_str().unwrap());
    assert!(code == Some(1) && err.contains("is there already"), "{err}");
}

#[test]
fn only_allowed_programs_are_registered_by_tcp() {
    let daemon = Setup::new(PROCESSES).tcp().control("allow_programs = ['/usr/bin/sleep', '/opt/site/*']\n").start();
    let tcp = By(Peer::connect(zmq::REQ, &daemon.tcp()));
    let local = By(Peer::connect(zmq::REQ, &daemon.endpoint()));
    let shell = json!({"name": "sh", "cmd": ["/bin/sh", "-c", "true"]});
    let refused = tcp.ask("register", shell.clone());
    assert_eq!(refused["error"]["code"], "permission_denied");
    assert!(refused["error"]["message"].as_str().unwrap().contains("allow_programs"), "{refused}");
    assert_eq!(tcp.outcome("register", json!({"name": "s", "cmd": ["/usr/bin/sleep", "1000"], "shell": true})), "permission_denied");
    assert_eq!(tcp.outcome("execute", json!({"name": "web", "env": {"LD_PRELOAD": "/tmp/x.so"}})), "permission_denied");
    assert_eq!(tcp.outcome("register", json!({"name": "s", "cmd": ["/usr/bin/sleep", "1000"]})), "ok");
    assert_eq!(tcp.outcome("execute", json!({"name": "s", "env": {"A": "b"}})), "ok");
    assert_eq!(local.outcome("register", shell), "ok", "a Unix socket has permissions");
}
