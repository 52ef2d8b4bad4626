//! Shares of a processor in percent, over times long enough to mean something.
//!
//! The kernel counts processor time in ticks of 10 ms, so a share over a few milliseconds is noise. Each share is reckoned against a baseline
//! that only the background refresh moves on: clients that ask often see it grow more exact within the interval instead of jumping about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::procfs::{Look, Stat, clock_ticks};

/// The shortest time that a share is reckoned over: ten ticks.
const SHORTEST: Duration = Duration::from_millis(100);

fn percent(ticks: u64, time: Duration) -> f64 {
    ticks as f64 / clock_ticks() as f64 / time.as_secs_f64() * 100.0
}

/// The share of one process.
#[derive(Debug, Default)]
pub(super) struct Share {
    baseline: Option<(Instant, u64)>,
    /// What was reckoned last; 0 before there is anything to reckon.
    percent: f64,
}

impl Share {
    /// The share at `now`, when the process has used `ticks` in all.
    pub(super) fn reckon(&mut self, now: Instant, ticks: u64, moves_baseline: bool) -> f64 {
        let (since, before) = *self.baseline.get_or_insert((now, ticks));
        let time = now.saturating_duration_since(since);
        if time >= SHORTEST {
            self.percent = percent(ticks.saturating_sub(before), time);
            if moves_baseline {
                self.baseline = Some((now, ticks));
            }
        }
        self.percent
    }
}

/// The share of several processes together.
///
/// The baseline is a whole look, shared by all who keep it: a process that joined the group since then is found in it nevertheless, and one
/// that is not in it was born later, so that all it has used falls into the time in question. What ended meanwhile is not seen.
#[derive(Debug, Default)]
pub(super) struct GroupShare {
    baseline: Option<Arc<Look>>,
    percent: f64,
}

impl GroupShare {
    /// The share of `members`, which are processes of `look`.
    pub(super) fn reckon(&mut self, look: &Arc<Look>, members: &[&Stat], moves_baseline: bool) -> f64 {
        let before = self.baseline.get_or_insert_with(|| Arc::clone(look));
        let time = look.began().saturating_duration_since(before.began());
        if time >= SHORTEST {
            let used = |stat: &Stat| {
                let known = before.table().get(stat.pid).filter(|earlier| earlier.identity() == stat.identity());
                stat.ticks().saturating_sub(known.map_or(0, Stat::ticks))
            };
            self.percent = percent(members.iter().map(|stat| used(stat)).sum(), time);
            if moves_baseline {
                self.baseline = Some(Arc::clone(look));
            }
        }
        self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_refresh_moves_the_baseline_and_short_times_say_nothing_new() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut share = Share::default();
        let ticks = clock_ticks(); // one second of work
        assert_eq!(share.reckon(at(0), 1000, true), 0.0);
        assert_eq!(share.reckon(at(99), 1000 + ticks, false), 0.0, "too soon to say");
        assert_eq!(share.reckon(at(1000), 1000 + ticks, false), 100.0);
        assert_eq!(share.reckon(at(2000), 1000 + ticks, false), 50.0, "still against the first");
        assert_eq!(share.reckon(at(2000), 1000 + ticks, true), 50.0);
        assert_eq!(share.reckon(at(2050), 1000 + 2 * ticks, true), 50.0, "the last value, and the baseline stays");
        assert_eq!(share.reckon(at(3000), 1000 + 5 * ticks, true), 400.0);
    }

    proptest! {
        #[test]
        fn a_share_is_finite_and_not_negative(steps in proptest::collection::vec((0..5000_u64, any::<u64>(), any::<bool>()), 0..50)) {
            let mut now = Instant::now();
            let mut share = Share::default();
            for (ms, ticks, moves_baseline) in steps {
                now += Duration::from_millis(ms);
                let percent = share.reckon(now, ticks, moves_baseline);
                prop_assert!(percent.is_finite() && percent >= 0.0);
            }
        }
    }
}
