//! Who may know whom, held against the `use` lines and `crate::` paths of every file in `src`. Code for tests is exempt.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use source::Source;

/// Whom a room may know, besides `protocol`, which everybody may.
#[derive(Clone, Debug, PartialEq, Eq)]
enum May {
    /// These rooms, or a part of one.
    Know(Vec<&'static str>),
    /// All but these.
    KnowAllBut(Vec<&'static str>),
}

/// The rule. `src/lib.rs` says the same to people.
fn rule() -> BTreeMap<&'static str, May> {
    let know = |rooms: &[&'static str]| May::Know(rooms.to_vec());
    BTreeMap::from([
        ("protocol", know(&[])),
        ("sys", know(&[])),
        ("access", know(&["sys::curve"])),
        ("procfs", know(&[])),
        ("host", know(&["procfs"])),
        ("status", know(&["procfs", "sys"])),
        ("output", know(&["sys"])),
        ("subprocess", know(&["status", "procfs", "sys", "output"])),
        ("supervisor", know(&["subprocess", "procfs", "sys"])),
        ("probe", know(&["subprocess::spec", "subprocess::vigil", "sys", "cgse"])),
        ("cgse", know(&["sys"])),
        ("store", know(&["sys::crash"])),
        ("config", know(&["access", "subprocess::spec", "supervisor::order"])),
        ("telemetry", know(&[])),
        ("control", know(&["access", "supervisor", "subprocess", "status", "host", "procfs", "sys", "output"])),
        ("daemon", May::KnowAllBut(vec!["client"])),
        ("client", know(&["access", "protocol", "config"])),
    ])
}

/// What the programs may know: they are a paragraph each.
const PROGRAMS: [(&str, &[&str]); 2] = [("procmand", &["access", "daemon", "config", "telemetry"]), ("procmanctl", &["client"])];

/// What a room or a file must not mention, and why not.
const FORBIDDEN: [(&[&str], &[&str], &str); 4] = [
    (
        &["subprocess/", "supervisor/"],
        // `zmq` alone is the key of a definition.
        &["zmq::", "rmp", "rmp_serde", "prometheus", "rusqlite", "hyper"],
        "processes are supervised whatever comes in and goes out by which door",
    ),
    (
        &["subprocess/machine/", "subprocess/restart.rs", "subprocess/spec/", "supervisor/order", "supervisor/plan"],
        &["tokio", "SystemTime", "Instant::now", "elapsed", "thread", "fs", "tracing", "nix", "libc", "async"],
        "what is decided is decided purely: time and events are arguments",
    ),
    (
        &["output/plan.rs", "output/lines.rs"],
        &["tokio", "SystemTime", "Instant", "thread", "fs", "io", "libc"],
        "what is decided is decided purely",
    ),
    (&["protocol/"], &["tokio", "zmq::", "nix", "libc", "tracing"], "the words both sides say need no system"),
];

/// The part of `path` that a permission is about: `subprocess::spec` of `subprocess::spec::Spec`.
fn begins_with(path: &[String], permission: &str) -> bool {
    permission.split("::").enumerate().all(|(at, word)| path.get(at).is_some_and(|part| part == word))
}

/// Every path of these files that the rule does not allow.
fn violations(sources: &[Source]) -> Vec<String> {
    let rule = rule();
    let mut found = Vec::new();
    for source in sources {
        let Some(may) = rule.get(source.room()) else { continue };
        for path in source.paths("crate") {
            let to = path.first().map(String::as_str).unwrap_or_default();
            let allowed = to == source.room()
                || to == "protocol" && source.room() != "protocol"
                || match may {
                    May::Know(rooms) => rooms.iter().any(|permission| begins_with(&path, permission)),
                    May::KnowAllBut(rooms) => rule.contains_key(to) && !rooms.contains(&to),
                };
            if !allowed {
                found.push(format!("src/{}: {} may not know crate::{}", source.path, source.room(), path.join("::")));
            }
        }
        if source.climbs() >= source.depth() {
            found.push(format!("src/{}: leaves its room by `super`; say `crate::` so that it can be seen", source.path));
        }
    }
    found
}

#[test]
fn no_room_knows_whom_it_may_not() {
    let sources = source::read_all();
    assert!(sources.len() > 50 && sources.iter().all(|source| !source.path.ends_with("tests.rs")), "the sources were not read");
    let found = violations(&sources);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_violation_is_found() {
    let violations = |path: &str, text| violations(&[Source { path: path.into(), tokens: source::tokens(text) }]).len();
    assert_eq!(violations("config/load.rs", "use crate::subprocess::{spec::Spec, Launch};"), 1);
    assert_eq!(violations("protocol/names.rs", "use crate::sys;"), 1);
    assert_eq!(violations("daemon/run.rs", "use crate::{client, nowhere, control::Service};"), 2);
    assert_eq!(violations("supervisor/mod.rs", "use super::control::Service;"), 1);
    assert_eq!(violations("supervisor/leave.rs", "use super::SupervisorHandle; use crate::protocol::Name;"), 0);
    assert_eq!(violations("supervisor/leave.rs", "super::super::control::f()"), 1);
}

#[test]
fn the_map_says_the_rule() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let words = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut written = BTreeMap::new();
    for line in map.lines().filter(|line| line.starts_with("//! | [`")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, room, who, whom, _] = cells[..] else { panic!("not three columns: {line}") };
        assert!(!who.is_empty(), "{line}");
        written.insert(words(room).concat(), (whom.starts_with("all of them but "), words(whom), whom.to_owned()));
    }
    let rule = rule();
    assert_eq!(written.keys().collect::<Vec<_>>(), rule.keys().collect::<Vec<_>>(), "the rooms of the map and of the rule");
    for (room, may) in rule {
        let (all_but, rooms, cell) = &written[room];
        let expected = match &may {
            May::Know(rooms) => (false, rooms),
            May::KnowAllBut(rooms) => (true, rooms),
        };
        assert_eq!((*all_but, rooms), (expected.0, &expected.1.iter().map(ToString::to_string).collect()), "{room}: {cell}");
        assert!(!rooms.is_empty() || cell == "nobody", "{room}: {cell}");
    }
    // Every room is on the map, and every module is a room.
    let modules: Vec<&str> = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(written.keys().collect::<Vec<_>>(), modules, "the modules of src/lib.rs");
}

#[test]
fn the_programs_are_thin() {
    let sources = source::read_all();
    for (program, rooms) in PROGRAMS {
        let source = sources.iter().find(|source| source.path == format!("bin/{program}.rs")).unwrap();
        let paths = source.paths("procman");
        assert!(!paths.is_empty());
        for path in paths {
            assert!(rooms.iter().any(|room| begins_with(&path, room)), "{program} may not know procman::{}", path.join("::"));
        }
    }
    assert_eq!(sources.iter().filter(|source| source.room() == "bin").count(), PROGRAMS.len(), "a program without a rule");
}

#[test]
fn only_sys_is_unsafe() {
    let sources = source::read_all();
    let (sys, others): (Vec<_>, Vec<_>) =
        sources.iter().filter(|source| source.mentions("unsafe")).partition(|source| source.room() == "sys");
    assert!(!sys.is_empty(), "the word was not found where it is");
    assert!(others.is_empty(), "{:?}", others.iter().map(|source| &source.path).collect::<Vec<_>>());
}

#[test]
fn some_words_are_foreign_to_some_rooms() {
    let sources = source::read_all();
    for (places, words, why) in FORBIDDEN {
        for place in places {
            let of_place: Vec<_> = sources.iter().filter(|source| source.path.starts_with(place)).collect();
            assert!(!of_place.is_empty(), "nothing lies at src/{place}: it has moved, and this rule with it");
            for source in of_place {
                let found: Vec<_> = words.iter().filter(|word| source.mentions(word)).collect();
                assert!(found.is_empty(), "src/{} mentions {found:?}: {why}", source.path);
            }
        }
    }
}
