//! What the standard library does not say of files: giving back room in the middle of one, and what is left on its file system.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::check;

fn offset(number: u64) -> io::Result<libc::off_t> {
    number.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

fn fallocate(file: &File, mode: libc::c_int, at: u64, length: u64) -> io::Result<()> {
    let (at, length) = (offset(at)?, offset(length)?);
    loop {
        // SAFETY: takes numbers only; the descriptor is open for as long as `file` is borrowed.
        match check(unsafe { libc::fallocate(file.as_raw_fd(), mode, at, length) }.into()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// Gives the room of a range back to the file system; it reads as zeros from then on, and the file keeps its length (fallocate(2)).
///
/// # Errors
/// `EOPNOTSUPP` where the file system knows no holes.
pub fn punch_hole(file: &File, at: u64, length: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, length)
}

/// Takes the first bytes out of a file: what follows moves to the front (fallocate(2)). A writer that appends goes on at the new end.
///
/// # Errors
/// `EOPNOTSUPP` where the file system cannot (only ext4 and xfs can), `EINVAL` where `length` is no multiple of its block or not less than the file's.
pub fn collapse_head(file: &File, length: u64) -> io::Result<()> {
    fallocate(file, libc::FALLOC_FL_COLLAPSE_RANGE, 0, length)
}

/// Where the first data at or behind `from` begins, `None` where there is only a hole up to the end (lseek(2), `SEEK_DATA`).
///
/// A file system that knows no holes says `from`. The file's position is changed.
pub fn first_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    // SAFETY: takes numbers only; the descriptor is open for as long as `file` is borrowed.
    match check(unsafe { libc::lseek(file.as_raw_fd(), offset(from)?, libc::SEEK_DATA) }) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file system's room in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Altogether.
    pub size: u64,
    /// What a program without privileges may still take.
    pub available: u64,
}

/// The room of the file system that holds `path` (statvfs(3)).
pub fn room(path: &Path) -> io::Result<Room> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    // `fsblkcnt_t` is 32 bits wide on some targets.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let bytes = |blocks: libc::fsblkcnt_t| u64::from(blocks).saturating_mul(stat.fragment_size() as u64);
    Ok(Room { size: bytes(stat.blocks()), available: bytes(stat.blocks_available()) })
}

/// Puts the calling thread behind everything else that wants a processor or a disk (sched_setscheduler(2) `SCHED_IDLE`, ioprio_set(2) class idle).
/// What of it the kernel refuses is left undone.
pub fn yield_to_all() {
    // IOPRIO_WHO_PROCESS, and IOPRIO_CLASS_IDLE in the upper bits (linux/ioprio.h).
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: all-zero is a valid sched_param, and what SCHED_IDLE wants; both calls read their arguments and change this thread only.
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters);
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_hole_is_found_and_taken_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = File::options().append(true).read(true).create(true).open(&path).unwrap();
        file.write_all(&[1; 4096 * 3]).unwrap();
        match punch_hole(&file, 0, 4096 * 2) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return println!("skipped: this file system knows no holes"),
            result => result.unwrap(),
        }
        assert_eq!(first_data(&file, 0).unwrap(), Some(4096 * 2));
        assert_eq!(first_data(&file, 4096 * 3).unwrap(), None);
        assert_eq!(file.metadata().unwrap().len(), 4096 * 3);
        match collapse_head(&file, 4096 * 2) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => println!("skipped: this file system cannot collapse"),
            result => {
                result.unwrap();
                assert_eq!(std::fs::read(&path).unwrap(), [1; 4096]);
            }
        }
        assert!(collapse_head(&file, 1).is_err());
    }

    #[test]
    fn a_file_system_has_room() {
        let room = room(Path::new("/")).unwrap();
        assert!(room.size > 0 && room.available <= room.size, "{room:?}");
    }
}
