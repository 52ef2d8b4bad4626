//! A daemon that is killed: the test program runs itself as one, and kills it at a random moment.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::model::{BOUNDS, Model, Random, perform};
use super::*;

const DIRECTORY: &str = "PROCMAN_TEST_STORE_DIRECTORY";
const SEED: &str = "PROCMAN_TEST_STORE_SEED";

/// The daemon to be killed: no test unless it is told to be one. Says `did N` for each operation that it has handed over, `ack N` for what is
/// acknowledged.
#[test]
fn the_daemon_to_be_killed() {
    let (Some(dir), Ok(seed)) = (std::env::var_os(DIRECTORY), std::env::var(SEED)) else { return };
    let opened = Store::open_bounded(Path::new(&dir), watcher().0, BOUNDS).unwrap();
    let (mut model, mut random) = (Model::of(&opened), Random(seed.parse().unwrap()));
    let say = |word: &str, number: u64| {
        // One system call for each: whatever it was about to say is lost with it.
        std::io::stdout().write_all(format!("{word} {number}\n").as_bytes()).unwrap();
    };
    for number in 1.. {
        let operation = model.next(number, &mut random);
        say("try", number);
        model.apply(&operation);
        if let Some(committed) = perform(&opened.store, &operation) {
            committed.wait(LONG).unwrap();
            say("ack", number);
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_and_nothing_by_half() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(0x5eed);
    for round in 0..25_u64 {
        let seed = (round << 32 | 0x9e37) + random.below(1 << 30);
        let mut before = {
            let opened = Store::open_bounded(dir.path(), watcher().0, BOUNDS).unwrap();
            let model = Model::of(&opened);
            opened.store.close(Farewell::Kept);
            model
        };
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::killed::the_daemon_to_be_killed", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, dir.path())
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
        // The first lines are the test program's own: some daemons are killed while they open the store.
        let mut said = Vec::new();
        let enough = 1 + random.below(300) as usize;
        while said.len() < enough {
            said.extend(lines.next().map(Result::unwrap));
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        said.extend(lines.map_while(Result::ok));
        let last = |word: &str| {
            let number = |line: &String| line.split_once(word)?.1.trim().parse::<u64>().ok();
            said.iter().rev().find_map(number).unwrap_or(0)
        };
        let (acknowledged, tried) = (last("ack "), last("try "));

        let opened = Store::open_bounded(dir.path(), watcher().0, BOUNDS).unwrap();
        assert_eq!(opened.recovered.set_aside, None);
        let found = Model::of(&opened);
        opened.store.close(Farewell::Kept);
        // It is the state after one of the operations, from the last acknowledged one on.
        let mut numbers = Random(seed);
        let mut matching = (acknowledged == 0 && before == found).then_some(0);
        for number in 1..=tried {
            let operation = before.next(number, &mut numbers);
            before.apply(&operation);
            if number >= acknowledged && before == found {
                matching = Some(number);
                break;
            }
        }
        assert!(matching.is_some(), "round {round}: not a state between {acknowledged} and {tried}: {found:#?}");
    }
}
