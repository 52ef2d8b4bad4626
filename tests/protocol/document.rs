//! The tables of PROTOCOL.md against the code, so that neither can drift. A table is found by the marker before it, `<!-- table: name -->`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use procman::access::Role;
use procman::control::authorize::needed;
use procman::protocol::codec::{decode_request, encode_result};
use procman::protocol::definition::{Definition, HealthDefinition, LimitsDefinition, ReadyDefinition, StopRequestDefinition};
use procman::protocol::reply::*;
use procman::protocol::{
    Cause, CommandName, EndedBy, ErrorCode, EventName, Name, Origin, RegistryHealth, RestartPolicy, StateName, Wanted,
};
use procman::protocol::{DEFAULT_MAX_REQUEST_BYTES, MAX_DEPTH, MAX_REQUEST_ID, MAX_SECONDS};
use procman::subprocess::spec::{MAX_START_LIMIT, Spec};
use procman::telemetry::{Event, ProcessSample, Snapshot, Telemetry};

use crate::{golden, samples};

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/PROTOCOL.md")).unwrap()
}

/// The rows of a table, without its head.
fn table(name: &str) -> Vec<Vec<String>> {
    let document = document();
    let marker = format!("<!-- table: {name} -->\n");
    let (_, rest) = document.split_once(&marker).unwrap_or_else(|| panic!("there is no table {name:?}"));
    let rows: Vec<Vec<String>> = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "the table {name:?} is empty");
    rows
}

/// What stands between backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The only word in backticks of a cell.
fn word(cell: &str) -> String {
    let [word] = &code(cell)[..] else { panic!("{cell:?} should hold one word") };
    word.clone()
}

fn set<T: ToString>(words: impl IntoIterator<Item = T>) -> BTreeSet<String> {
    words.into_iter().map(|word| word.to_string()).collect()
}

fn first_column(name: &str) -> Vec<String> {
    table(name).iter().map(|row| word(&row[0])).collect()
}

fn listed<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(T::to_string).collect()
}

#[test]
fn closed_lists_are_listed() {
    assert_eq!(first_column("commands"), listed(CommandName::ALL));
    assert_eq!(first_column("errors"), listed(ErrorCode::ALL));
    assert_eq!(first_column("states"), listed(StateName::ALL));
    assert_eq!(first_column("causes"), listed(Cause::ALL));
    assert_eq!(first_column("policies"), listed(RestartPolicy::ALL));
    assert_eq!(first_column("wanted"), listed(Wanted::ALL));
    assert_eq!(first_column("events"), listed(EventName::ALL));
    assert_eq!(first_column("origins"), listed(Origin::ALL));
    assert_eq!(first_column("ended by"), listed(EndedBy::ALL));
    assert_eq!(first_column("registry health"), listed(RegistryHealth::ALL));
}

#[test]
fn each_role_may_give_the_commands_that_are_told() {
    for row in table("roles") {
        let role = Role::of(&word(&row[0])).unwrap();
        let commands = CommandName::ALL.iter().filter(|command| needed(**command) == role);
        assert_eq!(set(code(&row[1])), set(commands), "{role:?}");
    }
    assert_eq!(first_column("roles"), Role::ALL.map(|role| role.as_str().to_owned()));
}

#[test]
fn transitions_are_between_states() {
    let rows = table("transitions");
    let (from, to): (Vec<_>, Vec<_>) = rows.iter().map(|row| (code(&row[0]), vec![word(&row[2])])).unzip();
    for state in from.iter().chain(&to).flatten() {
        state.parse::<StateName>().unwrap();
    }
    assert_eq!(set(from.iter().flatten()), set(StateName::ALL), "every state can be left");
}

#[test]
fn limits_are_those_of_the_code() {
    let limits: Vec<String> = table("limits").iter().map(|row| word(&row[1])).collect();
    let name_length = (1..200).take_while(|length| "x".repeat(*length).parse::<Name>().is_ok()).count();
    let (bytes, seconds) = (DEFAULT_MAX_REQUEST_BYTES as u64, MAX_SECONDS as u64);
    assert_eq!(limits, listed(&[bytes, MAX_DEPTH as u64, name_length as u64, MAX_REQUEST_ID as u64, seconds]));
}

