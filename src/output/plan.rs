//! What is to be done about one stream, from its sizes and its past. Pure: times and sizes are arguments.
//!
//! A file of more than `max_size` bytes gives its head away to a part of its own. Where the output comes so fast that all `keep` parts would be
//! pushed out again within seconds, nothing is copied: the parts and the file share one budget of `(keep + 1) × max_size`, the file may have all of
//! it, and its head is dropped where it lies. The same bytes are kept either way; when the flood is over, the file is divided into parts.

use std::time::Duration;

/// How much of a stream is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A file that grows beyond this many bytes is rotated; 0 means never.
    pub max_size: u64,
    /// How many rotated parts are kept.
    pub keep: u32,
    /// Parts are compressed.
    pub compress: bool,
    /// Parts older than this are removed.
    pub max_age: Option<Duration>,
}

/// What is known of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// It is compressed.
    pub compressed: bool,
    /// Time since its newest byte was written, or a little less.
    pub age: Duration,
}

/// What is known of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Bytes of the file that hold data: its length without the hole in front.
    pub data: u64,
    /// Length of the hole in front.
    pub hole: u64,
    /// The block of the file system, at least 1: what is cut is a multiple of it.
    pub block: u64,
    /// Time since the file was last cut, or made.
    pub since_cut: Duration,
    /// Its parts, oldest first.
    pub parts: Vec<Part>,
    /// Bytes a second that it has grown by lately.
    pub rate: f64,
    /// The disk is full.
    pub full: bool,
}

/// One thing to do; they are done in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Remove so many of the oldest parts.
    Remove(usize),
    /// Give the first bytes of the data up without copying them. No part is older than what is dropped.
    Drop(u64),
    /// Give the first bytes of the data away: one part for each number.
    Rotate(Vec<u64>),
    /// Compress this part, counted from the oldest of those that are there by then.
    Compress(usize),
    /// Take the hole in front out of the file.
    Collapse,
}

/// Parts that would not last as long as this are not made: it costs less to look at a file of six times the size than to copy it for nothing.
const WORTH_COPYING: Duration = Duration::from_secs(10);
/// Parts that would not last as long as this are not compressed.
const WORTH_COMPRESSING: Duration = Duration::from_secs(60);
/// A hole is taken out only below this rate, in bytes a second: the kernel lets the writer wait until everything behind the hole is on the disk
/// (measured on ext4: 50 ms for 60 MiB, and a third of a fast writer's speed; punching a hole costs it 6 ms).
const CALM: f64 = 1024.0 * 1024.0;

/// What is to be done, in this order.
pub fn plan(facts: &Facts, policy: &Policy) -> Vec<Action> {
    let mut actions = Vec::new();
    let block = facts.block.max(1);
    let chunk = policy.max_size.max(1).div_ceil(block).saturating_mul(block);
    let keep = usize::try_from(policy.keep).unwrap_or(usize::MAX);
    let mut hole = facts.hole;

    let aged = match policy.max_age {
        Some(limit) => facts.parts.iter().take_while(|part| part.age > limit).count(),
        None => 0,
    };
    let mut removed = aged;

    // At least one byte stays: no file system cuts a file down to nothing.
    let full_chunks = if policy.max_size == 0 { 0 } else { facts.data.saturating_sub(1) / chunk };
    let chunks = usize::try_from(full_chunks).unwrap_or(usize::MAX);
    let budget = f64::from(policy.keep) * chunk as f64;
    let flood = facts.rate * WORTH_COPYING.as_secs_f64() > budget;
    let (dropped, rotated) = if chunks == 0 {
        (0, 0)
    } else if facts.full {
        (chunks, 0)
    } else if flood {
        (chunks.saturating_sub(keep), 0)
    } else {
        (chunks.saturating_sub(keep), chunks.min(keep))
    };
    // In a flood the chunks in the file count as parts; so do those that are about to become some.
    let new_parts = chunks - dropped;
    if dropped > 0 {
        removed = facts.parts.len();
    } else if policy.max_size > 0 {
        removed = removed.max(facts.parts.len().saturating_add(new_parts).saturating_sub(keep).min(facts.parts.len()));
    }
    if removed > 0 {
        actions.push(Action::Remove(removed));
    }
    if dropped > 0 {
        let bytes = chunk.saturating_mul(dropped as u64);
        hole = hole.saturating_add(bytes);
        actions.push(Action::Drop(bytes));
    }
    let mut parts = vec![chunk; rotated];
    if chunks == 0
        && !facts.full
        && policy.keep > 0
        && let Some(limit) = policy.max_age
        && facts.since_cut > limit
    {
        // What is left over is less than a block: it goes with what comes next.
        let aligned = facts.data.saturating_sub(1) / block * block;
        parts.extend((aligned > 0).then_some(aligned));
        let over = (facts.parts.len() - removed + parts.len()).saturating_sub(keep);
        if over > 0 && !parts.is_empty() {
            actions.clear();
            removed += over;
            actions.push(Action::Remove(removed));
        }
    }
    if !parts.is_empty() {
        hole = hole.saturating_add(parts.iter().sum());
        actions.push(Action::Rotate(parts.clone()));
    }
    if policy.compress && !facts.full {
        let all = facts.parts.iter().skip(removed).map(|part| part.compressed).chain(parts.iter().map(|_| false));
        let count = facts.parts.len() - removed + parts.len();
        for (at, compressed) in all.enumerate() {
            let newer = count - 1 - at;
            let left = keep.saturating_sub(newer) as f64 * chunk as f64;
            if !compressed && left >= facts.rate * WORTH_COMPRESSING.as_secs_f64() {
                actions.push(Action::Compress(at));
            }
        }
    }
    if hole > 0 && facts.rate < CALM {
        actions.push(Action::Collapse);
    }
    actions
}

