//! Disks that do not do what they should.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rusqlite::{Connection, TransactionBehavior};

use super::super::desk::{Exchange, Level};
use super::super::mirror::Mirror;
use super::super::sentinel::Sentinel;
use super::*;

fn next(notices: &Receiver<String>) -> String {
    notices.recv_timeout(LONG).unwrap()
}

/// A store with a bit of everything, and what it tells.
fn filled(dir: &Path) -> (Store, Receiver<String>) {
    let (told, notices) = watcher();
    let store = Store::open(dir, told).unwrap().store;
    store.define(&name("a"), &definition("1")).wait(LONG).unwrap();
    store.begin(run("u", "a")).wait(LONG).unwrap();
    store.stand(standing("a", 1));
    store.end(&past("v", "a"));
    store.audit(&entry("before", None));
    store.flush().wait(LONG).unwrap();
    (store, notices)
}

/// What is handed over in the middle of trouble: nobody waits for it.
fn hand_over(store: &Store) {
    let before = Instant::now();
    store.begin(run("w", "a")).wait(LONG).unwrap_err();
    store.define(&name("b"), &definition("2")).wait(LONG).unwrap_err();
    let not_durable = store.flush().wait(LONG).unwrap_err();
    assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
    assert_eq!(Some(&*not_durable.problem), store.problem().as_deref());
    store.end(&past("u", "a"));
    drop(store.forget("u"));
    store.stand(standing("a", 2));
    store.audit(&entry("amid", None));
    assert_eq!(commands(store)[0], "amid", "it is shown, though it is in memory only");
}

/// Everything is on the disk again.
fn healed(dir: &Path, store: Store) {
    assert_eq!(store.problem(), None);
    store.flush().wait(LONG).unwrap();
    assert_eq!(commands(&store), ["amid", "before"]);
    store.close(Farewell::Kept);
    let Opened { store, recovered } = open(dir);
    let expected = Recovered {
        definitions: vec![(name("a"), definition("1")), (name("b"), definition("2"))],
        runs: vec![run("w", "a")],
        standings: vec![standing("a", 2)],
        history: vec![past("v", "a"), past("u", "a")],
        farewell: Some(Farewell::Kept),
        ..Recovered::default()
    };
    assert_eq!(recovered, expected);
    assert_eq!(commands(&store), ["amid", "before"]);
    store.close(Farewell::Kept);
}

#[test]
fn a_file_that_somebody_locks_is_waited_for_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (store, notices) = filled(dir.path());
    let mut other = Connection::open(dir.path().join("procman.db")).unwrap();
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    store.begin(run("w", "a")).wait(LONG).unwrap_err();
    let trouble = next(&notices);
    for part in ["procman.db", "locked", "fuser"] {
        assert!(trouble.contains(part), "{part} in {trouble}");
    }
    hand_over(&store);
    drop(lock);
    assert_eq!(next(&notices), "healed 0 0");
    healed(dir.path(), store);
}

#[test]
fn files_that_are_taken_away_are_made_again() {
    for lost in [&["", "-wal", "-shm"][..], &[""], &["-wal"]] {
        let dir = tempfile::tempdir().unwrap();
        let (store, notices) = filled(dir.path());
        lost.iter().for_each(|side| fs::remove_file(dir.path().join(format!("procman.db{side}"))).unwrap());
        let trouble = next(&notices);
        assert!(trouble.contains("procman.db") && trouble.contains("removed"), "{trouble}");
        assert_eq!(next(&notices), "healed 0 0", "{lost:?}");
        // History and audit trail have come along.
        assert_eq!(commands(&store), ["before"], "{lost:?}");
        store.begin(run("w", "a")).wait(LONG).unwrap();
        store.close(Farewell::Kept);
        let recovered = open(dir.path()).recovered;
        assert_eq!(recovered.runs, [run("u", "a"), run("w", "a")]);
        assert_eq!((recovered.definitions.len(), recovered.history.len()), (1, 1));
        assert_eq!(recovered.set_aside, None);
    }
}