/// The arguments that a command takes, as it says itself when it is given another one.
fn arguments(command: CommandName) -> BTreeSet<String> {
    let frame = rmp_serde::to_vec_named(&json!({"command": command, "no_such_argument": 1})).unwrap();
    let message = decode_request(&frame).unwrap_err().error.message;
    let (_, expected) = message.split_once("unknown argument `no_such_argument`").unwrap_or_else(|| panic!("{message}"));
    set(code(expected))
}

#[test]
fn commands_take_the_arguments_and_give_the_results_that_are_told() {
    for row in table("commands") {
        let command: CommandName = word(&row[0]).parse().unwrap();
        let mut told = set(code(&row[1]));
        if command == CommandName::Register {
            // Its keys are those of the definition, which have a table of their own.
            assert!(told.remove("name") && told.remove("replace") && told.is_empty());
            told = set(Definition::KEYS);
        }
        assert_eq!(told, arguments(command), "arguments of {command}");
        assert_eq!(set(code(&row[2])), golden::reply_types(command), "results of {command}");
    }
}

#[test]
fn optional_arguments_are_told_as_such() {
    for row in table("commands") {
        let command: CommandName = word(&row[0]).parse().unwrap();
        let missing_is_refused = |argument: &str| {
            let sample = samples::requests().into_iter().map(|sample| sample.command);
            let mut least: Value = json!({"command": command});
            for sample in sample.filter(|sample| sample.name() == command) {
                let frame = procman::protocol::codec::encode_request(&sample, None).unwrap();
                let message: Value = rmp_serde::from_slice(&frame).unwrap();
                least.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
            }
            least.as_object_mut().unwrap().remove(argument);
            decode_request(&rmp_serde::to_vec_named(&least).unwrap()).is_err()
        };
        for argument in code(&row[1]) {
            // Which of name, group and all is said, is judged behind the decoder.
            let one_of_several = row[1].contains(" or ") && ["name", "group", "all"].contains(&argument.as_str());
            let optional = row[1].contains(&format!("*`{argument}`*")) || one_of_several;
            assert_eq!(missing_is_refused(&argument), !optional, "{command}: {argument}");
        }
    }
}

#[test]
fn details_are_told() {
    for row in table("errors") {
        let code_name = word(&row[0]);
        let errno_name = "ENOENT".to_owned(); // an example in brackets
        let told: BTreeSet<_> = set(code(&row[2])).into_iter().filter(|key| *key != errno_name).collect();
        let code = ErrorCode::ALL.iter().find(|code| code.as_str() == code_name).unwrap();
        assert_eq!(told, golden::detail_keys(*code), "details of {code_name}");
    }
}

/// Keys that hold a map from words to values, not a map with keys of its own.
const OPEN_MAPS: [&str; 3] = ["counts", "details", "env"];
/// Keys that hold a value of another type.
const OTHER_TYPES: [&str; 2] = ["daemon", "status"];

/// The keys of a map, those of inner maps with a dot.
fn keys(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, inner) in value.as_object().unwrap() {
        let closed = !OPEN_MAPS.contains(&key.as_str()) && !OTHER_TYPES.contains(&key.as_str());
        if inner.is_object() && closed {
            found.extend(keys(inner).into_iter().map(|inner| format!("{key}.{inner}")));
        } else {
            found.insert(key.clone());
        }
    }
    found
}

/// What stands at a key, dots included.
fn at<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    key.split('.').fold(value, |value, part| &mut value[part])
}

/// Whether a value is of the type that the document tells.
fn is_told(value: &Value, told: &str) -> bool {
    if let Some(inner) = told.strip_suffix(" or null") {
        return value.is_null() || is_told(value, inner);
    }
    match told {
        "str" => value.is_string(),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_f64(),
        "bool" => value.is_boolean(),
        "{str: int}" => value.as_object().is_some_and(|map| map.values().all(|value| is_told(value, "int"))),
        "ProcessStatus" | "ViewWithStatus" | "Event" | "map" => value.is_object(),
        list => match list.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => value.as_array().is_some_and(|values| values.iter().all(|value| is_told(value, inner))),
            None => panic!("{told:?} is no type"),
        },
    }
}

