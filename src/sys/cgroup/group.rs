//! One group, held by its directory: whatever becomes of its path, it is never taken for another.

use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::events::{Events, is_populated};
use crate::sys::check;
use crate::sys::pidfd::PidFd;

/// `CGROUP2_SUPER_MAGIC` (statfs(2)).
const MAGIC: libc::c_long = 0x6367_7270;

/// How often processes of a kernel without `cgroup.kill` are looked for: each time finds what was forked before the group stood still.
const KILL_ROUNDS: usize = 100;

/// A group of the version 2 hierarchy.
#[derive(Debug)]
pub struct Group(File);

impl Group {
    /// Opens the group of this directory.
    ///
    /// # Errors
    /// There is no such directory (`ENOENT`), or it is none of cgroup version 2 (`EINVAL`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        // SAFETY: all-zero is a valid statfs, which fstatfs fills in.
        let mut found: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: `found` outlives the call.
        check(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) }.into())?;
        if found.f_type as libc::c_long == MAGIC { Ok(Self(file)) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
    }

    /// A directory in the place of a group, to test what is read.
    #[cfg(test)]
    pub(crate) fn of_directory(path: &Path) -> Self {
        Self(File::open(path).unwrap())
    }

    /// One more handle of it.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Makes a group in it.
    ///
    /// # Errors
    /// `EEXIST` when there is one; `EACCES`, `EPERM` or `EROFS` where this process may not; `EAGAIN` when `cgroup.max.descendants` or
    /// `cgroup.max.depth` is reached; `ENOSPC` when the kernel has no more.
    pub fn create(&self, name: &str) -> io::Result<Self> {
        let c_name = checked(name)?;
        // SAFETY: mkdirat reads the string and nothing else.
        check(unsafe { libc::mkdirat(self.0.as_raw_fd(), c_name.as_ptr(), 0o755) }.into())?;
        self.child(name).inspect_err(|_| drop(self.remove(name)))
    }

    /// Opens a group in it.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        self.open_at(name, libc::O_RDONLY | libc::O_DIRECTORY).map(Self)
    }

    /// Removes a group in it that has no living process and no group of its own. Needs no descriptor.
    ///
    /// # Errors
    /// `EBUSY` when it has; `ENOENT` when there is none.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let name = checked(name)?;
        // SAFETY: unlinkat reads the string and nothing else.
        check(unsafe { libc::unlinkat(self.0.as_raw_fd(), name.as_ptr(), libc::AT_REMOVEDIR) }.into()).map(drop)
    }

    /// Removes a group in it, and the groups below that which its processes may have made. One that is gone already is fine.
    ///
    /// # Errors
    /// `EBUSY` when a process is alive in one of them.
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        match self.remove(name) {
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let group = self.child(name)?;
                if group.is_populated()? {
                    return Err(error);
                }
                for child in group.children()? {
                    group.remove_tree(&child)?;
                }
                self.remove(name).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
            }
            other => other,
        }
    }

    /// The names of the groups in it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn children(&self) -> io::Result<Vec<String>> {
        // Two links are the directory's own: most groups have none below, and are not read.
        if self.0.metadata()?.nlink() == 2 {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", self.0.as_raw_fd()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The living processes in it and below it, ascending. Those that this PID namespace does not show are not among them.
    ///
    /// # Errors
    /// The list cannot be read (no descriptor is left …). A group that was removed has no processes, and that is no error.
    pub fn members(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        self.collect(&mut pids)?;
        // The kernel's list has no order, and may have a process twice that moved meanwhile.
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn collect(&self, pids: &mut Vec<u32>) -> io::Result<()> {
        match self.read("cgroup.procs") {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0)),
            // A group of threads: their processes stand in the group above it, which is one of ours.
            Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
        for name in self.children()? {
            match self.child(&name) {
                Ok(child) => child.collect(pids)?,
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether a process is alive in it or below it.
    ///
    /// # Errors
    /// The file cannot be read. A group that was removed has none.
    pub fn is_populated(&self) -> io::Result<bool> {
        match self.read("cgroup.events") {
            Ok(text) => Ok(is_populated(&text)),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waiting until it is empty, in the runtime that this is called in.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn events(&self) -> io::Result<Events> {
        Events::new(self.open_at("cgroup.events", libc::O_RDONLY)?)
    }

    /// Moves a process into it, with all its threads.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process; `EACCES` where this process may not; `EBUSY` when controllers are enabled for the groups below.
    pub fn enter(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Sends SIGKILL to everything in it and below it, also to what is just being forked (`cgroup.kill`, Linux 5.14); on older kernels to one
    /// process after the other, while the group stands still. A group that was removed has nothing to be killed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.kill_each(),
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// As [`Group::kill`], without the kernel's help.
    fn kill_each(&self) -> io::Result<()> {
        // Frozen, nothing forks; SIGKILL ends a frozen process all the same (Linux 5.2).
        let frozen = self.write("cgroup.freeze", "1");
        let result = self.kill_rounds();
        if frozen.is_ok() {
            drop(self.write("cgroup.freeze", "0"));
        }
        result
    }

    fn kill_rounds(&self) -> io::Result<()> {
        for _ in 0..KILL_ROUNDS {
            let held: Vec<(u32, PidFd)> = self.members()?.into_iter().filter_map(|pid| Some((pid, PidFd::open(pid).ok()?))).collect();
            // What is still listed now is what the descriptor holds, or a later process of this very group.
            let listed = self.members()?;
            for (_, fd) in held.iter().filter(|(pid, _)| listed.contains(pid)) {
                drop(fd.send_signal(libc::SIGKILL));
            }
            if listed.iter().all(|pid| held.iter().any(|(held, _)| held == pid)) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether it was delegated to whoever runs in it: systemd marks such groups with an extended attribute. A hint only.
    pub fn is_delegated(&self) -> bool {
        [c"user.delegate", c"trusted.delegate"].iter().any(|name| {
            let mut value = [0_u8; 8];
            // SAFETY: fgetxattr reads the name and writes at most as many bytes as `value` has.
            let length = unsafe { libc::fgetxattr(self.0.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
            usize::try_from(length).is_ok_and(|length| value[..length].starts_with(b"1"))
        })
    }

    /// The user who owns it.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(self.0.metadata()?.uid())
    }

    /// What a file of it says.
    pub(super) fn read(&self, file: &str) -> io::Result<String> {
        let mut file = self.open_at(file, libc::O_RDONLY)?;
        let mut text = Vec::new();
        // Most are shorter than this, and none says how long it is: asking for that would be two system calls more.
        let mut buffer = [0; 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return String::from_utf8(text).map_err(io::Error::other),
                Ok(length) => text.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a file of it, with one write(2): the kernel takes it whole or not at all.
    ///
    /// # Errors
    /// `ENOENT` when the controller of that file is not enabled; what the file's own documentation says.
    pub fn write(&self, file: &str, value: &str) -> io::Result<()> {
        self.open_at(file, libc::O_WRONLY)?.write(value.as_bytes()).map(drop)
    }

    fn open_at(&self, name: &str, flags: libc::c_int) -> io::Result<File> {
        let name = checked(name)?;
        // SAFETY: openat reads the string and nothing else.
        let fd = unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NOFOLLOW) };
        let fd = RawFd::try_from(check(fd.into())?).map_err(io::Error::other)?;
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Group {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Whether it says that there is no such group (any more).
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// One name in a directory, that leads nowhere else.
fn checked(name: &str) -> io::Result<CString> {
    let leads_elsewhere = matches!(name, "" | "." | "..") || name.contains('/') || name.len() > 255;
    if leads_elsewhere {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    CString::new(OsStr::new(name).as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGroup;
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn no_name_leads_out_of_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::of_directory(dir.path());
        for name in ["", ".", "..", "../x", "a/b", "/", "a\0b", &"x".repeat(256)] {
            assert_eq!(group.create(name).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{name:?}");
            assert_eq!(group.remove_tree(name).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{name:?}");
        }
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        assert!(group.child("link").is_err(), "a link is not followed");
        assert_eq!(Group::open(dir.path()).unwrap_err().raw_os_error(), Some(libc::EINVAL), "this is no group");
    }

    #[test]
    fn members_are_found_below_too_and_killed_together() {
        let Some(test) = TestGroup::new("kill") else { return };
        let below = test.group.create("below").unwrap().create("deep").unwrap();
        let mut children = [sleeper(), sleeper()];
        test.group.enter(children[0].id()).unwrap();
        below.enter(children[1].id()).unwrap();
        let mut expected = children.each_ref().map(Child::id);
        expected.sort_unstable();
        assert_eq!(test.group.members().unwrap(), expected);
        assert!(test.group.is_populated().unwrap() && below.is_populated().unwrap());
        assert_eq!(test.parent_remove().unwrap_err().raw_os_error(), Some(libc::EBUSY), "nothing is removed under the living");
        test.group.kill().unwrap();
        for child in &mut children {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(libc::SIGKILL));
        }
        assert_eq!((test.group.members().unwrap(), test.group.is_populated().unwrap()), (vec![], false));
        test.parent_remove().unwrap();
        assert_eq!((test.group.members().unwrap(), test.group.is_populated().unwrap()), (vec![], false), "removed");
        test.group.kill().unwrap();
    }

    #[test]
    fn without_the_kernels_help_each_is_killed() {
        let Some(test) = TestGroup::new("each") else { return };
        let mut children = [sleeper(), sleeper(), sleeper()];
        let below = test.group.create("below").unwrap();
        for child in &children {
            below.enter(child.id()).unwrap();
        }
        test.group.kill_each().unwrap();
        for child in &mut children {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(libc::SIGKILL));
        }
        assert!(test.group.read("cgroup.freeze").unwrap().starts_with('0'), "the group goes on");
    }
}
