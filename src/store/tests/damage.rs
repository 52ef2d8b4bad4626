//! Files that are not what was written.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;

/// A database with something in every table, over some pages; and how it is when the daemon was killed: with a write-ahead log.
struct Sample {
    closed: Vec<u8>,
    killed: [Vec<u8>; 2],
    recovered: Recovered,
}

fn sample() -> &'static Sample {
    static SAMPLE: std::sync::OnceLock<Sample> = std::sync::OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("procman.db");
        let store = open(dir.path()).store;
        for at in 0..20 {
            let (of, text) = (format!("name-{at}"), at.to_string());
            store.define(&name(&of), &definition(&text)).wait(LONG).unwrap();
            store.begin(run(&format!("run-{at}"), &of)).wait(LONG).unwrap();
            store.stand(standing(&of, at));
            (0..5).for_each(|past_run| store.end(&past(&format!("past-{at}-{past_run}"), &of)));
            store.audit(&entry("quit", Some(&of)));
        }
        store.flush().wait(LONG).unwrap();
        let killed = ["", "-wal"].map(|side| fs::read(file::beside(&path, side)).unwrap());
        store.close(Farewell::Kept);
        let closed = fs::read(&path).unwrap();
        let opened = open(dir.path());
        opened.store.close(Farewell::Kept);
        Sample { closed, killed, recovered: opened.recovered }
    })
}

/// Where databases were set aside.
fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_aside = |path: &PathBuf| {
        let text = path.to_string_lossy();
        text.contains(".damaged-") && !text.ends_with("-wal") && !text.ends_with("-shm")
    };
    let mut found: Vec<_> = paths.filter(is_aside).collect();
    found.sort();
    found
}

/// A change of a file: a byte that is flipped, or an end that is cut off.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![4 => (index(), 1_u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)), 1 => index().prop_map(Damage::Cut)]
}

impl Damage {
    fn inflict(&self, bytes: &mut Vec<u8>) {
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

/// It can be used, and keeps what it is given.
fn works(dir: &Path) -> Recovered {
    let opened = open(dir);
    opened.store.begin(run("new", "a")).wait(LONG).unwrap();
    opened.store.audit(&entry("new", None));
    assert_eq!(commands(&opened.store)[0], "new");
    opened.store.close(Farewell::Quit);
    let again = open(dir);
    assert!(again.recovered.runs.contains(&run("new", "a")) && again.recovered.set_aside.is_none(), "{:?}", again.recovered);
    again.store.close(Farewell::Quit);
    opened.recovered
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_noticed(wounds in prop::collection::vec(damage(), 1..4), in_header in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = sample().closed.clone();
        let tail = if in_header { bytes.split_off(120) } else { Vec::new() };
        wounds.iter().for_each(|wound| wound.inflict(&mut bytes));
        bytes.extend(tail);
        fs::write(dir.path().join("procman.db"), &bytes).unwrap();
        let recovered = works(dir.path());
        prop_assert_eq!(recovered.set_aside.is_some(), set_aside(dir.path()).len() == 1);
        if recovered.set_aside.is_none() {
            // A byte that nobody reads.
            prop_assert_eq!(&recovered, &sample().recovered);
        } else {
            // What was saved was there.
            let sound = &sample().recovered;
            prop_assert!(recovered.runs.iter().all(|row| sound.runs.contains(row)));
            prop_assert!(recovered.definitions.iter().all(|row| sound.definitions.contains(row)));
            prop_assert!(recovered.history.iter().all(|row| sound.history.contains(row)));
        }
    }

    #[test]
    fn damage_of_a_killed_daemons_files_is_survived(wound in damage(), where_in in 0_usize..2) {
        let dir = tempfile::tempdir().unwrap();
        let mut files = sample().killed.clone();
        wound.inflict(&mut files[where_in]);
        for (side, bytes) in ["", "-wal"].iter().zip(&files) {
            fs::write(dir.path().join(format!("procman.db{side}")), bytes).unwrap();
        }
        let recovered = works(dir.path());
        // A write-ahead log that is cut off ends with the last whole commit: that is an older state, and sound.
        let sound = &sample().recovered;
        prop_assert!(recovered.definitions.iter().all(|row| sound.definitions.contains(row)));
        prop_assert!(recovered.history.iter().all(|row| sound.history.contains(row)));
    }
}

#[test]
fn a_row_with_another_text_is_damage_and_the_others_are_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("procman.db");
    for (sql, lost) in [
        ("UPDATE definitions SET body = replace(body, 'sleep', 'sheep') WHERE name = 'name-3'", "definitions"),
        ("UPDATE runs SET uuid = 'other' WHERE uuid = 'run-3'", "runs"),
        ("UPDATE standings SET body = '{}', sum = 645223143103797797 WHERE name = 'name-3'", "standings"),
        ("UPDATE history SET body = 'nonsense' WHERE uuid = 'past-3-3'", "history"),
    ] {
        fs::write(&path, &sample().closed).unwrap();
        let connection = Connection::open(&path).unwrap();
        assert_eq!(connection.execute(sql, ()).unwrap(), 1);
        connection.close().unwrap();
        let Opened { store, recovered } = open(dir.path());
        let aside = recovered.set_aside.unwrap();
        assert!(aside.problem.contains(lost), "{}", aside.problem);
        assert_eq!((aside.salvaged, aside.unreadable), (179, 1));
        let sound = &sample().recovered;
        let lengths = |of: &Recovered| [of.definitions.len(), of.runs.len(), of.standings.len(), of.history.len()];
        let sizes = [recovered.definitions.len(), recovered.runs.len(), recovered.standings.len(), recovered.history.len()];
        assert_eq!(sizes.iter().sum::<usize>() + 1, lengths(sound).iter().sum::<usize>());
        assert_eq!(commands(&store).len(), 20, "the audit trail has moved");
        store.close(Farewell::Quit);
    }
    // Each has a name of its own, however fast they come.
    let aside = set_aside(dir.path());
    assert_eq!(aside.len(), 4, "{aside:?}");
    assert!(aside[0].to_string_lossy().contains("procman.db.damaged-2"), "{aside:?}");
}

#[test]
fn what_is_not_ours_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("procman.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE runs (uuid TEXT)").unwrap();
    connection.close().unwrap();
    let before = fs::read(&path).unwrap();
    let aside = works(dir.path()).set_aside.unwrap();
    assert!(aside.problem.contains("not a database of procman"), "{}", aside.problem);
    assert_eq!(fs::read(&aside.path).unwrap(), before);