/// How soon a stream is to be looked at again: when it may be too large, and the more seldom the longer nothing has come, but not later than `latest`.
pub fn next_look(data: u64, max_size: u64, rate: f64, quiet: Duration, latest: Duration) -> Duration {
    const SOONEST: Duration = Duration::from_millis(250);
    if rate <= 0.0 {
        return quiet.clamp(SOONEST, latest);
    }
    let left = max_size.saturating_sub(data) as f64 / rate;
    Duration::try_from_secs_f64(left).unwrap_or(latest).clamp(SOONEST, latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1 << 20;

    fn policy() -> Policy {
        Policy { max_size: 10 * MB, keep: 5, compress: true, max_age: None }
    }

    fn facts(data: u64) -> Facts {
        Facts { data, hole: 0, block: 4096, since_cut: Duration::ZERO, parts: Vec::new(), rate: 0.0, full: false }
    }

    fn parts(count: usize, compressed: bool) -> Vec<Part> {
        vec![Part { compressed, age: Duration::from_secs(60) }; count]
    }

    #[test]
    fn a_file_that_is_small_is_left_alone() {
        assert_eq!(plan(&facts(10 * MB), &policy()), []);
        assert_eq!(plan(&facts(1 << 40), &Policy { max_size: 0, ..policy() }), []);
    }

    #[test]
    fn a_file_that_is_too_large_gives_its_head_away() {
        let expected = [Action::Rotate(vec![10 * MB]), Action::Compress(0), Action::Collapse];
        assert_eq!(plan(&facts(10 * MB + 1), &policy()), expected);
        let of_five = plan(&Facts { parts: parts(5, true), ..facts(10 * MB + 1) }, &policy());
        assert_eq!(of_five, [Action::Remove(1), Action::Rotate(vec![10 * MB]), Action::Compress(4), Action::Collapse]);
    }

    #[test]
    fn a_flood_is_neither_copied_nor_compressed() {
        let flood = Facts { rate: 100.0 * MB as f64, parts: parts(5, false), ..facts(30 * MB + 1) };
        assert_eq!(plan(&flood, &policy()), [Action::Remove(3)]);
        let more = Facts { data: 85 * MB, parts: Vec::new(), ..flood };
        assert_eq!(plan(&more, &policy()), [Action::Drop(30 * MB)]);
        let over = plan(&Facts { rate: 0.0, data: 55 * MB, hole: 30 * MB, ..more }, &policy());
        assert_eq!(over.first(), Some(&Action::Rotate(vec![10 * MB; 5])));
        assert_eq!(over.last(), Some(&Action::Collapse));
    }

    #[test]
    fn on_a_full_disk_the_oldest_goes() {
        let full = Facts { full: true, parts: parts(2, true), ..facts(25 * MB) };
        assert_eq!(plan(&full, &policy()), [Action::Remove(2), Action::Drop(20 * MB), Action::Collapse]);
    }

    #[test]
    fn what_is_old_goes() {
        let policy = Policy { max_age: Some(Duration::from_secs(30)), ..policy() };
        let old = Facts { parts: parts(2, true), since_cut: Duration::from_secs(31), ..facts(10_000) };
        assert_eq!(plan(&old, &policy), [Action::Remove(2), Action::Rotate(vec![8192]), Action::Compress(0), Action::Collapse]);
        assert_eq!(plan(&Facts { since_cut: Duration::from_secs(31), ..facts(100) }, &policy), [], "less than a block");
    }

    #[test]
    fn looks_are_as_frequent_as_the_growth() {
        let seconds = |rate| next_look(0, 10 * MB, rate, Duration::from_secs(60), Duration::from_secs(5)).as_secs_f64();
        assert!((seconds(0.0), seconds(1.0), seconds(1e12)) == (5.0, 5.0, 0.25));
        assert!((seconds(5.0 * MB as f64) - 2.0).abs() < 1e-6);
    }

    fn some_facts() -> impl Strategy<Value = Facts> {
        let part = (any::<bool>(), 0_u64..100).prop_map(|(compressed, age)| Part { compressed, age: Duration::from_secs(age) });
        let parts = proptest::collection::vec(part, 0..12);
        let rate = prop_oneof![Just(0.0), 0.0..1e9];
        (0_u64..1 << 30, 0_u64..1 << 20, 0_u32..6, 0_u64..100, parts, rate, any::<bool>()).prop_map(
            |(data, hole, block, since_cut, mut parts, rate, full)| {
                parts.sort_by_key(|part| std::cmp::Reverse(part.age));
                let block = 512 << block;
                Facts { data, hole: hole / block * block, block, since_cut: Duration::from_secs(since_cut), parts, rate, full }
            },
        )
    }

    fn some_policy() -> impl Strategy<Value = Policy> {
        let max_age = prop_oneof![Just(None), (1_u64..100).prop_map(|s| Some(Duration::from_secs(s)))];
        (0_u64..1 << 24, 0_u32..20, any::<bool>(), max_age).prop_map(|(max_size, keep, compress, max_age)| {
            // Never more than some thousand parts at once, for the test's sake.
            Policy { max_size: if max_size < 1 << 16 { 0 } else { max_size }, keep, compress, max_age }
        })
    }

    proptest! {
        /// Carries the plan out on numbers.
        #[test]
        fn nothing_is_lost_that_is_to_be_kept(facts in some_facts(), policy in some_policy()) {
            let keep = policy.keep as usize;
            let chunk = policy.max_size.div_ceil(facts.block) * facts.block;
            let (mut data, mut hole, mut parts) = (facts.data, facts.hole, facts.parts.iter().map(|part| part.compressed).collect::<Vec<_>>());
            let mut removed_for_room = 0;
            for action in plan(&facts, &policy) {
                match action {
                    Action::Remove(count) => {
                        prop_assert!(count > 0 && count <= parts.len());
                        let aged = facts.parts.iter().filter(|part| policy.max_age.is_some_and(|limit| part.age > limit)).count();
                        removed_for_room = count.saturating_sub(aged);
                        parts.drain(..count);
                    }
                    Action::Drop(bytes) => {
                        prop_assert!(parts.is_empty(), "something older is kept");
                        prop_assert!(bytes % facts.block == 0 && bytes < data && bytes > 0);
                        prop_assert!(facts.full || data - bytes > chunk * policy.keep as u64, "more than there is room for");
                        data -= bytes;
                        hole += bytes;
                    }
                    Action::Rotate(sizes) => {
                        prop_assert!(!facts.full);
                        for bytes in sizes {
                            prop_assert!(bytes % facts.block == 0 && bytes < data && bytes > 0);
                            data -= bytes;
                            hole += bytes;
                            parts.push(false);
                        }
                    }
                    Action::Compress(at) => {
                        prop_assert!(policy.compress && !parts[at]);
                        parts[at] = true;
                    }
                    Action::Collapse => {
                        prop_assert!(hole > 0 && facts.rate < CALM);
                        hole = 0;
                    }
                }
            }
            if policy.max_size > 0 {
                prop_assert!(data <= chunk * (policy.keep as u64 + 1), "{data} bytes are left");
                prop_assert!(parts.len() <= keep);
                let within = data.div_ceil(chunk.max(1)).saturating_sub(1) as usize;
                prop_assert!(removed_for_room == 0 || facts.full || parts.len() + within >= keep.min(facts.parts.len()), "{parts:?}");
            }
            if facts.rate < 1.0 && policy.max_size > 0 && policy.keep > 0 {
                prop_assert!(data <= chunk);
            }
        }
    }
}
