//! Streams on real disks: a model of what was ever written, and what is read back, whatever is done in between.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::place::Segment;
use super::record::Record;
use super::stream::Stream;
use super::*;
use crate::sys::file;

/// Directories on the file systems that are at hand: the one of temporary files, and tmpfs, which cannot collapse.
fn places() -> Vec<tempfile::TempDir> {
    let mut places = vec![tempfile::tempdir().unwrap()];
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => places.push(dir),
        Err(error) => println!("skipped on tmpfs: {error}"),
    }
    places
}

fn stream(dir: &Path) -> Stream {
    Stream::new(dir.join("logs").join("web"), StreamName::Stdout)
}

fn append(stream: &Stream, bytes: &[u8]) {
    File::from(stream.open().unwrap()).write_all(bytes).unwrap();
}

/// All that is kept from this offset on, by following; whether something before was lost; and where it ends.
fn follow(stream: &Stream, mut offset: u64, max_bytes: usize) -> (String, bool, u64) {
    let (mut text, mut truncated) = (String::new(), false);
    loop {
        let answer = stream.read(&Query { offset: Some(offset), lines: 1000, max_bytes }).unwrap();
        truncated |= answer.truncated;
        if answer.lines.is_empty() {
            return (text, truncated, answer.offset);
        }
        for line in answer.lines {
            text += &line;
            text.push('\n');
        }
        offset = answer.offset;
    }
}

fn numbered(count: std::ops::Range<u64>) -> String {
    count.map(|number| format!("{number:0>99}\n")).collect()
}

#[test]
fn an_offset_means_the_same_wherever_its_bytes_are() {
    for place in places() {
        let stream = stream(place.path());
        let text = numbered(0..1000);
        append(&stream, text.as_bytes());
        assert_eq!(stream.rotate(&[8192, 4096]).unwrap(), 2);
        let segment = stream.queue(0).unwrap().unwrap();
        assert_eq!(stream.queue(0).unwrap(), None, "it is queued already");
        stream.compress(segment, || true).unwrap();
        for stream in [stream, self::stream(place.path())] {
            assert_eq!(follow(&stream, 0, 4096), (text.clone(), false, 100_000));
            assert_eq!(follow(&stream, 5000, 300), (text[5000..].to_owned(), false, 100_000));
            stream.collapse().unwrap();
        }
        let stream = self::stream(place.path());
        assert_eq!(follow(&stream, 8100, 1 << 20), (text[8100..].to_owned(), false, 100_000), "after the hole was taken out");
        let last = stream.read(&Query { offset: None, lines: 3, max_bytes: 65536 }).unwrap();
        assert_eq!((last.lines.len(), last.offset, last.truncated), (3, 100_000, false));
        let much = stream.read(&Query { offset: None, lines: 5000, max_bytes: 95_050 }).unwrap();
        assert_eq!((much.lines.len(), much.truncated), (950, true), "through the parts, and no further than asked for");
        let all = stream.read(&Query { offset: None, lines: 5000, max_bytes: 1 << 20 }).unwrap();
        assert_eq!((all.lines.len(), all.truncated), (1000, false));

        stream.remove(1).unwrap();
        let (rest, truncated, _) = follow(&stream, 100, 4096);
        assert!(truncated && rest == text[8200..], "from the first whole line that is kept");
        let names: Vec<String> =
            fs::read_dir(&stream.directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| !name.contains("unfinished")), "{names:?}");
    }
}

