//! One process as `/proc/PID/stat` tells it (proc_pid_stat(5)).

use std::io;
use std::os::unix::fs::MetadataExt;

use super::file::{Proc, number};

/// A process, also after its PID was given to another one: the kernel never gives both the same start time in ticks and the same number,
/// as it goes round all numbers before it uses one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Its PID.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

/// What the kernel tells of one process in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its PID.
    pub pid: u32,
    /// The kernel's name for it, any bytes but NUL; at most 15, for kernel threads up to 63.
    pub comm: Box<[u8]>,
    /// Its state, one letter of proc_pid_stat(5).
    pub state: u8,
    /// The parent's PID; 0 where it has none in our PID namespace.
    pub ppid: u32,
    /// Its process group.
    pub pgrp: i32,
    /// Its session: the PID of the process that called setsid(2).
    pub session: i32,
    /// Time in user mode, in clock ticks.
    pub utime: u64,
    /// Time in kernel mode, in clock ticks.
    pub stime: u64,
    /// Threads.
    pub threads: u64,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
    /// Virtual memory in bytes.
    pub vsize: u64,
    /// Resident set size in pages. Newer kernels count it a little imprecisely here; [`crate::status`] reads it elsewhere.
    pub rss_pages: u64,
}

impl Stat {
    /// Reads the line apart. The name may hold blanks, parentheses and newlines, so it ends at the last parenthesis.
    ///
    /// # Errors
    /// `InvalidData` when this is no such line.
    pub fn parse(line: &[u8]) -> io::Result<Self> {
        Self::parts(line)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel's line in /proc/PID/stat is not as in proc_pid_stat(5)"))
    }

    fn parts(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|&byte| byte == b'(')?;
        let close = line.iter().rposition(|&byte| byte == b')')?;
        let pid = number(line[..open].trim_ascii())?;
        let comm = line.get(open + 1..close)?.into();
        let mut fields = line[close + 1..].trim_ascii().split(|&byte| byte == b' ');
        // The fields' numbers in proc_pid_stat(5); `nth` skips those between.
        let state = match *fields.next()? {
            [letter] => letter, // (3)
            _ => return None,
        };
        let ppid = number(fields.next()?)?; // (4)
        let pgrp = number(fields.next()?)?; // (5)
        let session = number(fields.next()?)?; // (6)
        let utime = number(fields.nth(7)?)?; // (14)
        let stime = number(fields.next()?)?; // (15)
        let threads = number(fields.nth(4)?)?; // (20)
        let start_time = number(fields.nth(1)?)?; // (22)
        let vsize = number(fields.next()?)?; // (23)
        let rss_pages = number::<i64>(fields.next()?)?.max(0).unsigned_abs(); // (24), signed in the kernel
        Some(Self { pid, comm, state, ppid, pgrp, session, utime, stime, threads, start_time, vsize, rss_pages })
    }

    /// Which process this is.
    pub fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time: self.start_time }
    }

    /// It has ended: it waits for its parent to read its exit status (Z), or is just being removed (X, x).
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Nothing of it runs any more. A main thread that ended before the others is a zombie too, with living threads beside it.
    pub fn is_dead(&self) -> bool {
        self.is_zombie() && self.threads <= 1
    }

    /// The kernel's name for it as text; bytes that are not UTF-8 become U+FFFD.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.comm).into_owned()
    }

    /// Processor time so far, user and kernel mode together, in clock ticks.
    pub fn ticks(&self) -> u64 {
        self.utime.saturating_add(self.stime)
    }

    /// psutil's word for the state: "sleeping", "disk-sleep" …, "?" for a letter that is new.
    pub fn state_word(&self) -> &'static str {
        match self.state {
            b'R' => "running",
            b'S' => "sleeping",
            b'D' => "disk-sleep",
            b'T' => "stopped",
            b't' => "tracing-stop",
            b'Z' => "zombie",
            b'X' | b'x' => "dead",
            b'K' => "wake-kill",
            b'W' => "waking",
            b'I' => "idle",
            b'P' => "parked",
            _ => "?",
        }
    }
}

