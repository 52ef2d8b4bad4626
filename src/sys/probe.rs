//! What this kernel can do, found by trying.

use std::os::fd::AsRawFd;

use super::clone::vfork_exit;
use super::pidfd::PidFd;

/// `struct pidfd_info` as it was first published (`PIDFD_INFO_SIZE_VER0`, 64 bytes): it grew since, and the ioctl's number carries its size.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`: ask for, and be told, the exit status.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(PIDFS_IOCTL_MAGIC = 0xFF, 11, struct pidfd_info)`
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xff << 8) | 11;

/// Whether the kernel tells the exit status of a reaped process from its pidfd (Linux 6.15): tried on a child that exits with 42.
pub fn pidfd_exit_info() -> bool {
    let Ok(fd) = vfork_exit(42) else { return false };
    exit_info(&fd).is_some_and(|status| libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42)
}

/// The wait status of a process that was reaped by whomever; `None` before that, and where the kernel does not tell.
pub(super) fn exit_info(fd: &PidFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the ioctl's number carries the size of `info`, so the kernel writes no more than that.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_fits_the_kernel() {
        let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
        let version = (numbers.next().unwrap(), numbers.next().unwrap());
        if version >= (6, 15) {
            assert!(super::pidfd_exit_info(), "Linux {release} tells exit statuses");
        } else if version < (6, 13) {
            assert!(!super::pidfd_exit_info(), "Linux {release} cannot");
        }
    }
}
