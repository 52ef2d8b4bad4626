//! Opening and reading the files of `/proc` with as few system calls and allocations as there can be.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};

use super::stat::{Identity, Stat};

/// Where a buffer starts: more than `stat`, `status`, `smaps_rollup`, `io` and nearly every command line need.
const FIRST_SIZE: usize = 8 << 10;

/// What is read of one file at most. Linux allows arguments and environment of one process 6 MiB together (execve(2)); what could be larger
/// is a command line that its process has redefined (prctl(2), `PR_SET_MM`), and that shall not make the daemon's memory grow.
const LARGEST: usize = 8 << 20;

/// The process that this error tells of is gone: its files are not there (ENOENT) or answer for nobody (ESRCH).
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// The host does not let this daemon see the process (another user's, with `hidepid` or ptrace restrictions).
pub(crate) fn is_hidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// Opens a directory to read in it with [`read_at`].
pub(crate) fn open_dir(path: &str) -> io::Result<OwnedFd> {
    Ok(fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.into())
}

/// Opens `path` in `dir`, reads it into `buffer` (reused, never shrunk) and closes it.
pub(crate) fn read_at<'b>(dir: impl AsFd, path: &str, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let mut file = open_at(dir, path)?;
    fill(buffer, |rest, _| file.read(rest))
}

fn open_at(dir: impl AsFd, path: &str) -> io::Result<File> {
    Ok(File::from(openat(dir, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?))
}

/// Reads an open file from its start, wherever others read it, into `buffer` (reused, never shrunk).
///
/// The files of a process in `/proc` fill the buffer as far as they can, so that a read which leaves room was the last one
/// and the usual file costs one `pread(2)`.
pub(crate) fn read_from_start<'b>(file: &File, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    fill(buffer, |rest, filled| file.read_at(rest, filled as u64))
}

