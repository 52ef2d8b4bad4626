//! What the kernel counted for a group and all that is below it. Files of a controller that is not enabled are not there: `None`, never invented.

use std::io;
use std::time::Duration;

use super::Group;

impl Group {
    /// Processor time of all processes that were ever in it (`cpu.stat`). It is there without any controller.
    ///
    /// # Errors
    /// The group is gone, or its file cannot be read.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let micros = field(&self.read("cpu.stat")?, "usage_usec");
        micros.map(Duration::from_micros).ok_or_else(|| io::Error::other("cpu.stat has no usage_usec"))
    }

    /// Bytes of memory charged to it, page cache included (`memory.current`).
    pub fn memory_current(&self) -> Option<u64> {
        self.read("memory.current").ok()?.trim().parse().ok()
    }

    /// The most of it so far (`memory.peak`, Linux 5.19).
    pub fn memory_peak(&self) -> Option<u64> {
        self.read("memory.peak").ok()?.trim().parse().ok()
    }

    /// How many of its processes the kernel killed for lack of memory (`memory.events`, Linux 4.18), whosever limit was reached.
    pub fn oom_kills(&self) -> Option<u64> {
        field(&self.read("memory.events").ok()?, "oom_kill")
    }
}

/// The value of one line `key value` (a "flat keyed" file).
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_whole_word() {
        let events = "low 0\nhigh 0\nmax 17\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!([field(events, "oom"), field(events, "oom_kill"), field(events, "max")], [Some(2), Some(1), Some(17)]);
        assert_eq!([field(events, "oom_"), field(events, "swap"), field("", "oom"), field("oom x\n", "oom")], [None; 4]);
    }

    #[test]
    fn what_a_controller_would_say() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::of_directory(dir.path());
        assert_eq!((group.memory_current(), group.memory_peak(), group.oom_kills()), (None, None, None), "no controller, no numbers");
        assert!(group.cpu_time().is_err());
        for (file, text) in [
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.events", "oom 3\noom_kill 2\n"),
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1000000\n"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        assert_eq!((group.memory_current(), group.memory_peak(), group.oom_kills()), (Some(4096), Some(8192), Some(2)));
        assert_eq!(group.cpu_time().unwrap(), Duration::from_millis(1500));
    }
}