/// The table of a type against a sample of it in which nothing is null.
fn check_type<T: Serialize + DeserializeOwned + Debug>(name: &str, sample: &T) {
    let frame = encode_result(sample, None).unwrap();
    let reply: Value = rmp_serde::from_slice(&frame).unwrap();
    let sample = &reply["result"];
    let rows = table(&format!("type {name}"));
    assert_eq!(set(rows.iter().map(|row| word(&row[0]))), keys(sample), "keys of {name}");
    for row in rows {
        let (key, told) = (word(&row[0]), row[1].as_str());
        let mut changed = sample.clone();
        let value = at(&mut changed, &key);
        assert!(is_told(value, told), "{name}.{key} is told to be {told}, and is {value}");
        *value = Value::Null;
        let null_is_allowed = serde_json::from_value::<T>(changed).is_ok();
        assert_eq!(null_is_allowed, told.ends_with(" or null"), "{name}.{key} is told to be {told}");
    }
}

#[test]
fn types_have_the_keys_that_are_told() {
    check_type("View", &View { log_problem: Some("x".into()), cgse: Some(samples::cgse_entry()), ..samples::later_view() });
    check_type("LogLines", &samples::log_lines());
    check_type("ProcessStatus", &samples::counted_status());
    check_type(
        "StatusOfAll",
        &StatusOfAll {
            store_problem: Some("x".into()),
            registry_problem: Some("x".into()),
            notify_hub_problem: Some("x".into()),
            metrics_hub_problem: Some("x".into()),
            ..samples::status_of_all()
        },
    );
    check_type("Executed", &samples::executed());
    check_type("Ended", &samples::ended());
    check_type("Signalled", &samples::signalled());
    check_type("Unregistered", &samples::unregistered());
    check_type("Pong", &samples::pong());
    check_type("Info", &samples::info_in_cgse());
    check_type("Replay", &samples::replay());
    check_type("StateChanged", &samples::state_changed());
    check_type("Noted", &samples::noted());
    check_type("PastRun", &samples::past_run());
    check_type("AuditEntry", &samples::audit_entry());
    check_type("Reloaded", &samples::reloaded());
    check_type("HostProcess", &samples::host_process());
    check_type("HostProcessInfo", &samples::host_process_info());
    check_type("NamedProcess", &samples::named_process());
    let (view, status) = (samples::view(), Some(samples::status()));
    let mut with_status = keys(&serde_json::to_value(ViewWithStatus { view: view.clone(), status }).unwrap());
    assert!(with_status.remove("status"));
    assert_eq!(with_status, keys(&serde_json::to_value(view).unwrap()));
}

#[test]
fn every_type_that_is_named_is_described() {
    let document = document();
    for row in table("commands") {
        for told in code(&row[2]) {
            let name = told.trim_matches(['[', ']']);
            let described = document.contains(&format!("<!-- table: type {name} -->")) || document.contains(&format!("`{name}` is a"));
            assert!(described || matches!(name, "int" | "bool" | "int or null"), "{name}");
        }
    }
}

#[test]
fn the_definition_has_the_keys_and_defaults_that_are_told() {
    let rows = table("definition");
    let parts = |key: &str| -> Vec<String> {
        let below: &[&str] = match key {
            "backoff" => &["initial", "factor", "max", "jitter", "reset_after"],
            "start_limit" => &["count", "interval"],
            "log" => &["max_size", "keep", "compress", "max_age"],
            "limits" => LimitsDefinition::KEYS,
            "ready" => ReadyDefinition::KEYS,
            "health" => HealthDefinition::KEYS,
            "stop_request" => StopRequestDefinition::KEYS,
            _ => return vec![key.to_owned()],
        };
        below.iter().map(|part| format!("{key}.{part}")).collect()
    };
    assert_eq!(set(rows.iter().flat_map(|row| code(&row[0]))), set(Definition::KEYS.iter().flat_map(|key| parts(key))));
    let resolve = |definition: &Value| Spec::resolve(samples::name("x"), serde_json::from_value(definition.clone()).unwrap()).unwrap();
    for row in rows.iter().filter(|row| !row[1].is_empty()) {
        // What says who is asked has no default itself, but the others go with it.
        let least = match code(&row[0])[0].split_once('.') {
            Some((table @ ("ready" | "health"), "socket" | "frames" | "expect")) => json!({"cmd": ["true"], table: {"zmq": "tcp://a:1"}}),
            Some((table @ ("ready" | "health"), _)) => json!({"cmd": ["true"], table: {"tcp": "a:1"}}),
            Some(("stop_request", "socket" | "frames")) => json!({"cmd": ["true"], "stop_request": {"zmq": "tcp://a:1", "frames": ["x"]}}),
            Some(("stop_request", _)) => json!({"cmd": ["true"], "stop_request": {"exec": ["true"]}}),
            _ => json!({"cmd": ["true"]}),
        };
        for (key, default) in code(&row[0]).iter().zip(code(&row[1])) {
            let mut said = least.clone();
            *at(&mut said, key) = serde_json::from_str(&default).unwrap();
            assert_eq!(resolve(&said), resolve(&least), "{row:?}");
        }
    }
    for (key, has_none) in [("group", true), ("cwd", true), ("user", true), ("cmd", true), ("stop_timeout", false)] {
        assert_eq!(rows.iter().find(|row| code(&row[0]) == [key]).unwrap()[1].is_empty(), has_none, "{key}");
    }
    assert!(rows.iter().any(|row| row[2].contains(&format!("at most {MAX_START_LIMIT};"))));
}

