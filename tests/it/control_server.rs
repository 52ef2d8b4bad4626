//! The daemon as a control server of CGSE: spoken to as CGSE's own clients do, and by them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use procman::protocol::StateName;
use procman::protocol::reply::{AuditEntry, Info};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, free_ports, until};

const STRING: &[u8] = b"MESSAGE_TYPE:STRING";
const JSON: &[u8] = b"MESSAGE_TYPE:JSON";

fn start(cgse: &str) -> Daemon {
    // Nobody is the registry there.
    let port = free_ports(1)[0];
    Setup::new(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n[cgse]\nregistry = 'tcp://127.0.0.1:{port}'\nheartbeat = 'tcp://127.0.0.1:{port}'\n{cgse}\n"
    ))
    .start()
}

/// Both doors.
fn doors(daemon: &Daemon) -> [Peer; 2] {
    let endpoints = daemon.info().cgse_endpoints.unwrap();
    [0, 1].map(|at| Peer::connect(zmq::DEALER, &endpoints[at]))
}

/// The reply to one request, which has the same number.
fn ask(door: &Peer, kind: &[u8], body: &[u8]) -> (Vec<u8>, Value) {
    door.send(&[b"7", kind, body]);
    let [sequence, kind, body] = &door.receive()[..] else { panic!("three frames") };
    assert_eq!(sequence, b"7");
    (kind.clone(), serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8(body.clone()).unwrap().into()))
}

fn ask_json(door: &Peer, request: &Value) -> Value {
    let (kind, reply) = ask(door, JSON, request.to_string().as_bytes());
    assert_eq!(kind, JSON);
    reply
}

#[test]
fn commands_are_given_in_text_and_in_json_at_both_doors() {
    let daemon = start("");
    for door in doors(&daemon) {
        assert_eq!(ask(&door, STRING, b"ping"), (STRING.to_vec(), "pong".into()));
        let (kind, info) = ask(&door, STRING, b"info");
        assert_eq!((kind.as_slice(), &info["success"], &info["message"]["pid"]), (JSON, &json!(true), &json!(daemon.pid())));
        let executed = ask_json(&door, &json!({"command": "execute", "name": "web", "request_id": 5}));
        assert_eq!((&executed["success"], &executed["request_id"]), (&json!(true), &json!(5)));
        assert!(executed["message"]["pid"].as_u64().is_some(), "{executed}");
        let running = ask_json(&door, &json!({"command": "is-running", "kwargs": {"name": "web"}}));
        assert_eq!(running, json!({"success": true, "message": true}));
        let again = ask_json(&door, &json!({"command": "execute", "name": "web"}));
        assert_eq!((&again["success"], &again["error"]["code"]), (&json!(false), &json!("already_running")));
        assert_eq!(again["message"], again["error"]["message"]);
        assert_eq!(ask_json(&door, &json!({"command": "quit", "name": "web"}))["message"]["survivors"], 0);
        assert_eq!(ask(&door, STRING, b"block").1["error"]["code"], "unknown_command");
    }
    let trail: Vec<AuditEntry> = daemon.call("audit", json!({"name": "web"}));
    let endpoints = daemon.info().cgse_endpoints.unwrap();
    assert!(endpoints.iter().all(|endpoint| trail.iter().any(|entry| entry.endpoint == *endpoint)), "{trail:?}");
}

