//! The golden messages: what went out once stays readable, and is written the same to the byte.
//!
//! `PROCMAN_BLESS=1 cargo test --test protocol` writes the files that are missing. It never writes over one.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use procman::protocol::codec::{decode_reply, decode_request, encode_error, encode_event, encode_request_of, encode_result};
use procman::protocol::event::Event;
use procman::protocol::reply::*;
use procman::protocol::{CommandName, ErrorCode};

use crate::samples;

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    description: String,
    /// `request`, `reply`, or `event`: the second frame of a published message.
    kind: String,
    /// Of a request its command; of a reply the type of its result as in PROTOCOL.md, or `error`; of an event its type there.
    #[serde(rename = "type")]
    type_name: String,
    /// Of a reply that is no refusal: what it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    message: Value,
    hex: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/golden/v1")
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "{hex:?} is no hex");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn unpack(frame: &[u8]) -> Value {
    rmp_serde::from_slice(frame).unwrap()
}

fn pack(message: &Value) -> Vec<u8> {
    rmp_serde::to_vec_named(message).unwrap()
}

/// What the files should be, by name.
fn samples() -> Vec<(String, Golden)> {
    let requests = samples::requests().into_iter().map(|sample| {
        let frame = encode_request_of(&sample.command, sample.request_id.as_ref(), sample.client.as_ref()).unwrap();
        let golden = Golden {
            description: sample.description.into(),
            kind: "request".into(),
            type_name: sample.command.name().to_string(),
            command: None,
            message: unpack(&frame),
            hex: to_hex(&frame),
        };
        (format!("request-{}.json", sample.file), golden)
    });
    let replies = samples::replies().into_iter().map(|sample| {
        let golden = Golden {
            description: sample.description.into(),
            kind: "reply".into(),
            type_name: sample.kind.into(),
            command: sample.command.map(str::to_owned),
            message: unpack(&sample.frame),
            hex: to_hex(&sample.frame),
        };
        (format!("reply-{}.json", sample.file), golden)
    });
    let events = samples::events().into_iter().map(|(file, type_name, description, event)| {
        let frame = encode_event(&event).unwrap();
        let golden = Golden {
            description: description.into(),
            kind: "event".into(),
            type_name: type_name.into(),
            command: None,
            message: unpack(&frame),
            hex: to_hex(&frame),
        };
        (format!("event-{file}.json"), golden)
    });
    requests.chain(replies).chain(events).collect()
}

/// Reads every file, after the missing ones were written if that is asked for.
fn files() -> Vec<(String, Golden)> {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("PROCMAN_BLESS").is_some_and(|value| value == "1") {
            fs::create_dir_all(directory()).unwrap();
            for (file, golden) in samples() {
                let path = directory().join(file);
                if !path.exists() {
                    fs::write(path, serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
                }
            }
        }
    });
    let mut files: Vec<_> = fs::read_dir(directory())
        .expect("proto/golden/v1 is part of the project")
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let golden = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, golden)
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

/// Decodes the bytes and the message to the same value, and gives the bytes that the value is written as.
fn reply_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(name: &str, golden: &Golden) -> Vec<u8> {
    let reply = decode_reply::<T>(&from_hex(&golden.hex)).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert_eq!(reply, decode_reply::<T>(&pack(&golden.message)).unwrap(), "{name}");
    assert_eq!((reply.success, reply.error.is_some()), (golden.type_name != "error", golden.type_name == "error"), "{name}");
    match &reply.error {
        Some(error) => encode_error(error, reply.request_id.as_ref()).unwrap(),
        // A result that is null is no result to serde; both are written as null.
        None => encode_result(&reply.result, reply.request_id.as_ref()).unwrap(),
    }
}

