//! Where the version 2 hierarchy is mounted, and where in it this process is.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The hierarchy as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
    pub mount: PathBuf,
    /// The directory of this process's own group.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Looks in `/proc/self/mountinfo` and `/proc/self/cgroup`; `None` where no version 2 hierarchy is mounted that shows this process's own group.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn find() -> io::Result<Option<Self>> {
        Ok(Self::parse(&std::fs::read("/proc/self/mountinfo")?, &std::fs::read("/proc/self/cgroup")?))
    }

    /// `mountinfo` as in proc_pid_mountinfo(5), `own` as in cgroups(7): the line of version 2 is `0::/path`.
    fn parse(mountinfo: &[u8], own: &[u8]) -> Option<Self> {
        let own = own.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
        let own = path(own.to_vec());
        mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let (root, mount) = (unescape(fields.nth(3)?), unescape(fields.next()?));
            // Optional fields end with a hyphen of their own; the type of the file system follows.
            let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
            // A mount that begins further down shows only what is below its root.
            let below = own.strip_prefix(path(root)).ok().filter(|_| kind == b"cgroup2")?;
            let mount = path(mount);
            Some(Self { own: if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) }, mount })
        })
    }

    /// Whether this process is in the topmost group that it can see: the root of the host, or that of its cgroup namespace.
    pub fn own_is_topmost(&self) -> bool {
        self.own == self.mount
    }
}

fn path(bytes: Vec<u8>) -> PathBuf {
    Path::new(&OsString::from_vec(bytes)).to_owned()
}

/// Undoes the escapes of mountinfo: a backslash and three octal digits for blanks, line ends and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|_| byte == b'\\').and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mountinfo: &str, own: &str) -> Option<(String, String)> {
        let found = Hierarchy::parse(mountinfo.as_bytes(), own.as_bytes())?;
        Some((found.mount.to_str()?.to_owned(), found.own.to_str()?.to_owned()))
    }

    #[test]
    fn each_kind_of_host() {
        let plain =
            "22 1 0:21 / /proc rw,nosuid - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = |mount: &str, own: &str| Some((mount.to_owned(), own.to_owned()));
        assert_eq!(
            parse(plain, "0::/system.slice/procmand.service\n"),
            found("/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/procmand.service")
        );
        assert_eq!(parse(plain, "0::/\n"), found("/sys/fs/cgroup", "/sys/fs/cgroup"));
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(parse(hybrid, "4:memory:/a\n1:cpu:/\n0::/b\n"), found("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/b"));
        assert_eq!(parse(hybrid.lines().next().unwrap(), "1:cpu:/\n0::/\n"), None, "version 1 alone");
        assert_eq!(parse(plain, "1:cpu:/\n"), None, "version 2 is not compiled in");
    }

    #[test]
    fn a_mount_shows_what_is_below_its_root() {
        let container =
            "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n31 23 0:26 /docker /mnt/a\\040b rw - cgroup2 cgroup rw\n";
        assert_eq!(parse(container, "0::/docker/abc/d").unwrap().1, "/sys/fs/cgroup/d");
        assert_eq!(parse(container, "0::/docker/abcd").unwrap().1, "/mnt/a b/abcd", "a name is not half a name");
        assert_eq!(parse(container, "0::/elsewhere"), None);
        assert_eq!(parse("30 23\n\n30 23 0:26 / /x rw\n", "0::/"), None);
    }

    #[test]
    fn this_process_is_where_it_says() {
        let Some(found) = Hierarchy::find().unwrap() else { return eprintln!("skipped: no cgroup v2 hierarchy is mounted") };
        let procs = std::fs::read_to_string(found.own.join("cgroup.procs")).unwrap();
        assert!(procs.lines().any(|pid| pid == std::process::id().to_string()), "{found:?}");
    }
}