#[test]
fn whatever_comes_gets_one_reply_and_no_pickle_is_read() {
    let daemon = start("");
    let [door, _] = doors(&daemon);
    let pickle = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.";
    for (kind, body) in [
        (&b"MESSAGE_TYPE:ERROR"[..], &pickle[..]),
        (JSON, pickle),
        (STRING, pickle),
        (JSON, b""),
        (JSON, b"[1]"),
        (JSON, b"{\"command\": 5}"),
        (JSON, b"{\"command\": \"ping\", \"extra\": 1}"),
        (STRING, b""),
        (b"", b""),
        (JSON, &[b'['; 100_000]),
        (JSON, &vec![b' '; (1 << 20) + 1]),
    ] {
        let (kind, reply) = ask(&door, kind, body);
        assert_eq!((kind.as_slice(), &reply["success"]), (JSON, &json!(false)), "{reply}");
        assert!(reply["message"].as_str().is_some_and(|message| !message.is_empty()) && reply["error"]["code"].is_string(), "{reply}");
    }
    // Frames too few, too many, and a number that is none.
    for frames in [
        vec![b"1".to_vec()],
        vec![vec![], vec![]],
        vec![b"1".to_vec(), JSON.to_vec(), b"{}".to_vec(), vec![]],
        vec![vec![9; 5000], JSON.to_vec(), b"{}".to_vec()],
    ] {
        door.send(&frames);
        let reply = door.receive();
        assert_eq!((reply.len(), reply[1].as_slice()), (3, JSON));
        assert!(reply[0].len() <= 64, "what is no number is not repeated");
    }
    assert_eq!(ask(&door, STRING, b"ping").1, "pong");
    assert!(!door.has_more(100), "one reply for each");
    assert_eq!(daemon.view("web").state, StateName::Stopped);
}

#[test]
fn a_storm_of_frames_ends_in_one_reply_each() {
    let daemon = start("");
    let [door, _] = doors(&daemon);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let frames = proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), 1..5);
    let kinds = [STRING, JSON, b"MESSAGE_TYPE:ERROR"];
    for round in 0..5000_usize {
        use proptest::strategy::{Strategy, ValueTree};
        let mut message = frames.new_tree(&mut runner).unwrap().current();
        if round % 3 == 0 && message.len() > 1 {
            message[1] = kinds[round / 3 % 3].to_vec();
        }
        door.send(&message);
        let reply = door.receive();
        assert!(reply.len() == 3 && (reply[1] == JSON || reply[1] == STRING), "{message:?}: {reply:?}");
    }
    assert!(!door.has_more(100));
    assert_eq!(ask(&door, STRING, b"ping").1, "pong");
}

#[test]
fn what_may_be_done_there_is_said() {
    let daemon = start("role = 'read'");
    for door in doors(&daemon) {
        assert_eq!(ask(&door, STRING, b"list").1["success"], true);
        for request in
            [json!({"command": "execute", "name": "web"}), json!({"command": "terminate"}), json!({"command": "quit", "all": true})]
        {
            let refused = ask_json(&door, &request);
            assert_eq!((&refused["success"], &refused["error"]["code"]), (&json!(false), &json!("permission_denied")));
        }
    }
    assert_eq!(daemon.view("web").state, StateName::Stopped);
    let closed = Setup::new("[cgse]\ndevice_endpoint = ''\nservice_endpoint = ''\n").tcp().start();
    assert_eq!(closed.info().cgse_endpoints, None);
}

