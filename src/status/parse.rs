//! The files of `/proc/PID` that only a status needs. A line that is missing counts as 0 or unknown: kernel options leave some out.

use crate::protocol::reply::{ContextSwitches, Io};

/// What is taken from `status` (proc_pid_status(5)), sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StatusFile {
    pub(super) rss: u64,
    pub(super) vms: u64,
    pub(super) swap: u64,
    pub(super) context_switches: ContextSwitches,
}

/// Lines `KEY:  NUMBER[ kB]`. The process's name in `status` is no danger: the kernel escapes newlines there.
fn lines(content: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    content.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let value = line[colon + 1..].trim_ascii_start();
        let digits = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
        let number = std::str::from_utf8(&value[..digits]).ok()?.parse().ok()?;
        Some((&line[..colon], number))
    })
}

fn kib(number: u64) -> u64 {
    number.saturating_mul(1024)
}

pub(super) fn status(content: &[u8]) -> StatusFile {
    let mut file = StatusFile::default();
    for (key, number) in lines(content) {
        match key {
            b"VmRSS" => file.rss = kib(number),
            b"VmSize" => file.vms = kib(number),
            b"VmSwap" => file.swap = kib(number),
            b"voluntary_ctxt_switches" => file.context_switches.voluntary = number,
            b"nonvoluntary_ctxt_switches" => file.context_switches.involuntary = number,
            _ => {}
        }
    }
    file
}

/// The unique set size in bytes: the sum of the private pages in `smaps_rollup` (`Private_Clean`, `Private_Dirty`, `Private_Hugetlb`).
pub(super) fn unique_set_size(content: &[u8]) -> u64 {
    lines(content).filter(|(key, _)| key.starts_with(b"Private_")).fold(0, |sum, (_, number)| sum.saturating_add(kib(number)))
}

/// The storage traffic in `io` (proc_pid_io(5)).
pub(super) fn io(content: &[u8]) -> Io {
    let find = |wanted: &[u8]| lines(content).find_map(|(key, number)| (key == wanted).then_some(number));
    Io { read_bytes: find(b"read_bytes"), write_bytes: find(b"write_bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_files_are_read_as_the_manual_describes_them() {
        let content =
            b"Name:\tVmRSS:\\n7\nUmask:\t0022\nVmPeak:\t    9000 kB\nVmSize:\t    3060 kB\nVmRSS:\t    1728 kB\nVmSwap:\t       4 kB\n\
            Threads:\t1\nCpus_allowed_list:\t0-1\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let expected = StatusFile {
            rss: 1728 << 10,
            vms: 3060 << 10,
            swap: 4 << 10,
            context_switches: ContextSwitches { voluntary: 12, involuntary: 3 },
        };
        assert_eq!(status(content), expected);

        let rollup = b"55c716caa000-7ffc8f509000 ---p 00000000 00:00 0                          [rollup]\nRss:                1640 kB\n\
            Shared_Clean:       1452 kB\nPrivate_Clean:        76 kB\nPrivate_Dirty:       112 kB\nPrivate_Hugetlb:       2 kB\n";
        assert_eq!(unique_set_size(rollup), 190 << 10);

        let traffic = b"rchar: 6976\nwchar: 1\nread_bytes: 8192\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n";
        assert_eq!(io(traffic), Io { read_bytes: Some(8192), write_bytes: Some(4096) });
        assert_eq!(io(b""), Io::default());
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(content in "(VmRSS|Private_|read_bytes|x)?:?[ \t]*[0-9]{0,30}\\PC{0,5}\n?") {
            status(content.as_bytes());
            unique_set_size(content.as_bytes());
            io(content.as_bytes());
        }
    }
}
