//! What the room promises, on scratch directories.

mod damage;
mod killed;
mod model;
mod speed;
mod trouble;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::bounds::Bounds;
use super::*;
use crate::protocol::definition::Definition;
use crate::protocol::reply::{AuditEntry, PastRun};
use crate::protocol::{Cause, EndedBy, Name, Origin, StateName, Wanted};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn run(uuid: &str, of: &str) -> RunRow {
    RunRow {
        uuid: uuid.into(),
        name: name(of),
        args: vec!["a b".into(), "ü\n\u{0}".into()],
        env: BTreeMap::from([("KEY".into(), "secret".into())]),
        started_by: Origin::Execute,
        boot_id: "boot".into(),
        intended_at: 1_764_000_000.123_456_7,
        monotonic: 1 << 50,
        start_sum: Some(u64::MAX),
        process: None,
        ready: false,
        ending: None,
    }
}

fn process(pid: u32) -> ProcessRow {
    ProcessRow { pid, start_time: u64::MAX, started_at: 0.1 + 0.2, monotonic: 1 << 60, notify: true }
}

fn past(uuid: &str, of: &str) -> PastRun {
    PastRun {
        name: name(of),
        uuid: uuid.into(),
        pid: Some(7),
        args: vec!["x".into()],
        started_at: 1.1,
        ended_at: 2.2,
        duration: 1.1,
        returncode: Some(-9),
        signal: Some(9),
        cause: Cause::Signal,
        core_dump: false,
        started_by: Origin::Policy,
        ended_by: EndedBy::Itself,
        message: None,
    }
}

fn standing(of: &str, restarts: u64) -> StandingRow {
    StandingRow { name: name(of), state: StateName::Backoff, wanted: Wanted::Up, restarts, attempt: 3, scheduled: Some(1.5) }
}

fn definition(word: &str) -> Definition {
    Definition { cmd: Some(vec!["sleep".into(), word.into()]), ..Definition::default() }
}

fn entry(command: &str, target: Option<&str>) -> AuditEntry {
    AuditEntry {
        time: 3.3,
        principal: "admin".into(),
        endpoint: "ipc:///run/x".into(),
        peer: None,
        command: command.into(),
        target: target.map(str::to_owned),
        request_id: Some("1".into()),
        outcome: "ok".into(),
        message: None,
    }
}

/// A notice, as owned text: `trouble …`, `healed 1 2`, `aside …`.
#[derive(Debug)]
struct Told(Mutex<Sender<String>>);

impl Watcher for Told {
    fn notice(&self, notice: &Notice<'_>) {
        let text = match notice {
            Notice::Trouble { problem } => format!("trouble {problem}"),
            Notice::Healed { lost_audit, lost_history } => format!("healed {lost_audit} {lost_history}"),
            Notice::SetAside { set_aside } => format!("aside {}", set_aside.problem),
        };
        drop(self.0.lock().unwrap().send(text));
    }
}

fn watcher() -> (Arc<Told>, Receiver<String>) {
    let (sender, receiver) = channel();
    (Arc::new(Told(Mutex::new(sender))), receiver)
}

fn open(dir: &Path) -> Opened {
    Store::open(dir, watcher().0).unwrap()
}

fn commands(store: &Store) -> Vec<String> {
    store.audit_log(None, usize::MAX).unwrap().into_iter().map(|entry| entry.command).collect()
}

