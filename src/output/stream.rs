//! One stream on the disk, addressed by its *offsets*: how many bytes were ever written before. Parts that were rotated out and the file that is being
//! written are one address space; where they overlap, because the daemon was killed between copying and cutting, they hold the same.
//!
//! The lock is held for moments only, never while a part is copied or compressed: a start that opens the file and a client that reads it do not wait
//! for a disk that is slow.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::gzip;
use super::lines::{self, Lines, Query};
use super::place::{self, Segment, StreamName};
use super::record::{Identity, Record};
use crate::sys::file;

/// A part and the time its newest byte was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) segment: Segment,
    pub(super) written: SystemTime,
}

/// What is known of the files, true while the lock is held.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The rest was read from the disk.
    loaded: bool,
    /// The place in the stream of the file's first byte.
    pub(super) base: u64,
    /// Where in the stream the present file began, if that is known: a line begins there.
    begun: Option<u64>,
    /// So many bytes at the front of the file are a hole.
    pub(super) hole: u64,
    /// The file's length when it was last seen.
    pub(super) length: u64,
    /// Which file it is; none where there is none.
    pub(super) identity: Option<Identity>,
    /// The parts, in the order of the stream.
    pub(super) parts: Vec<Kept>,
    /// When the file was last cut, or made.
    pub(super) cut_at: Option<SystemTime>,
    /// The file system's block in bytes.
    pub(super) block: u64,
    /// What the record on the disk says.
    pub(super) recorded: Option<Record>,
    /// The first bytes of parts that wait to be compressed.
    pub(super) queued: Vec<u64>,
    /// The file system cannot take a hole out.
    pub(super) cannot_collapse: bool,
}

/// What became of the file since it was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing, or it grew.
    Grown,
    /// It is not there any more.
    Missing,
    /// Another file has its name.
    Replaced,
    /// Somebody has cut it short.
    Truncated,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) directory: PathBuf,
    pub(super) name: StreamName,
    state: Mutex<State>,
}

impl Stream {
    /// A stream in this directory, which need not be there. Nothing is read before it is needed.
    pub fn new(directory: PathBuf, name: StreamName) -> Self {
        Self { directory, name, state: Mutex::default() }
    }

    /// The file that is being written.
    pub fn path(&self) -> PathBuf {
        self.directory.join(place::live(self.name))
    }

    pub(super) fn path_of(&self, segment: &Segment) -> PathBuf {
        self.directory.join(segment.file_name(self.name))
    }

    /// Opens the file for a process that appends to it, and makes it and its directory where they are missing.
    ///
    /// # Errors
    /// Those of mkdir(2) and open(2).
    pub fn open(&self) -> io::Result<OwnedFd> {
        // What is above belongs to the daemon alone: 0750 there, too.
        DirBuilder::new().recursive(true).mode(0o750).create(&self.directory)?;
        let mut state = self.loaded()?;
        let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(self.path())?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        state.see(Some(&metadata));
        if state.base > 0 {
            // Without it the offsets would begin a little lower after the daemon was away, no worse.
            drop(self.record(&mut state, 0));
        }
        Ok(file.into())
    }

    /// The state, read from the disk where that was not done yet.
    pub(super) fn loaded(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.loaded {
            *state = self.load()?;
        }
        Ok(state)
    }

    fn load(&self) -> io::Result<State> {
        let mut state = State { loaded: true, block: 4096, ..State::default() };
        let entries = match fs::read_dir(&self.directory) {
            // A part of it that is missing is made at the first start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            if place::is_unfinished(self.name, file_name) {
                fs::remove_file(entry.path())?;
            } else if let Some(segment) = Segment::parse(self.name, file_name) {
                let written = entry.metadata()?.modified()?;
                state.parts.push(Kept { segment, written });
            }
        }
        // A daemon that was killed may have left a part both as it was and compressed: the compressed one got its name only when it was whole.
        state.parts.sort_by_key(|kept| (kept.segment.first, !kept.segment.compressed));
        let mut twice = Vec::new();
        state.parts.dedup_by(|later, earlier| {
            let same = (later.segment.first, later.segment.end) == (earlier.segment.first, earlier.segment.end);
            if same {
                twice.push(later.segment);
            }
            same
        });
        for segment in twice {
            fs::remove_file(self.path_of(&segment))?;
        }

