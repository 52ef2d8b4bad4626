//! Cutting a file under its writer, without losing a byte and without the writer's help.
//!
//! A rotation copies the head of the file to a part, and then punches a hole where it was: the disk is free again, and every byte keeps its position,
//! so whatever moment the daemon is killed at, nothing is lost, and nothing is there twice that [`super::stream`] would not know to be the same. When
//! little is written, the hole is taken out and the file is as short as it looks; [`super::record`] says how that survives a kill.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime};

use super::gzip;
use super::place::{self, Segment};
use super::plan::{Facts, Part};
use super::stream::{Change, Kept, State, Stream};
use crate::sys::file;

/// What a look at a stream showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// What became of the file.
    pub change: Change,
    /// How many bytes were ever written.
    pub end: u64,
    /// For the plan; its `rate` and `full` are for the caller to fill in.
    pub facts: Facts,
}

impl Stream {
    /// Looks at the stream. Ages are told against `now`.
    ///
    /// # Errors
    /// Those of looking at its files.
    pub fn examine(&self, now: SystemTime) -> io::Result<Look> {
        let mut state = self.loaded()?;
        let change = self.look(&mut state)?;
        self.finish_cut(&mut state)?;
        let since = |time: SystemTime| now.duration_since(time).unwrap_or(Duration::ZERO);
        let parts = state.parts.iter().map(|kept| Part { compressed: kept.segment.compressed, age: since(kept.written) }).collect();
        let facts = Facts {
            data: state.length.saturating_sub(state.hole),
            hole: if state.cannot_collapse { 0 } else { state.hole },
            block: state.block,
            since_cut: state.cut_at.map_or(Duration::ZERO, since),
            parts,
            rate: 0.0,
            full: false,
        };
        Ok(Look { change, end: state.end(), facts })
    }

    /// A daemon that was killed may have copied a part and not cut it off: that is done now.
    fn finish_cut(&self, state: &mut State) -> io::Result<()> {
        let Some(behind) = state.parts.last().map(|kept| kept.segment.end) else { return Ok(()) };
        if behind <= state.base + state.hole || behind >= state.end() {
            return Ok(());
        }
        let bytes = behind - state.base - state.hole;
        self.punch(state, bytes)
    }

