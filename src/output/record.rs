//! What has to be known of a stream after the daemon was away, however it ended: what place in the stream the file's first byte has.
//!
//! Taking the hole in front out of a file and writing down that it was done are two steps, and the daemon may be killed between them. So the intention
//! is written down first; whether it was carried out shows in the file itself: the hole is there, or it is not.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::place::{self, StreamName};

/// Which file it is: its inode, and when that was made, for numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not say.
    born: u64,
}

impl Identity {
    /// Of the file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { inode: metadata.ino(), born: born.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0) }
    }
}

/// The record of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The place in the stream of the file's first byte.
    pub base: u64,
    /// The file.
    pub identity: Identity,
    /// So many bytes of a hole in front are about to be taken out, or were.
    pub pending: u64,
}

/// So that a later version knows what it reads.
const FIRST_WORDS: &str = "procman-stream 1";

impl Record {
    fn text(&self) -> String {
        let Self { base, identity: Identity { inode, born }, pending } = self;
        format!("{FIRST_WORDS} {base} {inode} {born} {pending}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.strip_suffix('\n')?.strip_prefix(FIRST_WORDS)?.split_ascii_whitespace().map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        let record = Self { base: next()?, identity: Identity { inode: next()?, born: next()? }, pending: next()? };
        numbers.next().is_none().then_some(record)
    }

    /// The record in this directory. One that is not there or makes no sense is none: the parts' names say nearly the same.
    pub fn read(directory: &Path, stream: StreamName) -> Option<Self> {
        Self::parse(&fs::read_to_string(directory.join(place::record(stream))).ok()?)
    }

    /// Writes it, whole and on the disk, or not at all.
    pub fn write(&self, directory: &Path, stream: StreamName) -> io::Result<()> {
        let name = place::record(stream);
        let unfinished = directory.join(place::unfinished(stream, &name));
        let mut file = File::create(&unfinished)?;
        file.set_permissions(Permissions::from_mode(0o640))?;
        file.write_all(self.text().as_bytes())?;
        file.sync_data()?;
        fs::rename(&unfinished, directory.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path(), StreamName::Stdout), None);
        let record = Record { base: 7, identity: Identity { inode: 8, born: 9 }, pending: 4096 };
        record.write(dir.path(), StreamName::Stdout).unwrap();
        assert_eq!(Record::read(dir.path(), StreamName::Stdout), Some(record));
        assert_eq!(Record::read(dir.path(), StreamName::Stderr), None);
        for bad in
            ["", "procman-stream 1 2 3 4\n", "procman-stream 1 2 3 4 5 6\n", "procman-stream 2 1 2 3 4\n", "procman-stream 1 1 2 3 4"]
        {
            assert_eq!(Record::parse(bad), None, "{bad:?}");
        }
    }
}