    for text in ["", "not a database at all, but long enough to be looked at as one, which begins with a header of 100 bytes, they say"] {
        fs::write(&path, text).unwrap();
        let recovered = works(dir.path());
        assert!(recovered.set_aside.is_some() && recovered.runs.is_empty(), "{recovered:?}");
    }
}

#[test]
fn a_write_ahead_log_without_its_database_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("procman.db-wal"), &sample().killed[1]).unwrap();
    let aside = works(dir.path()).set_aside.unwrap();
    assert!(aside.problem.contains("it is gone"), "{}", aside.problem);
    assert_eq!(fs::read(format!("{}-wal", aside.path.display())).unwrap(), sample().killed[1]);
}

#[test]
fn a_crash_amid_setting_aside_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The damaged one is away, its write-ahead log not yet; the new one is made and not yet in its place.
    fs::write(dir.path().join("procman.db-wal"), &sample().killed[1]).unwrap();
    fs::write(dir.path().join("procman.db.new"), &sample().closed).unwrap();
    let recovered = works(dir.path());
    assert_eq!(Recovered { farewell: Some(Farewell::Kept), ..recovered }, Recovered { set_aside: None, ..sample().recovered.clone() });
    // One that is half made is none.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("procman.db.new"), &sample().closed[..10]).unwrap();
    assert!(works(dir.path()).fresh);
    assert!(!dir.path().join("procman.db.new").exists());
}

#[test]
fn damage_in_use_is_healed_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("procman.db");
    let (told, notices) = watcher();
    let store = Store::open(dir.path(), told).unwrap().store;
    store.define(&name("a"), &definition("1")).wait(LONG).unwrap();
    store.begin(run("u", "a")).wait(LONG).unwrap();
    store.end(&past("v", "a"));
    store.flush().wait(LONG).unwrap();
    Connection::open(&path).unwrap().execute_batch("DROP TABLE runs").unwrap();
    store.begin(run("w", "a")).wait(LONG).unwrap_err();
    let next = || notices.recv_timeout(LONG).unwrap();
    assert!(next().starts_with("trouble "));
    assert!(next().starts_with("aside "));
    assert_eq!(next(), "healed 0 0");
    store.begin(run("x", "a")).wait(LONG).unwrap();
    store.close(Farewell::Kept);
    let recovered = works(dir.path());
    assert_eq!(recovered.runs.iter().map(|run| run.uuid.as_str()).collect::<Vec<_>>(), ["u", "w", "x"]);
    assert_eq!((recovered.definitions.len(), recovered.history.len()), (1, 1));
    assert_eq!(set_aside(dir.path()).len(), 1);
}