#[test]
fn a_file_that_is_put_in_the_place_of_the_one_in_use_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (store, notices) = filled(dir.path());
    let other = dir.path().join("other");
    fs::write(&other, "a backup, say").unwrap();
    fs::rename(&other, dir.path().join("procman.db")).unwrap();
    assert!(next(&notices).starts_with("trouble "));
    assert_eq!(next(&notices), "aside it was put in the place of the one that was in use");
    assert_eq!(next(&notices), "healed 0 0");
    assert_eq!(commands(&store), ["before"]);
    store.close(Farewell::Kept);
    assert_eq!(open(dir.path()).recovered.runs, [run("u", "a")]);
}

#[test]
fn a_directory_that_is_moved_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    fs::create_dir(&here).unwrap();
    let (store, notices) = filled(&here);
    fs::rename(&here, &there).unwrap();
    assert!(next(&notices).starts_with("trouble "));
    hand_over(&store);
    fs::create_dir(&here).unwrap();
    assert_eq!(next(&notices), "healed 0 0");
    healed(&here, store);
}

#[test]
fn what_has_no_room_in_memory_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, notices) = filled(dir.path());
    let mut other = Connection::open(dir.path().join("procman.db")).unwrap();
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    store.begin(run("w", "a")).wait(LONG).unwrap_err();
    assert!(next(&notices).starts_with("trouble "));
    (0..10_007).for_each(|at| store.audit(&entry(&at.to_string(), None)));
    (0..10_003).for_each(|at| store.end(&past(&at.to_string(), &format!("n{}", at % 200))));
    drop(lock);
    assert_eq!(next(&notices), "healed 7 3");
    let kept = commands(&store);
    assert_eq!((kept.len(), kept[0].as_str(), kept[9_999].as_str()), (10_001, "10006", "7"));
    store.close(Farewell::Quit);
}

#[test]
fn what_cannot_be_read_is_no_reason_to_begin_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("procman.db");
    fs::create_dir(&path).unwrap();
    let error = Store::open(dir.path(), watcher().0).unwrap_err().to_string();
    assert!(error.contains("procman.db: it is not a regular file; move it away"), "{error}");
    fs::remove_dir(&path).unwrap();

    open(dir.path()).store.close(Farewell::Quit);
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    Store::open(dir.path(), watcher().0).unwrap_err();
    fs::rename(&elsewhere, &path).unwrap();

    let mut other = Connection::open(&path).unwrap();
    other.pragma_update(None, "locking_mode", "exclusive").unwrap();
    let lock = other.transaction_with_behavior(TransactionBehavior::Exclusive).unwrap();
    let error = Store::open(dir.path(), watcher().0).unwrap_err().to_string();
    assert!(error.contains("procman.db") && error.contains("locked") && error.contains("fuser"), "{error}");
    drop(lock);
}

#[test]
fn a_disk_that_does_not_answer_holds_nobody_up() {
    let (told, notices) = watcher();
    let exchange = Arc::new(Exchange::new(Mirror::of(&Default::default()), None));
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    exchange.desk().committing = Some(long_ago);
    let waiting = exchange.hand_over_for(Level::Daemon, |mirror| mirror.begin(run("u", "a")));
    let sentinel = Sentinel { path: "/x/procman.db".into(), exchange: Arc::clone(&exchange), watcher: told };
    let thread = std::thread::spawn(move || sentinel.run());
    let not_durable = waiting.wait(LONG).unwrap_err();
    assert!(not_durable.problem.contains("/x/procman.db") && not_durable.problem.contains("not answered"), "{not_durable}");
    assert!(next(&notices).starts_with("trouble "));
    exchange.hand_over_for(Level::Host, |_| ()).wait(LONG).unwrap_err();
    exchange.desk().committing = None;
    assert_eq!(next(&notices), "healed 0 0");
    assert!(exchange.desk().problem.is_none());
    exchange.desk().closed = true;
    exchange.sentinel.notify_all();
    thread.join().unwrap();
}

/// Runs this where file systems can be mounted that nobody else sees, and go with it: on a thread of its own, which the store's threads inherit from.
/// Where that is not allowed it is left out.
fn with_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    let dir = tempfile::tempdir().unwrap();
    let thread = std::thread::spawn(move || {
        let none = None::<&str>;
        let private = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m"))
        };
        match private() {
            Ok(()) => test(dir.path()),
            Err(errno) => println!("left out: file systems cannot be mounted here ({errno})"),
        }
    });
    thread.join().unwrap();
}

