//! Descriptors that starts leave over, so that the daemon can serve, tell and end when they run out.
//!
//! A daemon without a free descriptor takes in no client, reads no `/proc`, kills no control group.

use nix::sys::resource::{Resource, getrlimit};

use crate::sys::limits::open_descriptors;

/// What a run holds: its process, its directory in `/proc`, its control group. It takes them one after the other, some only when its status is
/// read for the first time, so that many starts at a time must be counted, not seen.
const FOR_A_RUN: u64 = 3;
/// How many are left over: this share of the limit, and at most so many.
const SHARE: u64 = 8;
const MOST: u64 = 64;

/// Knows whether there are enough for one more run.
#[derive(Debug)]
pub(super) struct Reserve {
    /// How many the daemon itself held when it had started nothing; 0 where the kernel did not tell.
    own: u64,
}

impl Reserve {
    /// To be made before the first start.
    pub(super) fn new() -> Self {
        Self { own: open_descriptors().unwrap_or(0) }
    }

    /// Whether one more run beside these many would take what is to be left over. Where the kernel does not tell how many are open, the count of
    /// the runs stands alone.
    pub(super) fn is_touched_beside(&self, runs: u64) -> bool {
        let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return false };
        // What is open now, clients included, and what so many runs will have open, whichever is more.
        is_touched(limit, open_descriptors().unwrap_or(0).max(self.own.saturating_add(runs.saturating_mul(FOR_A_RUN))))
    }
}

fn is_touched(limit: u64, held: u64) -> bool {
    held.saturating_add(FOR_A_RUN) > limit - (limit / SHARE).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_low_limit_and_some_of_a_high_one_are_left_over() {
        for (limit, most) in [(80, 67), (1024, 957), (524_288, 524_221)] {
            assert!(!is_touched(limit, most) && is_touched(limit, most + 1), "{limit}");
        }
        assert!(!is_touched(u64::MAX, 1_000_000), "no limit");
        let reserve = Reserve::new();
        assert!(!reserve.is_touched_beside(1) && reserve.is_touched_beside(1 << 40));
    }
}