#[test]
fn nothing_is_taken_for_something_else() {
    let daemon = start("");
    let [door, _] = doors(&daemon);
    let refused = |request: &str, words: &str| {
        let (kind, reply) = ask(&door, JSON, request.as_bytes());
        assert_eq!(
            (kind.as_slice(), &reply["success"], &reply["error"]["code"]),
            (JSON, &json!(false), &json!("bad_request")),
            "{request}"
        );
        let message = reply["message"].as_str().unwrap();
        assert!(message.contains(words), "{request}: {message}");
    };
    // An integer that would have to be rounded; the same key beside `kwargs` and in it.
    refused(r#"{"command": "quit", "name": "web", "timeout": 18446744073709551616}"#, "18446744073709551616");
    refused(r#"{"command": "quit", "name": "web", "kwargs": {"name": "other"}}"#, "said twice");
    refused(r#"{"command": "ping", "kwargs": {"command": "terminate"}}"#, "said twice");
    let deep = format!(r#"{{"command": "ping", "x": {}{}}}"#, "[".repeat(100), "]".repeat(100));
    refused(&deep, "32 levels");
    // Digits in a text are no number.
    refused(r#"{"command": "quit", "name": "18446744073709551616 \\\" 99999999999999999999"}"#, "`name`");
}

#[test]
fn info_is_also_what_a_control_server_tells_of_itself() {
    let daemon = start("service_type = 'PM2'");
    let endpoints = daemon.info().cgse_endpoints.unwrap();
    let port = |at: usize| json!(endpoints[at].rsplit_once(':').unwrap().1.parse::<u16>().unwrap());
    for door in doors(&daemon) {
        let info = &ask(&door, STRING, b"info").1["message"];
        assert_eq!((&info["name"], &info["service type"]), (&json!("procman"), &json!("PM2")), "{info}");
        assert_eq!((&info["device commanding port"], &info["service commanding port"]), (&port(0), &port(1)));
        // Events are not published by TCP here.
        assert_eq!(info.get("monitoring port"), Some(&Value::Null));
        for commands in ["device commands", "service commands"] {
            let commands = info[commands].as_array().unwrap();
            assert!(["ping", "info", "terminate", "execute"].iter().all(|word| commands.contains(&json!(word))), "{commands:?}");
        }
        assert_eq!((&info["pid"], &info["version"]), (&json!(daemon.pid()), &json!(env!("CARGO_PKG_VERSION"))));
    }
}

#[test]
fn clients_find_the_doors_where_they_were_after_an_upgrade() {
    let daemon = Setup::new("[cgse]\nregistry = 'tcp://127.0.0.1:1'\nheartbeat = 'tcp://127.0.0.1:1'\n").tcp().start();
    let before = daemon.info();
    let [device, service] = doors(&daemon);
    assert_eq!(ask(&device, STRING, b"ping").1, "pong");
    assert_eq!(ask_json(&service, &json!({"command": "upgrade"}))["success"], true);
    let after = daemon.wait_for_successor(&before.uuid);
    assert_eq!((&after.cgse_endpoints, &after.endpoints), (&before.cgse_endpoints, &before.endpoints));
    // The same socket, which libzmq connects anew.
    assert_eq!(ask(&device, STRING, b"ping").1, "pong");
}

/// Where `make test` installs CGSE.
fn python() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cgse/bin/python")
}

/// CGSE's clients find the registry by settings of the site.
const CLIENT: &str = r#"
import asyncio, json, sys
import egse.registry.client as registry
port = int(sys.argv[1])
for name in dir(registry):
    if name.startswith("DEFAULT") and name.endswith("REQ_PORT"):
        setattr(registry, name, port)
original = registry.AsyncRegistryClient.__init__
def init(self, *args, **kwargs):
    original(self, *args, **kwargs)
    self.registry_req_endpoint = f"tcp://127.0.0.1:{port}"
registry.AsyncRegistryClient.__init__ = init
from egse.async_control import AsyncControlClient, is_control_server_active

async def main():
    said = {"active": await is_control_server_active("PROCMAN", timeout=5.0), "other": await is_control_server_active("NOBODY", timeout=0.5, attempts=1)}
    async with AsyncControlClient(service_type="PROCMAN") as client:
        said["ping"] = await client.ping()
        said["info"] = await client.info()
        said["execute"] = await client.do({"command": "execute", "name": "web"})
        said["running"] = await client.do({"command": "is-running", "name": "web"})
        said["refused"] = await client.do({"command": "execute", "name": "web"})
        said["list"] = await client.handle("list")
        said["quit"] = await client.do({"command": "quit", "name": "web"})
        said["terminate"] = await client.stop_server()
    print(json.dumps(said))
asyncio.run(main())
"#;

/// A daemon that runs the real registry, and is to be in it; where that takes requests.
fn with_registry() -> (Setup, u16) {
    let [requests, events, heartbeats] = free_ports(3)[..] else { unreachable!("three were asked for") };
    let setup = Setup::new(&format!(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n\
         [[process]]\nname = 'rs_cs'\ncwd = '{{dir}}/cwd'\nautostart = true\nstop_timeout = 10\nstdout = 'log'\nstderr = 'stdout'\n\
         cmd = ['{}', '-m', 'egse.registry.server', 'start', '--req-port', '{requests}', '--pub-port', '{events}', '--hb-port', '{heartbeats}']\n\
         env = {{ PROJECT = 'CGSE', SITE_ID = 'LAB23', CGSE_DATA_STORAGE_LOCATION = '{{dir}}/data', CGSE_LOG_FILE_LOCATION = '{{dir}}/data/log' }}\n\
         [cgse]\nregistry = 'tcp://127.0.0.1:{requests}'\nheartbeat = 'tcp://127.0.0.1:{heartbeats}'\n",
        python().display()
    ));
    for directory in ["cwd", "data/log", "data/daily", "data/obs"] {
        fs::create_dir_all(setup.dir().join(directory)).unwrap();
    }
    (setup, requests)
}

/// What the registry says of the daemon: the port of either door.
fn listed(requests: u16) -> Option<[u64; 2]> {
    let peer = Peer::connect(zmq::DEALER, &format!("tcp://127.0.0.1:{requests}"));
    peer.send(&[b"REQ".to_vec(), json!({"action": "list", "service_type": "PROCMAN"}).to_string().into_bytes()]);
    let answer: Value = peer.has_more(1000).then(|| serde_json::from_slice(&peer.receive()[1]).unwrap())?;
    let [entry] = &answer["services"].as_array()?[..] else { return None };
    Some([entry["port"].as_u64()?, entry["metadata"]["service_port"].as_u64()?])
}

fn ports(info: &Info) -> [u64; 2] {
    let endpoints = info.cgse_endpoints.clone().unwrap();
    [0, 1].map(|at| endpoints[at].rsplit_once(':').unwrap().1.parse().unwrap())
}

#[test]
fn the_registry_tells_where_the_doors_are_now() {
    let (setup, requests) = with_registry();
    let mut daemon = setup.start();
    let first = daemon.info();
    until("it is listed", || listed(requests).filter(|found| *found == ports(&first)));
    daemon.signal(libc::SIGUSR2);
    let second = daemon.wait_for_successor(&first.uuid);
    assert_eq!(ports(&second), ports(&first));
    assert_eq!(listed(requests), Some(ports(&second)), "an upgrade takes nothing out");
    // A daemon that comes after one that was killed takes any free ports.
    daemon.replace();
    let third = daemon.info();
    assert_ne!(ports(&third), ports(&second));
    until("its entry is brought up to date", || listed(requests).filter(|found| *found == ports(&third)));
}

#[test]
fn the_real_clients_of_cgse_find_it_and_command_it() {
    let (setup, requests) = with_registry();
    let mut daemon = setup.start();
    until("it is in the registry", || daemon.metric("procman_cgse_registered", &[]).filter(|registered| *registered == 1.0));
    let script = daemon.path("client.py");
    fs::write(&script, CLIENT).unwrap();
    let data = daemon.path("data").display().to_string();
    let output = Command::new(python())
        .arg(&script)
        .arg(requests.to_string())
        .envs([("PROJECT", "CGSE"), ("SITE_ID", "LAB23")])
        .envs([("CGSE_DATA_STORAGE_LOCATION", &data), ("CGSE_LOG_FILE_LOCATION", &data), ("CGSE_CONF_DATA_LOCATION", &data)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Value = text
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&said["active"], &said["other"], &said["ping"]), (&json!(true), &json!(false), &json!("pong")));
    assert_eq!(said["info"]["pid"], daemon.pid());
    assert_eq!((&said["execute"]["success"], &said["running"]["message"]), (&json!(true), &json!(true)));
    assert_eq!((&said["refused"]["success"], &said["refused"]["error"]["code"]), (&json!(false), &json!("already_running")));
    assert_eq!(said["list"]["message"].as_array().unwrap().len(), 2);
    assert_eq!(said["quit"]["message"]["survivors"], 0);
    assert_eq!(said["terminate"], json!({"status": "terminating"}));
    assert_eq!(daemon.wait_exit().code(), Some(0));
}