/// Takes all the room there is.
fn fill(dir: &Path) {
    let mut file = fs::File::create(dir.join("filler")).unwrap();
    let byte = |file: &mut fs::File| std::io::Write::write_all(file, &[0; 512]);
    while byte(&mut file).is_ok() {}
}

#[test]
fn a_full_disk_is_waited_for_in_memory() {
    with_mounts(|dir| {
        let (store, notices) = filled(dir);
        fill(dir);
        // What has room in files that are there already still goes through.
        let full = (0..10_000).find_map(|at| store.begin(run("filling", &format!("n{at}"))).wait(LONG).err());
        let problem = full.unwrap().problem;
        for part in ["procman.db", "full", "make room", "tried again"] {
            assert!(problem.contains(part), "{part} in {problem}");
        }
        drop(store.forget("filling"));
        assert!(next(&notices).starts_with("trouble "));
        hand_over(&store);
        fs::remove_file(dir.join("filler")).unwrap();
        assert_eq!(next(&notices), "healed 0 0");
        healed(dir, store);
    });
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_knows_what_runs() {
    with_mounts(|dir| {
        let (store, notices) = filled(dir);
        fill(dir);
        while store.begin(run("filling", "a")).wait(LONG).is_ok() {
            drop(store.forget("filling"));
        }
        assert!(next(&notices).starts_with("trouble "));
        // It ends as if it were killed: with a full disk nothing can be said.
        store.close(Farewell::Quit);
        let (told, notices) = watcher();
        let Opened { store, recovered } = Store::open(dir, told).unwrap();
        assert!(recovered.runs.contains(&run("u", "a")), "{recovered:?}");
        assert_eq!((recovered.definitions.len(), recovered.history.len(), recovered.set_aside), (1, 1, None));
        if store.problem().is_some() {
            assert!(next(&notices).starts_with("trouble "));
        }
        fs::remove_file(dir.join("filler")).unwrap();
        while store.flush().wait(LONG).is_err() {
            std::thread::yield_now();
        }
        store.close(Farewell::Quit);
    });
}

#[test]
fn a_database_that_cannot_be_made_is_trouble_and_no_error() {
    with_mounts(|dir| {
        fill(dir);
        let (told, notices) = watcher();
        let Opened { store, recovered } = Store::open(dir, told).unwrap();
        assert_eq!(recovered, Recovered { fresh: true, ..Recovered::default() });
        assert!(store.problem().is_some_and(|problem| problem.contains("make room")), "{:?}", store.problem());
        assert!(next(&notices).starts_with("trouble "));
        store.begin(run("u", "a")).wait(LONG).unwrap_err();
        fs::remove_file(dir.join("filler")).unwrap();
        assert_eq!(next(&notices), "healed 0 0");
        store.close(Farewell::Kept);
        assert_eq!(open(dir).recovered.runs, [run("u", "a")]);
    });
}

#[test]
fn a_read_only_disk_is_read_and_waited_for() {
    with_mounts(|dir| {
        let (store, _notices) = filled(dir);
        // As it is when the daemon is killed: the last commits are in the write-ahead log.
        let killed = dir.join("killed");
        fs::create_dir(&killed).unwrap();
        for side in ["", "-wal", "-shm"] {
            fs::copy(dir.join(format!("procman.db{side}")), killed.join(format!("procman.db{side}"))).unwrap();
        }
        store.close(Farewell::Kept);
        let bind = |flags| mount(Some(&killed), &killed, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>).unwrap();
        bind(MsFlags::empty());
        bind(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        let (told, notices) = watcher();
        let Opened { store, recovered } = Store::open(&killed, told).unwrap();
        assert_eq!(recovered.runs, [run("u", "a")]);
        assert_eq!((recovered.definitions.len(), recovered.history.len(), recovered.fresh), (1, 1, false));
        let trouble = next(&notices);
        assert!(trouble.contains("mounted read-only"), "{trouble}");
        hand_over(&store);
        umount2(&killed, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(next(&notices), "healed 0 0");
        healed(&killed, store);
    });
}