#[test]
fn every_message_is_read_and_written_as_it_was() {
    for (name, golden) in &files() {
        let frame = from_hex(&golden.hex);
        assert_eq!(unpack(&frame), golden.message, "{name}");
        let again = match (golden.kind.as_str(), golden.type_name.as_str()) {
            ("request", command) => {
                let request = decode_request(&frame).unwrap_or_else(|rejected| panic!("{name}: {rejected:?}"));
                assert_eq!(request, decode_request(&pack(&golden.message)).unwrap(), "{name}");
                assert_eq!(request.command.name().as_str(), command, "{name}");
                encode_request_of(&request.command, request.request_id.as_ref(), request.client.as_ref()).unwrap()
            }
            ("event", type_name) => {
                let event: Event = rmp_serde::from_slice(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(event, rmp_serde::from_slice(&pack(&golden.message)).unwrap(), "{name}");
                assert_eq!(type_name == "StateChanged", matches!(event, Event::StateChanged(_)), "{name}");
                encode_event(&event).unwrap()
            }
            ("reply", "error") => reply_again::<Nothing>(name, golden),
            ("reply", "Pong") => reply_again::<Pong>(name, golden),
            ("reply", "Info") => reply_again::<Info>(name, golden),
            ("reply", "View") => reply_again::<View>(name, golden),
            ("reply", "[View]") => reply_again::<Vec<View>>(name, golden),
            ("reply", "ViewWithStatus") => reply_again::<ViewWithStatus>(name, golden),
            ("reply", "StatusOfAll") => reply_again::<StatusOfAll>(name, golden),
            ("reply", "Unregistered") => reply_again::<Unregistered>(name, golden),
            ("reply", "Executed") => reply_again::<Executed>(name, golden),
            ("reply", "[Executed]") => reply_again::<Vec<Each<Executed>>>(name, golden),
            ("reply", "Ended") => reply_again::<Ended>(name, golden),
            ("reply", "[Ended]") => reply_again::<Vec<Each<Ended>>>(name, golden),
            ("reply", "Signalled") => reply_again::<Signalled>(name, golden),
            ("reply", "[HostProcess]") => reply_again::<Vec<HostProcess>>(name, golden),
            ("reply", "[HostProcessInfo]") => reply_again::<Vec<HostProcessInfo>>(name, golden),
            ("reply", "[NamedProcess]") => reply_again::<Vec<NamedProcess>>(name, golden),
            ("reply", "int" | "[int]") => reply_again::<RunningPids>(name, golden),
            ("reply", "LogLines") => reply_again::<LogLines>(name, golden),
            ("reply", "bool") => reply_again::<bool>(name, golden),
            ("reply", "int or null") => reply_again::<Option<i32>>(name, golden),
            ("reply", "Replay") => reply_again::<Replay>(name, golden),
            ("reply", "[PastRun]") => reply_again::<Vec<PastRun>>(name, golden),
            ("reply", "[AuditEntry]") => reply_again::<Vec<AuditEntry>>(name, golden),
            ("reply", "Reloaded") => reply_again::<Reloaded>(name, golden),
            ("reply", "Nothing") => reply_again::<Nothing>(name, golden),
            (kind, type_name) => panic!("{name}: {kind} of the type {type_name:?} is not known here"),
        };
        assert_eq!(to_hex(&again), golden.hex, "{name}");
    }
}

#[test]
fn every_sample_has_its_file() {
    let files = files();
    for (name, sample) in samples() {
        let (_, file) = files
            .iter()
            .find(|(file, _)| *file == name)
            .unwrap_or_else(|| panic!("proto/golden/v1/{name} is missing: PROCMAN_BLESS=1 cargo test --test protocol writes it"));
        assert_eq!(file.hex, sample.hex, "{name} is frozen: a client may rely on it; give what is new a file of its own");
    }
}

/// The types that replies to a command have, by the golden messages.
pub(crate) fn reply_types(command: CommandName) -> BTreeSet<String> {
    let files = files();
    files
        .into_iter()
        .filter(|(_, golden)| golden.command.as_deref() == Some(command.as_str()))
        .map(|(_, golden)| golden.type_name)
        .collect()
}

/// The keys of the details of an error, by the golden messages.
pub(crate) fn detail_keys(code: ErrorCode) -> BTreeSet<String> {
    let files = files();
    let errors = files.iter().map(|(_, golden)| &golden.message["error"]).filter(|error| error["code"] == code.as_str());
    errors.filter_map(|error| error["details"].as_object()).flat_map(|details| details.keys().cloned()).collect()
}

#[test]
fn nothing_is_without_a_message() {
    let files = files();
    for command in CommandName::ALL {
        assert!(files.iter().any(|(_, g)| g.kind == "request" && g.type_name == command.as_str()), "no request for {command}");
        assert!(!reply_types(*command).is_empty(), "no reply for {command}");
    }
    for code in ErrorCode::ALL {
        let count = files.iter().filter(|(_, golden)| golden.message["error"]["code"] == code.as_str()).count();
        assert!(count > 0, "no refusal with {code}");
    }
}

/// Another implementation of MessagePack reads the same. Numbers are compared in their JSON form, so that 5 is not 5.0.
const CROSS_CHECK: &str = r#"
import json, pathlib, sys, msgpack
count = 0
for path in pathlib.Path(sys.argv[1]).iterdir():
    golden = json.loads(path.read_text())
    unpacked = msgpack.unpackb(bytes.fromhex(golden["hex"]))
    if json.dumps(unpacked, sort_keys=True) != json.dumps(golden["message"], sort_keys=True):
        sys.exit(f"{path.name}: Python reads {unpacked!r}")
    count += 1
print(count)
"#;

#[test]
fn python_reads_the_same() {
    let count = files().len();
    let output = Process::new("/usr/bin/python3").args(["-c", CROSS_CHECK]).arg(directory()).output().expect("/usr/bin/python3 is needed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("No module named 'msgpack'"), "msgpack is needed: apt-get install python3-msgpack");
    assert!(output.status.success(), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), count.to_string());
}