#[test]
fn what_was_handed_over_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, recovered } = open(dir.path());
    assert_eq!(recovered, Recovered { fresh: true, ..Recovered::default() });
    store.define(&name("a"), &definition("1")).wait(LONG).unwrap();
    store.define(&name("b"), &definition("2")).wait(LONG).unwrap();
    store.undefine(&name("b")).wait(LONG).unwrap();
    for uuid in ["u1", "u2", "u3"] {
        store.begin(run(uuid, "a")).wait(LONG).unwrap();
    }
    store.change("u1", RunChange::Started(process(1)));
    store.change("u1", RunChange::MainMoved { pid: 2, start_time: 3 });
    store.change("u1", RunChange::Ready(true));
    store.change("u1", RunChange::Ending(Some(EndingRow { by: EndedBy::Quit, then_start: true })));
    store.change("nobody", RunChange::Ready(true));
    store.end(&past("u2", "a"));
    store.end(&PastRun { pid: None, ..past("u2", "a") });
    drop(store.forget("u2"));
    drop(store.forget("u3"));
    store.stand(standing("a", 1));
    store.stand(standing("a", u64::MAX));
    store.stand(standing("b", 1));
    store.unstand(&name("b"));
    let begun = AnswerRow { key: "k".into(), hash: u64::MAX, boot_id: "now".into(), monotonic: 7, time: 1.5, answer: None };
    let refused = AnsweredRow::Refused(crate::protocol::WireError::bad_request("no").with("pid", 7).with("name", "a"));
    store.answer(begun.clone()).wait(LONG).unwrap();
    let answered = AnswerRow { answer: Some(AnsweredRow::Done("00ff".into())), ..begun.clone() };
    drop(store.answer(answered.clone()));
    drop(store.answer(AnswerRow { key: "gone".into(), ..begun.clone() }));
    store.forget_answer("gone");
    let refused = AnswerRow { key: "r".into(), answer: Some(refused), ..begun };
    drop(store.answer(refused.clone()));
    store.audit(&entry("quit", Some("a")));
    store.audit(&entry("execute", None));
    assert_eq!(store.audit_log(None, 9).unwrap(), [entry("execute", None), entry("quit", Some("a"))]);
    assert_eq!(store.audit_log(Some(&name("a")), 9).unwrap(), [entry("quit", Some("a"))]);
    assert_eq!(commands(&store), ["execute", "quit"]);
    assert!(store.audit_log(None, 0).unwrap().is_empty());
    assert_eq!(store.problem(), None);
    store.close(Farewell::Kept);
    assert!(store.begin(run("late", "a")).wait(LONG).is_err());
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["procman.db"], "one file is left");

    let Opened { store, recovered } = open(dir.path());
    let moved = ProcessRow { pid: 2, start_time: 3, ..process(1) };
    let ending = Some(EndingRow { by: EndedBy::Quit, then_start: true });
    let expected = Recovered {
        boot_id: None,
        definitions: vec![(name("a"), definition("1"))],
        runs: vec![RunRow { process: Some(moved), ready: true, ending, ..run("u1", "a") }],
        standings: vec![standing("a", u64::MAX)],
        history: vec![past("u2", "a")],
        answers: vec![answered, refused],
        farewell: Some(Farewell::Kept),
        set_aside: None,
        fresh: false,
    };
    assert_eq!(recovered, expected);
    store.close(Farewell::Quit);
    assert_eq!(open(dir.path()).recovered.farewell, Some(Farewell::Quit));
    // Nobody has said good-bye since.
    // One that is killed before it has taken everything over is followed by another that must know, too.
    let opened = open(dir.path());
    assert_eq!(opened.recovered, Recovered { farewell: Some(Farewell::Quit), ..expected.clone() });
    opened.store.boot("boot").wait(LONG).unwrap();
    drop(opened);
    assert_eq!(open(dir.path()).recovered, Recovered { farewell: None, boot_id: Some("boot".into()), ..expected });
}

#[test]
fn secrets_are_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).store;
    store.begin(run("u", "a")).wait(LONG).unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
    store.close(Farewell::Quit);
    let path = dir.path().join("procman.db");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = open(dir.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn an_acknowledgement_can_be_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).store;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.begin(run("u", "a"))).unwrap();
    runtime.block_on(store.define(&name("a"), &definition("1"))).unwrap();
    runtime.block_on(store.flush()).unwrap();
    store.close(Farewell::Quit);
}