    /// Whether the file system can punch holes; tried on a file of its own.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where it cannot, others where it could not be tried.
    pub fn try_to_cut(&self) -> io::Result<()> {
        let path = self.directory.join(place::unfinished(self.name, "trial"));
        let tried = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path).and_then(|file| {
            file.set_len(1 << 20)?;
            file::punch_hole(&file, 0, 1 << 19)
        });
        fs::remove_file(&path)?;
        tried
    }

    /// Gives the first bytes of the data away: one part for each number. Answers how many parts were made; fewer than asked for where the file
    /// was changed by somebody else meanwhile.
    ///
    /// # Errors
    /// Those of the file system; `ENOSPC` among them. What was not finished is removed.
    pub fn rotate(&self, sizes: &[u64]) -> io::Result<usize> {
        for (made, &bytes) in sizes.iter().enumerate() {
            let (first, position, identity) = {
                let mut state = self.loaded()?;
                self.record(&mut state, 0)?;
                (state.base + state.hole, state.hole, state.identity)
            };
            let Some(mut source) = self.live()? else { return Ok(made) };
            let written = source.metadata()?.modified()?;
            let segment = Segment { first, end: first + bytes, compressed: false };
            let name = segment.file_name(self.name);
            let unfinished = self.directory.join(place::unfinished(self.name, &name));
            let copied = copy(&mut source, position, bytes, &unfinished, written);
            if let Err(error) = copied {
                fs::remove_file(&unfinished).or_else(missing_is_fine)?;
                return Err(error);
            }
            let mut state = self.loaded()?;
            self.look(&mut state)?;
            if (state.base + state.hole, state.hole, state.identity) != (first, position, identity) || state.length <= position + bytes {
                fs::remove_file(&unfinished)?;
                return Ok(made);
            }
            fs::rename(&unfinished, self.directory.join(name))?;
            state.parts.push(Kept { segment, written });
            state.cut_at = Some(written);
            self.punch(&mut state, bytes)?;
        }
        Ok(sizes.len())
    }

    /// Gives the first bytes of the data up. Answers whether it was done.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn drop_head(&self, bytes: u64) -> io::Result<bool> {
        let mut state = self.loaded()?;
        self.look(&mut state)?;
        if state.length.saturating_sub(state.hole) <= bytes {
            return Ok(false);
        }
        self.record(&mut state, 0).or_else(|error| if error.raw_os_error() == Some(libc::ENOSPC) { Ok(()) } else { Err(error) })?;
        self.punch(&mut state, bytes)?;
        Ok(true)
    }

    /// The next bytes of the data become part of the hole in front.
    fn punch(&self, state: &mut State, bytes: u64) -> io::Result<()> {
        let Some(file) = self.live()? else { return Ok(()) };
        file::punch_hole(&file, state.hole, bytes)?;
        state.hole += bytes;
        Ok(())
    }

    /// Takes the hole in front out of the file, where the file system can.
    ///
    /// # Errors
    /// Those of the file system; that it cannot is none.
    pub fn collapse(&self) -> io::Result<()> {
        let mut state = self.loaded()?;
        self.look(&mut state)?;
        let hole = state.hole / state.block * state.block;
        if hole == 0 || state.length <= hole || state.cannot_collapse {
            return Ok(());
        }
        let Some(file) = self.live()? else { return Ok(()) };
        self.record(&mut state, hole)?;
        match file::collapse_head(&file, hole) {
            Ok(()) => {
                state.base += hole;
                state.hole -= hole;
                state.length -= hole;
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)) => {
                state.cannot_collapse = true
            }
            Err(error) => {
                self.record(&mut state, 0)?;
                return Err(error);
            }
        }
        self.record(&mut state, 0)
    }

    /// Removes so many of the oldest parts. One that is gone already is no error.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let mut state = self.loaded()?;
            let Some(kept) = state.parts.first().copied() else { return Ok(()) };
            fs::remove_file(self.path_of(&kept.segment)).or_else(missing_is_fine)?;
            state.parts.remove(0);
        }
        Ok(())
    }

    /// When the oldest part that may go is from: every one but the newest.
    ///
    /// # Errors
    /// Those of looking at its files.
    pub fn oldest_removable(&self) -> io::Result<Option<SystemTime>> {
        let state = self.loaded()?;
        Ok(state.parts.first().filter(|_| state.parts.len() > 1).map(|kept| kept.written))
    }

    /// The part with this number, from the oldest, if it is to be compressed and nobody was told to yet.
    ///
    /// # Errors
    /// Those of looking at its files.
    pub fn queue(&self, at: usize) -> io::Result<Option<Segment>> {
        let mut state = self.loaded()?;
        let Some(segment) = state.parts.get(at).map(|kept| kept.segment) else { return Ok(None) };
        if segment.compressed || state.queued.contains(&segment.first) {
            return Ok(None);
        }
        state.queued.push(segment.first);
        Ok(Some(segment))
    }

    /// Nobody will compress this part now after all.
    ///
    /// # Errors
    /// Those of looking at its files.
    pub fn unqueue(&self, segment: Segment) -> io::Result<()> {
        self.loaded()?.queued.retain(|first| *first != segment.first);
        Ok(())
    }

    /// Compresses a part that was queued. `go_on` is asked now and then.
    ///
    /// # Errors
    /// Those of the file system; the part stays as it is then.
    pub fn compress(&self, segment: Segment, go_on: impl FnMut() -> bool) -> io::Result<()> {
        let result = self.compress_queued(segment, go_on);
        self.unqueue(segment)?;
        result
    }

    fn compress_queued(&self, segment: Segment, go_on: impl FnMut() -> bool) -> io::Result<()> {
        let plain = self.path_of(&segment);
        let mut source = match File::open(&plain) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            source => source?,
        };
        let written = source.metadata()?.modified()?;
        let compressed = Segment { compressed: true, ..segment };
        let name = compressed.file_name(self.name);
        let unfinished = self.directory.join(place::unfinished(self.name, &name));
        let make = || {
            let mut target = create(&unfinished)?;
            gzip::compress(&mut source, &mut target, go_on)?;
            target.set_modified(written)?;
            target.sync_data()
        };
        if let Err(error) = make() {
            fs::remove_file(&unfinished).or_else(missing_is_fine)?;
            return Err(error);
        }
        let mut state = self.loaded()?;
        let Some(kept) = state.parts.iter_mut().find(|kept| kept.segment == segment) else { return fs::remove_file(&unfinished) };
        fs::rename(&unfinished, self.directory.join(name))?;
        kept.segment = compressed;
        fs::remove_file(&plain).or_else(missing_is_fine)
    }
}

fn create(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
}

/// Copies a range to a new file, in the kernel where it can (copy_file_range(2)), and waits until it is on the disk: it is about to be the only copy.
fn copy(source: &mut File, position: u64, bytes: u64, target: &std::path::Path, written: SystemTime) -> io::Result<()> {
    source.seek(SeekFrom::Start(position))?;
    let mut target = create(target)?;
    let copied = io::copy(&mut Read::by_ref(source).take(bytes), &mut target)?;
    if copied != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    target.set_modified(written)?;
    target.sync_data()
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