fn fill(buffer: &mut Vec<u8>, mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>) -> io::Result<&[u8]> {
    if buffer.len() < FIRST_SIZE {
        buffer.resize(FIRST_SIZE, 0);
    }
    let mut filled = 0;
    loop {
        match read(&mut buffer[filled..], filled) {
            Ok(count) => {
                filled += count;
                if filled < buffer.len() || filled >= LARGEST {
                    return Ok(&buffer[..filled]);
                }
                let larger = buffer.len() * 2;
                buffer.resize(larger, 0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What was read of a process, or `None` when it is gone or hidden: for passes over all processes, which neither may break.
/// What has nothing to do with that process (EMFILE, ENOMEM …) stays an error: the answer would lack processes that live.
pub(crate) fn for_the_living<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if is_gone(&error) || is_hidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The directory `/proc` with a buffer: reads the files of many processes, one after the other.
#[derive(Debug)]
pub(crate) struct Proc {
    dir: OwnedFd,
    path: String,
    buffer: Vec<u8>,
}

impl Proc {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { dir: open_dir("/proc")?, path: String::with_capacity(32), buffer: Vec::new() })
    }

    /// Opens `/proc/PID/FILE`. Fails with ENOENT or ESRCH when the process is gone.
    pub(crate) fn open_file(&mut self, pid: u32, file: &str) -> io::Result<File> {
        self.name(pid, file);
        open_at(&self.dir, &self.path)
    }

    /// The content of `/proc/PID/FILE`. Fails with ENOENT or ESRCH when the process is gone.
    pub(crate) fn read(&mut self, pid: u32, file: &str) -> io::Result<&[u8]> {
        self.name(pid, file);
        read_at(&self.dir, &self.path, &mut self.buffer)
    }

    fn name(&mut self, pid: u32, file: &str) {
        use std::fmt::Write as _;
        self.path.clear();
        let _ = write!(self.path, "{pid}/{file}"); // a String takes everything
    }

    /// Like [`Proc::read`], but [`for_the_living`].
    pub(crate) fn read_of_living(&mut self, pid: u32, file: &str) -> io::Result<Option<&[u8]>> {
        for_the_living(self.read(pid, file))
    }
}

/// Every PID of the host, ascending.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::with_capacity(256);
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let name = name.as_encoded_bytes();
        if name.first().is_some_and(u8::is_ascii_digit) {
            pids.extend(number::<u32>(name));
        }
    }
    pids.sort_unstable(); // the kernel lists them in this order: one comparison each
    Ok(pids)
}

/// A decimal number, and nothing else.
pub(crate) fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// One process's directory in `/proc`, held open.
///
/// The kernel ties an open `/proc/PID` to the process and not to the number: after its end every look into it fails with ENOENT or ESRCH,
/// whoever has the PID by then. One descriptor for each process is all that is kept. Keeping `stat`, `status`, `smaps_rollup`, `io` and
/// `fd` open too would save about 2 µs for each of them and sample (24 instead of 31 µs), but takes five descriptors more, a kernel page
/// for each of the first four, and shows the memory of the old program after an exec.
#[derive(Debug)]
pub struct ProcessDir {
    dir: OwnedFd,
    identity: Identity,
}

impl ProcessDir {
    /// Opens the directory of this very process.
    ///
    /// # Errors
    /// ENOENT or ESRCH ([`is_gone`]) when it has ended, also when another process has its PID now; what open(2) says otherwise.
    pub fn open(identity: Identity) -> io::Result<Self> {
        let this = Self { dir: open_dir(&format!("/proc/{}", identity.pid))?, identity };
        if this.stat(&mut Vec::new())?.identity() == identity { Ok(this) } else { Err(Errno::ESRCH.into()) }
    }

    /// The process.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The content of one of its files, read into `buffer`.
    ///
    /// # Errors
    /// ENOENT or ESRCH ([`is_gone`]) when the process is gone (or the kernel has no such file); EACCES or EPERM when it is not shown to us.
    pub fn read<'b>(&self, file: &str, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        read_at(&self.dir, file, buffer)
    }

    /// What its `stat` says.
    ///
    /// # Errors
    /// As for [`ProcessDir::read`].
    pub fn stat(&self, buffer: &mut Vec<u8>) -> io::Result<Stat> {
        Stat::parse(self.read("stat", buffer)?)
    }

    /// How many file descriptors it has open.
    ///
    /// # Errors
    /// As for [`ProcessDir::read`].
    pub fn count_fds(&self) -> io::Result<u64> {
        // Since Linux 6.2 the size of the directory is the number of descriptors; before, it is 0.
        let size = fstatat(&self.dir, "fd", AtFlags::empty())?.st_size;
        match u64::try_from(size) {
            Ok(count) if count > 0 => Ok(count),
            // Through our own descriptor, so that this too is asked of the very process.
            Ok(_) | Err(_) => Ok(fs::read_dir(format!("/proc/self/fd/{}/fd", self.dir.as_raw_fd()))?.count() as u64),
        }
    }

    /// Takes another directory for that of a process, so that a test can hold up its readers.
    #[cfg(test)]
    pub(crate) fn pretend(path: &str, identity: Identity) -> io::Result<Self> {
        Ok(Self { dir: open_dir(path)?, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::read_stat;
    use crate::procfs::testing::TestProcess;
    use std::process::Command;

    #[test]
    fn a_directory_speaks_of_one_process_only() {
        let mut child = TestProcess::sleep();
        let identity = read_stat(child.id()).unwrap().identity();
        let dir = ProcessDir::open(identity).unwrap();
        assert_eq!(dir.stat(&mut Vec::new()).unwrap().identity(), identity);
        let another = Identity { start_time: identity.start_time + 1, ..identity };
        assert!(is_gone(&ProcessDir::open(another).unwrap_err()), "the PID alone is not enough");
        child.end();
        assert!(is_gone(&dir.stat(&mut Vec::new()).unwrap_err()));
        assert!(is_gone(&dir.count_fds().unwrap_err()));
        assert!(is_gone(&ProcessDir::open(identity).unwrap_err()));
    }

    #[test]
    fn descriptors_are_counted() {
        let child = TestProcess::sleep();
        let dir = ProcessDir::open(read_stat(child.id()).unwrap().identity()).unwrap();
        let listed = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count() as u64;
        assert_eq!(dir.count_fds().unwrap(), listed);
        let through_us = fs::read_dir(format!("/proc/self/fd/{}/fd", dir.dir.as_raw_fd())).unwrap().count() as u64;
        assert_eq!(through_us, listed, "the way for kernels before 6.2");
    }

    #[test]
    fn a_file_larger_than_the_buffer_is_read_whole() {
        let long = "x".repeat(3 * FIRST_SIZE);
        let child = TestProcess::start(Command::new("/bin/sleep").arg("1000").env("LONG", &long));
        let mut proc = Proc::open().unwrap();
        let environ = proc.read(child.id(), "environ").unwrap();
        assert!(environ.windows(long.len()).any(|window| window == long.as_bytes()));
    }
}