#[test]
fn the_files_one_after_the_other_are_the_stream() {
    let place = tempfile::tempdir().unwrap();
    let stream = stream(place.path());
    let text = numbered(0..500);
    append(&stream, text.as_bytes());
    stream.rotate(&[4096 * 3, 4096]).unwrap();
    stream.collapse().unwrap();
    let mut names: Vec<PathBuf> = fs::read_dir(&stream.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut whole: Vec<u8> =
        names.iter().filter(|name| name.extension().is_some_and(|e| e == "log")).flat_map(|name| fs::read(name).unwrap()).collect();
    // Where the file system cannot take the hole out (tmpfs), it is there and reads as zeros.
    whole.retain(|byte| *byte != 0);
    assert!(String::from_utf8(whole).unwrap() == text, "{names:?}");
}

/// The daemon is killed after each step of a rotation in turn; the next one goes on.
#[test]
fn a_kill_at_any_moment_neither_loses_nor_doubles() {
    for place in places() {
        for moment in 0..6 {
            let dir = place.path().join(moment.to_string());
            let text = numbered(0..300);
            {
                let stream = stream(&dir);
                append(&stream, &text.as_bytes()[..20_000]);
                stream.rotate(&[4096]).unwrap();
                let record = Record::read(&stream.directory, StreamName::Stdout).unwrap();
                let live = File::options().read(true).write(true).open(stream.path()).unwrap();
                let segment = Segment { first: 4096, end: 12288, compressed: false };
                match moment {
                    0 => fs::write(stream.directory.join("stdout.unfinished.x"), &text[4096..9000]).unwrap(),
                    // Copied, and not cut off.
                    1 => fs::write(stream.path_of(&segment), &text[4096..12288]).unwrap(),
                    // The hole is about to be taken out, or was.
                    2 | 3 => {
                        Record { pending: 4096, ..record }.write(&stream.directory, StreamName::Stdout).unwrap();
                        if moment == 3 {
                            match file::collapse_head(&live, 4096) {
                                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                                result => result.unwrap(),
                            }
                        }
                    }
                    // Compressed, and the other not removed.
                    4 => {
                        let part = Segment { first: 0, end: 4096, compressed: true };
                        let mut packed = Vec::new();
                        gzip::compress(&mut &text.as_bytes()[..4096], &mut packed, || true).unwrap();
                        fs::write(stream.path_of(&part), packed).unwrap();
                    }
                    // The record is lost.
                    _ => fs::remove_file(stream.directory.join("stdout.record")).unwrap(),
                }
            }
            let stream = stream(&dir);
            // The child wrote on meanwhile.
            File::options().append(true).open(stream.path()).unwrap().write_all(&text.as_bytes()[20_000..]).unwrap();
            assert_eq!(follow(&stream, 0, 5000), (text.clone(), false, 30_000), "moment {moment}");
            let look = stream.examine(SystemTime::now()).unwrap();
            assert_eq!(look.end, 30_000);
            stream.rotate(&[4096]).unwrap();
            stream.collapse().unwrap();
            assert_eq!(follow(&stream, 0, 5000), (text.clone(), false, 30_000), "moment {moment}, and on");
            let reopened = self::stream(&dir);
            assert_eq!(follow(&reopened, 0, 5000), (text.clone(), false, 30_000), "moment {moment}, and again");
        }
    }
}

#[test]
fn a_file_that_is_removed_or_cut_short_by_others_costs_no_later_line() {
    let place = tempfile::tempdir().unwrap();
    let stream = stream(place.path());
    append(&stream, b"one\n");
    stream.examine(SystemTime::now()).unwrap();
    fs::remove_dir_all(&stream.directory).unwrap();
    assert_eq!(stream.examine(SystemTime::now()).unwrap().change, stream::Change::Missing);
    append(&stream, b"two\n");
    assert_eq!(follow(&stream, 4, 100), ("two\n".into(), false, 8), "offsets go on");
    assert_eq!(follow(&self::stream(place.path()), 4, 100), ("two\n".into(), false, 8), "for the next daemon, too");
    fs::write(stream.path(), "").unwrap();
    stream.examine(SystemTime::now()).unwrap();
    append(&stream, b"three\n");
    assert_eq!(follow(&stream, 8, 100), ("three\n".into(), false, 14));
    let (text, truncated, end) = follow(&stream, 0, 100);
    assert_eq!((text.as_str(), truncated, end), ("three\n", true, 14));
    let beyond = stream.read(&Query { offset: Some(1000), lines: 10, max_bytes: 100 }).unwrap();
    assert!(beyond.truncated && beyond.lines == ["three"], "{beyond:?}");
}

#[test]
fn nobody_is_led_out_of_the_directory() {
    let place = tempfile::tempdir().unwrap();
    let stream = stream(place.path());
    fs::create_dir_all(&stream.directory).unwrap();
    let elsewhere = place.path().join("elsewhere");
    fs::write(&elsewhere, "secret\n").unwrap();
    std::os::unix::fs::symlink(&elsewhere, stream.path()).unwrap();
    assert_eq!(stream.open().unwrap_err().raw_os_error(), Some(libc::ELOOP));
    assert_eq!(stream.read(&Query { offset: None, lines: 10, max_bytes: 100 }).unwrap().lines, Vec::<String>::new());
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Rotate(u64),
    Drop(u64),
    Remove(usize),
    Compress(usize),
    Collapse,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..30_000).prop_map(Step::Append),
        3 => (1_u64..4).prop_map(Step::Rotate),
        1 => (1_u64..3).prop_map(Step::Drop),
        1 => (1_usize..2).prop_map(Step::Remove),
        2 => (0_usize..3).prop_map(Step::Compress),
        2 => Just(Step::Collapse),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_is_done_what_is_kept_is_what_was_written(steps in proptest::collection::vec(step(), 1..25), lines in proptest::collection::vec("[a-z]{0,200}\n", 1..20)) {
        let place = tempfile::tempdir().unwrap();
        let mut stream = stream(place.path());
        stream.open().unwrap();
        let source = lines.concat();
        // Everything that was ever written, and where what is kept begins.
        let (mut written, mut kept) = (String::new(), 0_usize);
        for step in steps {
            match step {
                Step::Append(count) => {
                    let text: String = source.bytes().cycle().skip(written.len() % source.len()).take(count).map(char::from).collect();
                    append(&stream, text.as_bytes());
                    written += &text;
                }
                Step::Rotate(blocks) => {
                    let look = stream.examine(SystemTime::now()).unwrap();
                    if look.facts.data > blocks * 4096 {
                        prop_assert_eq!(stream.rotate(&[blocks * 4096]).unwrap(), 1);
                    }
                }
                Step::Drop(blocks) => {
                    let look = stream.examine(SystemTime::now()).unwrap();
                    stream.remove(look.facts.parts.len()).unwrap();
                    kept = written.len() - look.facts.data as usize;
                    if stream.drop_head(blocks * 4096).unwrap() {
                        kept += blocks as usize * 4096;
                    }
                }
                Step::Remove(count) => {
                    stream.remove(count).unwrap();
                    let state = stream.loaded().unwrap();
                    kept = state.parts.first().map_or(state.base + state.hole, |part| part.segment.first) as usize;
                }
                Step::Compress(at) => {
                    if let Some(segment) = stream.queue(at).unwrap() {
                        stream.compress(segment, || true).unwrap();
                    }
                }
                Step::Collapse => stream.collapse().unwrap(),
                Step::Reopen => stream = self::stream(place.path()),
            }
            let (text, truncated, end) = follow(&stream, kept as u64, 10_000);
            prop_assert!(!truncated);
            let whole = written.rfind('\n').map_or(kept, |at| (at + 1).max(kept));
            prop_assert_eq!(end as usize, whole);
            prop_assert!(text == written[kept..whole], "{} bytes from {kept}, {} expected", text.len(), whole - kept);
        }
    }
}