#[test]
fn the_table_keeps_what_the_cache_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { of_one: 2, of_all: 3, bytes: 1 << 20 };
    let store = Store::open_bounded(dir.path(), watcher().0, bounds).unwrap().store;
    for (at, of) in ["a", "a", "a", "b", "c"].iter().enumerate() {
        store.end(&past(&at.to_string(), of));
    }
    store.close(Farewell::Quit);
    let uuids = |bounds| {
        let opened = Store::open_bounded(dir.path(), watcher().0, bounds).unwrap();
        opened.store.close(Farewell::Quit);
        opened.recovered.history.into_iter().map(|run| run.uuid).collect::<Vec<_>>()
    };
    assert_eq!(uuids(bounds), ["2", "3", "4"]);
    // Narrower bounds of a later daemon push out what does not fit any more.
    assert_eq!(uuids(Bounds { of_all: 2, ..bounds }), ["3", "4"]);
    assert_eq!(uuids(Bounds::default()), ["3", "4"]);
    let cache = InMemory::default();
    let store = open(dir.path());
    cache.fill(store.recovered.history);
    assert_eq!(cache.query(None, 9).iter().map(|run| run.uuid.as_str()).collect::<Vec<_>>(), ["4", "3"]);
}

mod migrations {
    use super::super::schema::{APPLICATION_ID, NEWEST, STEPS, migrate};
    use super::*;
    use rusqlite::Connection;

    fn connection(dir: &Path) -> Connection {
        let connection = Connection::open(dir.join("procman.db")).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection
    }

    #[test]
    fn every_former_schema_becomes_the_newest() {
        for former in 1..=STEPS.len() {
            let dir = tempfile::tempdir().unwrap();
            migrate(&mut connection(dir.path()), 0, &STEPS[..former]).unwrap();
            let opened = open(dir.path());
            assert_eq!(opened.recovered, Recovered::default(), "from {former}");
            opened.store.begin(run("u", "a")).wait(LONG).unwrap();
            opened.store.close(Farewell::Quit);
            let version: i64 = connection(dir.path()).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(version, NEWEST);
        }
    }

    #[test]
    fn a_former_schema_can_be_read_where_nothing_can_be_written() {
        for former in 1..=STEPS.len() {
            let dir = tempfile::tempdir().unwrap();
            migrate(&mut connection(dir.path()), 0, &STEPS[..former]).unwrap();
            let contents = database::peek(&dir.path().join("procman.db")).unwrap();
            assert_eq!(contents.rows(), 0, "from {former}");
        }
    }

    #[test]
    fn a_step_is_done_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = connection(dir.path());
        migrate(&mut connection, 0, STEPS).unwrap();
        let mut steps = STEPS.to_vec();
        steps.push("CREATE TABLE good (a TEXT)");
        steps.push("CREATE TABLE half (a TEXT); CREATE TABLE runs (a TEXT)");
        migrate(&mut connection, NEWEST, &steps).unwrap_err();
        let number = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("PRAGMA user_version"), NEWEST + 1, "the step before stays");
        assert_eq!(number("SELECT count(*) FROM sqlite_schema WHERE name = 'half'"), 0);
        assert_eq!(number("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'schema'"), NEWEST + 1);
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).store.close(Farewell::Kept);
        let mut steps = STEPS.to_vec();
        steps.push("ALTER TABLE runs RENAME TO something_else");
        migrate(&mut connection(dir.path()), NEWEST, &steps).unwrap();
        let before = std::fs::read(dir.path().join("procman.db")).unwrap();
        let error = Store::open(dir.path(), watcher().0).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version, newest: NEWEST, .. } if version == NEWEST + 1), "{error}");
        let text = error.to_string();
        let (version, newest) = (format!("schema {}", NEWEST + 1), format!("knows is {NEWEST};"));
        for part in ["procman.db", version.as_str(), newest.as_str(), "newer daemon", "move the file away"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert_eq!(std::fs::read(dir.path().join("procman.db")).unwrap(), before);
    }

    #[test]
    fn it_says_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).store.close(Farewell::Kept);
        let id: i32 = connection(dir.path()).pragma_query_value(None, "application_id", |row| row.get(0)).unwrap();
        assert_eq!(id, APPLICATION_ID);
    }
}
