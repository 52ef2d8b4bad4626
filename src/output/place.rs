//! Directories, and the names of the files in them.
//!
//! ```text
//! <state_dir>/logs/<name>/stdout.log                              what is being written
//!                         stdout.<first>-<end>.log                a part that was rotated out: these bytes of the stream
//!                         stdout.<first>-<end>.log.gz             the same, compressed
//!                         stdout.record                           what the stream's offsets begin with
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

/// Which output of a sub-process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamName {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl StreamName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// As it stands in file names and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The directory of one sub-process. Names hold neither a slash nor a percent sign; a leading dot is written as `%2E`, so that `.` and `..` are
/// directories of their own, and none is hidden.
pub fn directory(logs: &Path, name: &str) -> PathBuf {
    match name.strip_prefix('.') {
        Some(rest) => logs.join(format!("%2E{rest}")),
        None => logs.join(name),
    }
}

/// A part of a stream that was rotated out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its first byte's place in the stream.
    pub first: u64,
    /// The place behind its last byte.
    pub end: u64,
    /// It is compressed.
    pub compressed: bool,
}

impl Segment {
    /// Its bytes, uncompressed.
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    /// It holds nothing, which no part of ours does.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its file name. Twenty digits hold every number, so that names in alphabetical order are in the stream's order.
    pub fn file_name(&self, stream: StreamName) -> String {
        let suffix = if self.compressed { ".gz" } else { "" };
        format!("{stream}.{:020}-{:020}.log{suffix}", self.first, self.end)
    }

    /// The part that a file name of this stream stands for.
    pub fn parse(stream: StreamName, file_name: &str) -> Option<Self> {
        let rest = file_name.strip_prefix(stream.as_str())?.strip_prefix('.')?;
        let (rest, compressed) = match rest.strip_suffix(".gz") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (first, end) = rest.strip_suffix(".log")?.split_once('-')?;
        let number = |text: &str| if text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
        let segment = Self { first: number(first)?, end: number(end)?, compressed };
        (segment.first < segment.end).then_some(segment)
    }
}

/// The file that is being written.
pub fn live(stream: StreamName) -> String {
    format!("{stream}.log")
}

/// What has to outlive the daemon.
pub fn record(stream: StreamName) -> String {
    format!("{stream}.record")
}

/// Under this name a file is made; it gets its own once it is whole. Those that are found at a start are remains of a daemon that was killed.
pub fn unfinished(stream: StreamName, file_name: &str) -> String {
    format!("{stream}.unfinished.{file_name}")
}

/// Whether a file is one that was never finished.
pub fn is_unfinished(stream: StreamName, file_name: &str) -> bool {
    file_name.strip_prefix(stream.as_str()).is_some_and(|rest| rest.starts_with(".unfinished."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    proptest! {
        #[test]
        fn no_name_leaves_the_directory_or_shares_another_ones(a in "[A-Za-z0-9._@:-]{1,64}", b in "[.]{1,3}|[A-Za-z0-9._@:-]{1,64}") {
            let logs = Path::new("/logs");
            for name in [&a, &b] {
                let parts: Vec<_> = directory(logs, name).components().map(|part| matches!(part, Component::Normal(_) | Component::RootDir)).collect();
                prop_assert_eq!(parts, [true, true, true]);
            }
            prop_assert_eq!(directory(logs, &a) == directory(logs, &b), a == b);
        }

        #[test]
        fn names_of_parts_say_what_they_are(first in 0..u64::MAX, length in 1..1000_u64, compressed: bool) {
            let segment = Segment { first, end: first.saturating_add(length), compressed };
            let name = segment.file_name(StreamName::Stderr);
            prop_assert_eq!(Segment::parse(StreamName::Stderr, &name), Some(segment));
            prop_assert_eq!(Segment::parse(StreamName::Stdout, &name), None);
            prop_assert!(!is_unfinished(StreamName::Stderr, &name) && is_unfinished(StreamName::Stderr, &unfinished(StreamName::Stderr, &name)));
        }
    }

    #[test]
    fn other_files_are_no_parts() {
        for name in
            ["stdout.log", "stdout.1-2.log", "stdout.record", "stdout.00000000000000000002-00000000000000000002.log", "stdout.log.1"]
        {
            assert_eq!(Segment::parse(StreamName::Stdout, name), None, "{name}");
        }
    }
}