/// Type, help and labels of every family on a page.
fn families(page: &str) -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>, String)> = BTreeMap::new();
    let mut last = String::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            assert!(found.insert(name.to_owned(), (String::new(), BTreeSet::new(), help.to_owned())).is_none(), "{name} is there twice");
            last = name.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            assert_eq!(name, last);
            found.get_mut(name).unwrap().0 = kind.to_owned();
        } else {
            assert!(line.starts_with(&last), "{line}");
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            found.get_mut(&last).unwrap().1.extend(names.filter(|name| name != "le"));
        }
    }
    found
}

#[test]
fn metric_families_are_those_of_a_page() {
    let telemetry = Telemetry::new().unwrap();
    telemetry.emit(Event::RequestServed { command: None, error: None, duration: Duration::from_millis(1), request_id: None });
    telemetry.emit(Event::HubServed { hub: "notify", sent: 1, dropped: 1 });
    let view = View { cgse: Some(samples::cgse_entry()), ..samples::view() };
    let status = Some(Arc::new(samples::status()));
    let sample = ProcessSample { view, status: status.clone(), starts: 3, exits: vec![(Cause::Signal, 2)] };
    let source = move || Snapshot { daemon: status.clone(), processes: vec![sample.clone()] };
    let page = telemetry.exporter("", Arc::new(source)).unwrap().render().unwrap();
    let told = table("metrics").into_iter().map(|row| (word(&row[0]), (row[1].clone(), set(code(&row[2])), row[3].clone())));
    assert_eq!(told.collect::<BTreeMap<_, _>>(), families(&page));
}

/// A daemon that knows one answer.
fn answer_one_ping() -> (String, std::thread::JoinHandle<Vec<Vec<u8>>>) {
    let socket = zmq::Context::new().socket(zmq::ROUTER).unwrap();
    socket.set_rcvtimeo(20_000).unwrap();
    socket.set_linger(5_000).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    let thread = std::thread::spawn(move || {
        let request = socket.recv_multipart(0).unwrap();
        let reply = encode_result(&samples::pong(), None).unwrap();
        socket.send_multipart([&request[0][..], b"", &reply], 0).unwrap();
        request
    });
    (endpoint, thread)
}

#[test]
fn the_example_in_python_works() {
    let document = document();
    let example = document.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    let (endpoint, daemon) = answer_one_ping();
    let python = Process::new("/usr/bin/python3").args(["-c", example]).env("PROCMAN_ENDPOINT", endpoint).output();
    let output = python.expect("/usr/bin/python3 is needed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!error.contains("No module named"), "apt-get install python3-zmq python3-msgpack\n{error}");
    assert!(output.status.success(), "{error}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{'pong': True, 'time': 1795335514.25}\n");
    let request = daemon.join().unwrap();
    assert_eq!((request.len(), request[1].len()), (3, 0), "identity, delimiter, body");
    assert_eq!(decode_request(&request[2]).unwrap().command.name(), CommandName::Ping);
}