        let behind_parts = state.parts.iter().map(|kept| kept.segment.end).max().unwrap_or(0);
        state.recorded = Record::read(&self.directory, self.name);
        let Some(file) = self.live()? else {
            state.base = behind_parts.max(state.recorded.map_or(0, |record| record.base));
            return Ok(state);
        };
        let metadata = file.metadata()?;
        let identity = Identity::of(&metadata);
        state.hole = file::first_data(&file, 0)?.unwrap_or(metadata.len());
        match state.recorded {
            Some(record) if record.identity == identity => {
                // The hole is in front until it was taken out; what is written since comes at the end.
                let done = if state.hole >= record.pending { 0 } else { record.pending };
                state.base = record.base + done;
            }
            // A file that the record does not know: it is behind all that the record and the parts tell of.
            Some(record) => {
                state.base = behind_parts.max(record.base + record.pending);
                state.begun = Some(state.base);
            }
            None => state.base = behind_parts.saturating_sub(state.hole),
        }
        state.identity = Some(identity);
        state.length = metadata.len();
        state.block = metadata.blksize().max(1);
        state.cut_at = state.parts.last().map(|kept| kept.written).or_else(|| metadata.created().ok()).or_else(|| metadata.modified().ok());
        Ok(state)
    }

    /// The file that is being written, for reading; none where it is missing.
    pub(super) fn live(&self) -> io::Result<Option<File>> {
        match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(self.path()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the record where the one on the disk says something else.
    pub(super) fn record(&self, state: &mut State, pending: u64) -> io::Result<()> {
        let Some(identity) = state.identity else { return Ok(()) };
        let record = Record { base: state.base, identity, pending };
        if state.recorded != Some(record) {
            record.write(&self.directory, self.name)?;
            state.recorded = Some(record);
        }
        Ok(())
    }

    /// Reads lines. Takes time: not for a thread that others wait for.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn read(&self, query: &Query) -> io::Result<Lines> {
        if let Some(offset) = query.offset {
            let chunk = self.bytes(offset, query.max_bytes)?;
            // What is left of a line whose beginning is gone is no line.
            let begins = !chunk.lost || self.loaded()?.begun == Some(chunk.start);
            let skipped = if !begins { chunk.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
            let rest = chunk.bytes.get(skipped..).unwrap_or_default();
            let lines = lines::forward(rest, chunk.start + skipped as u64, query);
            return Ok(Lines { truncated: chunk.lost, ..lines });
        }
        let (oldest, end) = {
            let mut state = self.loaded()?;
            self.look(&mut state)?;
            (state.oldest(), state.end())
        };
        // One byte more tells whether a line begins there.
        let from = end.saturating_sub(query.max_bytes as u64 + 1).max(oldest);
        let want = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        let chunk = self.bytes(from, want)?;
        let (start, begins, bytes) = match chunk.bytes.split_first() {
            Some((before, rest)) if chunk.start > 0 && chunk.bytes.len() > query.max_bytes => (chunk.start + 1, *before == b'\n', rest),
            _ => (chunk.start, chunk.start == 0, &chunk.bytes[..]),
        };
        let lines = lines::backward(bytes, start, begins, query);
        // Nothing is left out where there is no more: what is older is gone.
        let more = start > oldest;
        Ok(Lines { truncated: lines.truncated && more, ..lines })
    }

    /// Looks at the file as it is now.
    pub(super) fn look(&self, state: &mut State) -> io::Result<Change> {
        match fs::symlink_metadata(self.path()) {
            Ok(metadata) if metadata.is_file() => Ok(state.see(Some(&metadata))),
            Ok(_) => Ok(state.see(None)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(state.see(None)),
            Err(error) => Err(error),
        }
    }

    /// Bytes from this place on, at most so many; from the oldest that are kept where they are gone.
    fn bytes(&self, offset: u64, want: usize) -> io::Result<Chunk> {
        let mut chunk = Chunk { start: offset, bytes: Vec::new(), lost: false };
        while chunk.bytes.len() < want {
            let at = chunk.start + chunk.bytes.len() as u64;
            let want = want - chunk.bytes.len();
            let kept = {
                let mut state = self.loaded()?;
                self.look(&mut state)?;
                match state.locate(at) {
                    Place::File(position) => {
                        // Under the lock, so that no hole is taken out from under the position.
                        let Some(file) = self.live()? else { break };
                        let mut buffer = vec![0; want.min(usize::try_from(state.length - position).unwrap_or(usize::MAX))];
                        let count = file.read_at(&mut buffer, position)?;
                        chunk.bytes.extend_from_slice(&buffer[..count]);
                        if count == 0 {
                            break;
                        }
                        continue;
                    }
                    Place::Part(kept) => kept,
                    Place::End => break,
                    Place::Gap(_) if !chunk.bytes.is_empty() => break,
                    Place::Gap(next) => {
                        (chunk.start, chunk.lost) = (next, true);
                        continue;
                    }
                }
            };
            match self.read_part(&kept.segment, at, want) {
                Ok(bytes) if !bytes.is_empty() => chunk.bytes.extend_from_slice(&bytes),
                // Compressed meanwhile, or removed: by us, which the state tells, or by somebody else, which it is told now.
                result => {
                    let mut state = self.loaded()?;
                    if let Some(same) = state.parts.iter().position(|other| other.segment == kept.segment) {
                        state.parts.remove(same);
                        if let Err(error) = result
                            && error.kind() != io::ErrorKind::NotFound
                        {
                            tracing::warn!(part = %self.path_of(&kept.segment).display(), %error, "cannot read a part of a log, it is left out");
                        }
                    }
                }
            }
        }
        Ok(chunk)
    }

    fn read_part(&self, segment: &Segment, at: u64, want: usize) -> io::Result<Vec<u8>> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path_of(segment))?;
        let want = want.min(usize::try_from(segment.end - at).unwrap_or(usize::MAX));
        if segment.compressed {
            return gzip::read_at(&mut file, at - segment.first, want);
        }
        let mut buffer = vec![0; want];
        let count = file.read_at(&mut buffer, at - segment.first)?;
        buffer.truncate(count);
        Ok(buffer)
    }
}

