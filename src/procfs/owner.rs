//! Whose a process is, as far as its mark says.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::file::Proc;
use super::stat::Stat;
use super::table::Table;

/// What a daemon calls itself in the marks of its processes: the same for the next one with its state directory, and another for any other daemon.
///
/// `DEVICE-INODE-PATH`: the directory itself, and a sum of its path. A daemon whose directory was lost, or came back as another one (a new mount),
/// is still the one that held this path: no two hold the same at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    directory: String,
    path: String,
}

/// How a mark says whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// By the directory.
    Ours,
    /// By the directory, which had another path: it was moved, or another daemon's was removed, and its inode used again.
    Moved,
    /// By its path alone: that may be another one's in another mount namespace, or that of a daemon whose directory was moved away.
    PerhapsOurs,
    Another,
}

impl Owner {
    /// The owner of the state directory at this path without links, which is called so by itself (`DEVICE-INODE`).
    pub fn new(directory: &str, path: &Path) -> Self {
        Self { directory: directory.to_owned(), path: format!("{:016x}", sum(path.as_os_str().as_encoded_bytes())) }
    }

    fn claim(&self, text: &str) -> Claim {
        // Earlier builds wrote the directory alone.
        let (directory, path) = match text.splitn(3, '-').collect::<Vec<_>>()[..] {
            [device, inode] => (format!("{device}-{inode}"), None),
            [device, inode, path] => (format!("{device}-{inode}"), Some(path)),
            _ => return Claim::Another,
        };
        if directory == self.directory {
            if path.is_none_or(|path| path == self.path) { Claim::Ours } else { Claim::Moved }
        } else if path == Some(self.path.as_str()) {
            Claim::PerhapsOurs
        } else {
            Claim::Another
        }
    }

    /// Whether a process whose mark says so is of an earlier daemon in this one's place.
    pub(super) fn owns(&self, text: &str, stat: &Stat, table: &Table) -> bool {
        match self.claim(text) {
            Claim::Ours => true,
            Claim::Moved => !is_below_another(stat, table),
            Claim::PerhapsOurs => same_mounts(stat.pid) && !is_below_another(stat, table),
            Claim::Another => false,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.directory, self.path)
    }
}

/// The real user of the process that has this PID now (`Uid:` of proc_pid_status(5)). Unlike that of its directory in `/proc`, nobody can make it another's.
///
/// # Errors
/// ENOENT or ESRCH when there is no such process ([`super::is_gone`]).
pub fn read_real_user(pid: u32) -> io::Result<u32> {
    let mut proc = Proc::open()?;
    let text = String::from_utf8_lossy(proc.read(pid, "status")?);
    // A name with a line feed in it is escaped there.
    let user = text.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    user.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// FNV-1a of 64 bits.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Whether a path means the same to that process as here (namespaces(7)).
fn same_mounts(pid: u32) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    namespace("self").is_some_and(|ours| namespace(&pid.to_string()) == Some(ours))
}

/// Whether a daemon lives above it that is not this one.
fn is_below_another(stat: &Stat, table: &Table) -> bool {
    let (mut above, mut seen) = (stat.ppid, BTreeSet::new());
    while seen.insert(above)
        && let Some(parent) = table.get(above)
    {
        if *parent.comm == *b"procmand" {
            return parent.pid != std::process::id();
        }
        above = parent.ppid;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_ours_by_the_directory_and_perhaps_by_its_path() {
        let owner = Owner::new("fe00-98c", Path::new("/var/lib/procman"));
        assert_eq!(owner.claim(&owner.to_string()), Claim::Ours);
        assert_eq!(owner.claim("fe00-98c"), Claim::Ours, "as earlier builds wrote it");
        assert_eq!(owner.claim("fe00-98c-0"), Claim::Moved);
        let before = Owner::new("fe00-77", Path::new("/var/lib/procman"));
        assert_eq!(owner.claim(&before.to_string()), Claim::PerhapsOurs);
        for other in ["", "-", "fe00", "fe00-77", "fe00-77-", "fe00-77-0", &Owner::new("fe00-77", Path::new("/srv")).to_string()] {
            assert_eq!(owner.claim(other), Claim::Another, "{other}");
        }
    }

    #[test]
    fn a_daemon_above_is_found_whatever_stands_between() {
        let line = |pid: u32, name: &str, ppid: u32| format!("{pid} ({name}) S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0");
        let stats = [line(50, "procmand", 1), line(51, "sh", 50), line(52, "sleep", 51), line(60, "sleep", 1)];
        let table = Table::new(stats.iter().map(|line| Stat::parse(line.as_bytes()).unwrap()).collect());
        let below = |pid| is_below_another(table.get(pid).unwrap(), &table);
        assert!(below(52) && below(51) && !below(60) && !below(50));
    }
}