/// What the kernel says of the process that has this PID now.
///
/// # Errors
/// ENOENT or ESRCH when there is none ([`super::is_gone`]).
pub fn read_stat(pid: u32) -> io::Result<Stat> {
    Stat::parse(Proc::open()?.read(pid, "stat")?)
}

/// How a process ended that its parent has not reaped yet, as wait(2) would tell its parent (field 52 of proc_pid_stat(5)); `None` while it lives, and
/// where the kernel would not tell us the truth: to whom may not trace a process it says 0.
///
/// # Errors
/// ENOENT or ESRCH when there is no such process ([`super::is_gone`]).
pub fn read_exit_code(pid: u32) -> io::Result<Option<i32>> {
    let mut proc = Proc::open()?;
    let line = proc.read(pid, "stat")?;
    let stat = Stat::parse(line)?;
    let code = line.rsplit(|&byte| byte == b')').next().and_then(|fields| number(fields.trim_ascii().split(|&byte| byte == b' ').nth(49)?));
    let own = nix::unistd::geteuid().as_raw();
    // The directory belongs to the user whom the process ran as at last.
    let may_trace = own == 0 || std::fs::metadata(format!("/proc/{pid}"))?.uid() == own;
    Ok(code.filter(|_| stat.state == b'Z' && stat.is_dead() && may_trace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_zombie_tells_how_it_ended() {
        for (script, expected) in [("exit 7", 7 << 8), ("kill -KILL $$", 9)] {
            let mut child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let mut code = None;
            crate::procfs::testing::until(|| {
                code = read_exit_code(child.id()).unwrap();
                code.is_some()
            });
            assert_eq!(code, Some(expected), "{script}");
            child.wait().unwrap();
        }
        assert_eq!(read_exit_code(std::process::id()).unwrap(), None, "we live");
    }

    fn line(comm: &[u8]) -> Vec<u8> {
        [b"42 (", comm, b") S 7 40 39 34816 42 4194304 1 2 3 4 55 66 7 8 20 0 3 0 198915 3133440 418 18446744073709551615 1 2 3\n"].concat()
    }

    #[test]
    fn every_field_is_where_the_manual_says() {
        let stat = Stat::parse(&line(b"cat")).unwrap();
        let expected = Stat {
            pid: 42,
            comm: b"cat"[..].into(),
            state: b'S',
            ppid: 7,
            pgrp: 40,
            session: 39,
            utime: 55,
            stime: 66,
            threads: 3,
            start_time: 198_915,
            vsize: 3_133_440,
            rss_pages: 418,
        };
        assert_eq!(stat, expected);
        assert_eq!((stat.ticks(), stat.state_word(), stat.is_zombie()), (121, "sleeping", false));
    }

    #[test]
    fn our_own_line_agrees_with_the_system() {
        let own = read_stat(std::process::id()).unwrap();
        assert_eq!(own.pid, std::process::id());
        assert_eq!(own.ppid, nix::unistd::getppid().as_raw().unsigned_abs());
        assert_eq!(own.pgrp, nix::unistd::getpgrp().as_raw());
        assert_eq!(own.session, nix::unistd::getsid(None).unwrap().as_raw());
    }

    #[test]
    fn nobody_has_pid_0() {
        assert!(super::super::is_gone(&read_stat(0).unwrap_err()));
    }

    proptest! {
        #[test]
        fn any_name_is_read_back(comm in proptest::collection::vec(1..=255_u8, 0..64)) {
            let stat = Stat::parse(&line(&comm)).unwrap();
            prop_assert_eq!(&*stat.comm, &comm[..]);
            prop_assert_eq!((stat.pid, stat.start_time, stat.rss_pages), (42, 198_915, 418));
        }

        #[test]
        fn rubbish_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Stat::parse(&bytes);
        }

        #[test]
        fn a_cut_line_is_refused(length in 0..80_usize) {
            prop_assert!(Stat::parse(&line(b"a) b (")[..length]).is_err());
        }
    }
}
