//! When and how often the restart policy starts a sub-process again: back-off and start limit, pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::spec::{Policy, StartLimit};

/// What was started so far, and how far the back-off has grown. A start that somebody asks for begins with a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restarts {
    /// Recent starts, oldest first; never more than the limit's count.
    starts: VecDeque<Instant>,
    /// Waits since the last reset.
    attempt: u32,
    /// Starts that the policy made.
    made: u64,
}

/// What follows an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A start after this time.
    After {
        /// Which try since the last reset, from 1.
        attempt: u32,
        /// How long to wait.
        delay: Duration,
    },
    /// That start would break the start limit.
    GiveUp,
}

impl Restarts {
    /// The same after a start that nobody asked for but a schedule: back-off begins anew, and the recent starts still count. Otherwise a schedule
    /// that comes more often than the limit's interval would have the policy start without any limit.
    #[must_use]
    pub fn scheduled(self) -> Self {
        Self { starts: self.starts, ..Self::default() }
    }

    /// What an earlier daemon had counted: starts that the policy made, and waits since the last reset. When its starts were is not known any more,
    /// so the start limit counts anew.
    pub fn counted(made: u64, attempt: u32) -> Self {
        Self { starts: VecDeque::new(), attempt, made }
    }

    /// Waits since the last reset.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many starts the policy made.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// One more start by the policy.
    pub fn count(&mut self) {
        self.made += 1;
    }

    /// Notes a start, whoever asked for it.
    pub fn record_start(&mut self, now: Instant, limit: &StartLimit) {
        self.starts.push_back(now);
        while self.starts.len() > usize::try_from(limit.count).unwrap_or(usize::MAX) {
            self.starts.pop_front();
        }
    }

    /// Decides about the next start after a run that lived this long. `roll` is a random number from 0 to 1.
    pub fn next(&mut self, policy: &Policy, lived: Duration, now: Instant, roll: f64) -> Verdict {
        if lived >= policy.backoff.reset_after {
            self.attempt = 0;
        }
        let delay = self.delay(policy, roll);
        let limit = &policy.start_limit;
        let count = usize::try_from(limit.count).unwrap_or(usize::MAX);
        let recent = self.starts.iter().filter(|start| (now + delay).saturating_duration_since(**start) < limit.interval).count();
        if limit.count > 0 && recent >= count {
            return Verdict::GiveUp;
        }
        self.attempt = self.attempt.saturating_add(1);
        Verdict::After { attempt: self.attempt, delay }
    }

    /// `initial · factor^attempt`, at most `max`, changed by up to ±`jitter`.
    fn delay(&self, policy: &Policy, roll: f64) -> Duration {
        let backoff = &policy.backoff;
        let exponent = i32::try_from(self.attempt).unwrap_or(i32::MAX);
        let grown = backoff.initial.as_secs_f64() * backoff.factor.powi(exponent);
        let capped = grown.min(backoff.max.as_secs_f64());
        let jittered = capped * (1.0 + backoff.jitter * (2.0 * roll.clamp(0.0, 1.0) - 1.0));
        Duration::try_from_secs_f64(jittered).unwrap_or(backoff.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::RestartPolicy;
    use crate::subprocess::spec::Backoff;
    use proptest::prelude::*;

    fn policy(backoff: Backoff, start_limit: StartLimit) -> Policy {
        Policy { restart: RestartPolicy::Always, backoff, start_limit, ..Policy::default() }
    }

    const NO_LIMIT: StartLimit = StartLimit { count: 0, interval: Duration::from_secs(30) };

    #[test]
    fn it_doubles_up_to_the_cap_and_starts_anew_after_a_long_run() {
        let policy = policy(Backoff { jitter: 0.0, max: Duration::from_secs(3), ..Backoff::default() }, NO_LIMIT);
        let mut restarts = Restarts::default();
        let now = Instant::now();
        let mut delay = |lived| match restarts.next(&policy, Duration::from_secs(lived), now, 0.5) {
            Verdict::After { delay, .. } => delay.as_secs_f64(),
            Verdict::GiveUp => panic!("there is no limit"),
        };
        assert_eq!([delay(0), delay(0), delay(0), delay(0), delay(59)], [0.5, 1.0, 2.0, 3.0, 3.0]);
        assert_eq!([delay(60), delay(0)], [0.5, 1.0]);
    }

    #[test]
    fn the_sixth_start_within_the_interval_is_not_made() {
        let policy = policy(
            Backoff { initial: Duration::ZERO, jitter: 0.0, ..Backoff::default() },
            StartLimit { count: 5, interval: Duration::from_secs(30) },
        );
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        for _ in 0..4 {
            restarts.record_start(now, &policy.start_limit);
            now += Duration::from_secs(1);
            assert!(matches!(restarts.next(&policy, Duration::ZERO, now, 0.5), Verdict::After { .. }));
        }
        restarts.record_start(now, &policy.start_limit);
        assert_eq!(restarts.next(&policy, Duration::ZERO, now, 0.5), Verdict::GiveUp);
        now += Duration::from_secs(26);
        assert!(matches!(restarts.next(&policy, Duration::ZERO, now, 0.5), Verdict::After { .. }), "the first start is old enough now");
    }

    proptest! {
        #[test]
        fn never_more_starts_than_the_limit(count in 1u32..8, interval in 1u64..60, initial in 0.0f64..5.0, factor in 1.0f64..3.0,
                                            jitter in 0.0f64..=1.0, lives in proptest::collection::vec((0.0f64..70.0, 0.0f64..=1.0), 1..80)) {
            let limit = StartLimit { count, interval: Duration::from_secs(interval) };
            let backoff = Backoff { initial: Duration::from_secs_f64(initial), factor, jitter, ..Backoff::default() };
            let policy = policy(backoff, limit);
            let mut restarts = Restarts::default();
            let mut now = Instant::now();
            let mut starts = vec![now];
            restarts.record_start(now, &limit);
            for (lived, roll) in lives {
                let lived = Duration::from_secs_f64(lived);
                now += lived;
                match restarts.next(&policy, lived, now, roll) {
                    Verdict::GiveUp => break,
                    Verdict::After { delay, .. } => {
                        prop_assert!(delay.as_secs_f64() <= backoff.max.as_secs_f64() * (1.0 + jitter) + 1e-6);
                        now += delay;
                        restarts.record_start(now, &limit);
                        starts.push(now);
                    }
                }
            }
            for (i, start) in starts.iter().enumerate() {
                let within = starts[i..].iter().filter(|s| s.duration_since(*start) < limit.interval).count();
                prop_assert!(within <= count as usize, "{within} starts within {interval} s, {count} are allowed");
            }
        }

        #[test]
        fn no_number_makes_a_delay_overflow(attempt in any::<u32>(), initial in 0.0f64..1e9, factor in 1.0f64..=1000.0, roll in any::<f64>()) {
            let max = Duration::from_secs_f64(1e9);
            let policy = policy(Backoff { initial: Duration::from_secs_f64(initial), factor, max, jitter: 1.0, ..Backoff::default() }, NO_LIMIT);
            let mut restarts = Restarts { attempt, ..Restarts::default() };
            let verdict = restarts.next(&policy, Duration::ZERO, Instant::now(), roll);
            let again = matches!(verdict, Verdict::After { .. });
            prop_assert!(again);
        }
    }
}
