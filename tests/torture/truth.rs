//! What sub-processes write down about themselves: one line for each event, in a file that all of them append to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use procman::procfs;

/// The file, in the directory of a scene.
pub(crate) const FILE: &str = "truth";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Its program runs.
    Start,
    /// It ends now, by this exit code, or −N by signal N.
    End(i32),
    /// Another one of its name runs at the same time.
    Double,
}

/// Writes it down.
#[derive(Debug)]
pub(crate) struct Pen {
    file: File,
    uuid: String,
    name: String,
}

impl Pen {
    pub(crate) fn new(dir: &Path, uuid: &str, name: &str) -> Self {
        let file = File::options().append(true).create(true).open(dir.join(FILE)).unwrap();
        Self { file, uuid: uuid.to_owned(), name: name.to_owned() }
    }

    /// One write, so that lines of many processes do not mix.
    pub(crate) fn write(&mut self, fact: Fact) {
        let (word, code) = match fact {
            Fact::Start => ("start", 0),
            Fact::End(code) => ("end", code),
            Fact::Double => ("double", 0),
        };
        let (pid, at) = (std::process::id(), procfs::monotonic().as_micros());
        let line = format!("{} {} {pid} {word} {code} {at}\n", self.uuid, self.name);
        self.file.write_all(line.as_bytes()).unwrap();
    }
}

/// One run, as it was.
#[derive(Clone, Debug)]
pub(crate) struct TrueRun {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Microseconds on the monotonic clock.
    pub(crate) start: u64,
    /// How it is about to end by itself.
    pub(crate) end: Option<i32>,
}

/// All that was written, read as it grows.
#[derive(Debug)]
pub(crate) struct Truth {
    file: File,
    unread: Vec<u8>,
    /// By UUID.
    pub(crate) runs: BTreeMap<String, TrueRun>,
    /// Those that ran twice at a time.
    pub(crate) doubles: Vec<String>,
}

impl Truth {
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        drop(File::options().append(true).create(true).open(&path).unwrap());
        Self { file: File::open(path).unwrap(), unread: Vec::new(), runs: BTreeMap::new(), doubles: Vec::new() }
    }

    /// Reads what is new.
    pub(crate) fn read(&mut self) {
        self.file.read_to_end(&mut self.unread).unwrap();
        let whole = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text: Vec<u8> = self.unread.drain(..whole).collect();
        std::str::from_utf8(&text).unwrap().lines().for_each(|line| self.take(line));
    }

    fn take(&mut self, line: &str) {
        let [uuid, name, pid, word, code, at] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?} is no line of truth") };
        let (pid, at) = (pid.parse().unwrap(), at.parse().unwrap());
        match word {
            "start" => {
                let run = TrueRun { name: name.to_owned(), pid, start: at, end: None };
                assert!(self.runs.insert(uuid.to_owned(), run).is_none(), "two processes for one run: {line:?}");
            }
            "end" => self.runs.get_mut(uuid).unwrap().end = Some(code.parse().unwrap()),
            "double" => self.doubles.push(line.to_owned()),
            _ => panic!("{line:?} is no line of truth"),
        }
    }
}