/// Counts.
#[derive(Default)]
struct Counter {
    parts: AtomicU64,
    dropped: AtomicU64,
    problems: Mutex<Vec<Option<String>>>,
}

impl Watcher for Counter {
    fn notice(&self, notice: &Notice<'_>) {
        match *notice {
            Notice::Rotated { parts, .. } => drop(self.parts.fetch_add(parts as u64, Ordering::Relaxed)),
            Notice::Dropped { bytes, .. } => drop(self.dropped.fetch_add(bytes, Ordering::Relaxed)),
            Notice::Problem { problem, .. } => self.problems.lock().unwrap().push(problem.map(str::to_owned)),
            Notice::Disk { .. } => {}
        }
    }
}

fn outputs(dir: &Path) -> (Outputs, Arc<Counter>) {
    let counter = Arc::new(Counter::default());
    (Outputs::new(Settings { logs: dir.join("logs"), journal: dir.join("journal") }, counter.clone()), counter)
}

fn until(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Enough for 47 parts of a MiB.
const LINES: u64 = 500_000;

#[test]
fn a_fast_writer_loses_no_line_while_its_file_is_cut() {
    for place in places() {
        let (outputs, counter) = outputs(place.path());
        let name = "web".parse().unwrap();
        let policy = Policy { max_size: 1 << 20, keep: 100_000, compress: false, max_age: None };
        outputs.define(&name, &[StreamName::Stdout], &policy);
        let (fd, lease) = outputs.open(&name, StreamName::Stdout, &policy).unwrap();
        let caretaker = outputs.look_after().unwrap();
        let writer = std::thread::spawn(move || {
            let mut file = File::from(fd);
            for number in 0..LINES {
                // One write for each line.
                file.write_all(format!("{number:0>99}\n").as_bytes()).unwrap();
            }
        });
        // A reader follows meanwhile.
        let (mut offset, mut next) = (0, 0_u64);
        let mut read = || {
            let answer =
                outputs.read(&name, StreamName::Stdout, &Query { offset: Some(offset), lines: 100_000, max_bytes: 1 << 20 }).unwrap();
            assert!(!answer.truncated);
            offset = answer.offset;
            for line in &answer.lines {
                assert_eq!(line.parse::<u64>().unwrap(), next, "lost, doubled or out of order");
                next += 1;
            }
            answer.lines.len()
        };
        while !writer.is_finished() {
            if read() == 0 {
                std::thread::yield_now();
            }
        }
        writer.join().unwrap();
        while read() > 0 {}
        assert_eq!(next, LINES);
        until("what is too much is cut at rest, too", || {
            fs::metadata(place.path().join("logs/web/stdout.log")).is_ok_and(|metadata| metadata.blocks() * 512 <= 2 << 20)
        });
        assert!(counter.parts.load(Ordering::Relaxed) >= 20);
        assert_eq!((counter.dropped.load(Ordering::Relaxed), counter.problems.lock().unwrap().len()), (0, 0));
        drop((lease, caretaker));
    }
}

#[test]
fn a_flood_is_held_within_its_bounds() {
    let place = tempfile::tempdir().unwrap();
    let (outputs, counter) = outputs(place.path());
    let name = "web".parse().unwrap();
    let policy = Policy { max_size: 1 << 20, keep: 2, compress: true, max_age: None };
    outputs.define(&name, &[StreamName::Stdout], &policy);
    let (fd, lease) = outputs.open(&name, StreamName::Stdout, &policy).unwrap();
    let caretaker = outputs.look_after().unwrap();
    let mut file = File::from(fd);
    let (line, began) = (numbered(7..8), Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        file.write_all(line.as_bytes()).unwrap();
    }
    let files = || fs::read_dir(place.path().join("logs/web")).unwrap().map(|entry| entry.unwrap());
    until("when the flood is over there are parts, compressed, and the file is small", || {
        files().filter(|entry| entry.file_name().to_str().unwrap().ends_with(".gz")).count() == 2
            // What it takes of the disk: where the hole cannot be taken out (tmpfs), it keeps its length.
            && fs::metadata(place.path().join("logs/web/stdout.log")).is_ok_and(|metadata| metadata.blocks() * 512 <= (1 << 20) + 65536)
    });
    assert!(counter.dropped.load(Ordering::Relaxed) > 10 << 20, "most of it was never copied");
    assert!(counter.parts.load(Ordering::Relaxed) < 10);
    drop((lease, caretaker));
}

#[test]
fn a_directory_that_is_removed_is_noticed_and_made_again() {
    let place = tempfile::tempdir().unwrap();
    let (outputs, counter) = outputs(place.path());
    let name = "web".parse().unwrap();
    let policy = Policy { max_size: 1 << 20, keep: 2, compress: true, max_age: None };
    let health = outputs.define(&name, &StreamName::ALL, &policy).unwrap();
    let opened = outputs.open(&name, StreamName::Stdout, &policy).unwrap();
    let caretaker = outputs.look_after().unwrap();
    until("it was looked at", || lock_care(&outputs, &name));
    fs::remove_dir_all(place.path().join("logs")).unwrap();
    until("the loss is told", || health.problem().is_some_and(|problem| problem.contains("stdout.log was removed")));
    let again = outputs.open(&name, StreamName::Stdout, &policy).unwrap();
    assert_eq!(health.problem(), None);
    assert!(place.path().join("logs/web/stdout.log").exists());
    assert_eq!(counter.problems.lock().unwrap().len(), 1, "told once");
    outputs.forget(&name);
    drop((opened, again, caretaker));
}

/// Whether the caretaker has seen the file.
fn lock_care(outputs: &Outputs, name: &crate::protocol::Name) -> bool {
    outputs::lock(&outputs.0.entries)[&(name.clone(), StreamName::Stdout)].stream.loaded().unwrap().identity.is_some()
}
