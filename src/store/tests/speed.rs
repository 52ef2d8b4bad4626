//! What it costs, for whoever changes it: `cargo test --release --lib store::tests::speed -- --ignored --nocapture --test-threads=1`.

use std::time::Instant;

use super::*;

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * share) as usize]
}

fn say(what: &str, mut times: Vec<Duration>) {
    println!("{what}: p50 {:?}, p99 {:?}", percentile(&mut times, 0.5), percentile(&mut times, 0.99));
}

#[test]
#[ignore = "a measurement"]
fn round_trips() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let store = open(dir.path()).store;
    let timed = |committed: &dyn Fn() -> Committed| {
        let before = Instant::now();
        committed().wait(LONG).unwrap();
        before.elapsed()
    };
    say("begin, alone", (0..5000).map(|at| timed(&|| store.begin(run(&format!("u{at}"), "a")))).collect());
    {
        // The transaction alone, without the way to the writer and back.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (mut database, found) = database::Database::open(&dir.path().join("procman.db"), Bounds::default(), true).unwrap();
        let mut mirror = mirror::Mirror::of(&found.contents);
        let commit = |at| {
            mirror.begin(run(&format!("u{at}"), "a"));
            let batch = mirror.take(false, None);
            let before = Instant::now();
            database.commit(&batch).unwrap();
            before.elapsed()
        };
        say("the commit of a run", (0..5000).map(commit).collect());
    }
    say("define, alone", (0..500).map(|at| timed(&|| store.define(&name("a"), &definition(&at.to_string())))).collect());
    let began = Instant::now();
    let times: Vec<Vec<Duration>> = std::thread::scope(|scope| {
        let client = |client: usize| {
            let (store, timed) = (&store, &timed);
            scope.spawn(move || (0..200).map(|at| timed(&|| store.begin(run(&format!("c{client}-{at}"), "a")))).collect::<Vec<_>>())
        };
        let clients: Vec<_> = (0..100).map(client).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let rate = 20_000.0 / began.elapsed().as_secs_f64();
    say("begin, 100 at once", times.concat());
    println!("begins per second, 100 at once: {rate:.0}");
    // As the daemon does: begin, started, ready, an entry of the audit trail.
    let mut times = Vec::new();
    for at in 0..2000 {
        let uuid = format!("d{at}");
        times.push(timed(&|| store.begin(run(&uuid, "a"))));
        store.change(&uuid, RunChange::Started(process(at)));
        store.change(&uuid, RunChange::Ready(true));
        store.audit(&entry("execute", Some("a")));
        store.end(&past(&uuid, "a"));
        drop(store.forget(&uuid));
    }
    say("begin, with all that goes with a run", times);
    store.close(Farewell::Quit);
}

#[test]
#[ignore = "a measurement"]
fn opening() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let store = open(dir.path()).store;
    let committed: Vec<_> = (0..1000).map(|at| store.begin(run(&format!("u{at}"), &format!("n{at}")))).collect();
    committed.iter().for_each(|committed| committed.wait(LONG).unwrap());
    for at in 0..1000 {
        store.stand(standing(&format!("n{at}"), 1));
        store.define(&name(&format!("n{at}")), &definition("1")).wait(LONG).unwrap();
    }
    for at in 0..10_000 {
        store.end(&past(&format!("p{at:032}"), &format!("n{}", at % 1000)));
        if at % 1000 == 0 {
            store.flush().wait(LONG).unwrap();
        }
    }
    store.close(Farewell::Quit);
    let mut times = Vec::new();
    for _ in 0..10 {
        let before = Instant::now();
        let opened = open(dir.path());
        times.push(before.elapsed());
        assert_eq!((opened.recovered.runs.len(), opened.recovered.history.len()), (1000, 10_000));
        opened.store.close(Farewell::Quit);
    }
    say("open, 1,000 runs, standings and definitions, 10,000 of history", times);
    let checks = |what: &str| {
        let connection = rusqlite::Connection::open(dir.path().join("procman.db")).unwrap();
        for check in ["quick_check", "integrity_check"] {
            let before = Instant::now();
            connection.query_row(&format!("PRAGMA {check}"), (), |_| Ok(())).unwrap();
            println!("{check}, {what}: {:?}", before.elapsed());
        }
    };
    checks("the same");
    let store = open(dir.path()).store;
    for at in 0..100_000 {
        store.audit(&entry("execute", Some(&format!("n{}", at % 1000))));
        if at % 1000 == 0 {
            store.flush().wait(LONG).unwrap();
        }
    }
    let before = Instant::now();
    assert_eq!(store.audit_log(Some(&name("n1")), 1000).unwrap().len(), 100);
    println!("audit log of one name out of 100,000 entries: {:?}", before.elapsed());
    store.close(Farewell::Quit);
    checks("with 100,000 entries of the audit trail");
    let before = Instant::now();
    let opened = open(dir.path());
    println!("open with 100,000 entries of the audit trail: {:?}", before.elapsed());
    opened.store.close(Farewell::Quit);
}