/// Bytes of a stream that follow one another.
struct Chunk {
    start: u64,
    bytes: Vec<u8>,
    /// They do not begin where they should: what was there is not kept.
    lost: bool,
}

/// Where a byte of the stream is.
enum Place {
    /// In the file, at this position.
    File(u64),
    /// In a part.
    Part(Kept),
    /// Nowhere any more; the next one that is kept is this.
    Gap(u64),
    /// It is not written yet.
    End,
}

impl State {
    /// How many bytes were ever written.
    pub(super) fn end(&self) -> u64 {
        self.base + self.length
    }

    /// The first byte from which on none is missing.
    fn oldest(&self) -> u64 {
        let file = if self.length > self.hole { self.base + self.hole } else { self.end() };
        self.parts
            .iter()
            .rev()
            .fold(file, |oldest, kept| if kept.segment.end >= oldest && kept.segment.first < oldest { kept.segment.first } else { oldest })
    }

    fn locate(&self, at: u64) -> Place {
        let first_in_file = self.base + self.hole;
        if at >= first_in_file && at < self.end() {
            return Place::File(at - self.base);
        }
        if let Some(kept) = self.parts.iter().find(|kept| kept.segment.first <= at && at < kept.segment.end) {
            return Place::Part(*kept);
        }
        if at == self.end() {
            return Place::End;
        }
        let in_file = (self.length > self.hole).then_some(first_in_file);
        let next = self.parts.iter().map(|kept| kept.segment.first).chain(in_file).filter(|first| *first > at).min();
        // Beyond the end: the stream began anew (its directory was removed while the daemon was away), and so does its reader.
        Place::Gap(next.unwrap_or_else(|| if at > self.end() { self.oldest() } else { self.end() }))
    }

    /// Takes note of the file as it is now.
    pub(super) fn see(&mut self, metadata: Option<&Metadata>) -> Change {
        let Some(metadata) = metadata else {
            let change = if self.identity.is_some() { Change::Missing } else { Change::Grown };
            self.begin_anew(None, 0);
            return change;
        };
        let identity = Identity::of(metadata);
        self.block = metadata.blksize().max(1);
        let change = match self.identity {
            Some(known) if known != identity => Change::Replaced,
            Some(_) if metadata.len() < self.length => Change::Truncated,
            Some(_) => {
                self.length = metadata.len();
                return Change::Grown;
            }
            None => Change::Grown,
        };
        self.begin_anew(Some(identity), metadata.len());
        self.cut_at = metadata.modified().ok();
        change
    }

    /// What was in the file is gone; whatever is in the new one is behind it.
    fn begin_anew(&mut self, identity: Option<Identity>, length: u64) {
        self.base = self.end();
        (self.begun, self.hole, self.length, self.identity) = (Some(self.base), 0, length, identity);
    }
}

/// Reads lines of a file that is not rotated; its offsets are positions in it.
///
/// # Errors
/// Those of open(2) and read(2), and `InvalidInput` where it is no regular file.
pub fn read_plain(path: &Path, query: &Query) -> io::Result<Lines> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file, so what was written to it cannot be read again"));
    }
    let end = metadata.len();
    let at = |from: u64, most: u64| -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; usize::try_from(most.min(end.saturating_sub(from))).unwrap_or(usize::MAX)];
        let count = file.read_at(&mut buffer, from)?;
        buffer.truncate(count);
        Ok(buffer)
    };
    let most = query.max_bytes as u64;
    if let Some(offset) = query.offset {
        // Somebody has cut it short: it begins anew.
        let (start, truncated) = if offset > end { (0, true) } else { (offset, false) };
        return Ok(Lines { truncated, ..lines::forward(&at(start, most)?, start, query) });
    }
    let start = end.saturating_sub(most);
    let begins = start == 0 || at(start - 1, 1)? == b"\n";
    Ok(lines::backward(&at(start, most)?, start, begins, query))
}
