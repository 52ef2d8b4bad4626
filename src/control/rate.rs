//! How fast one client may ask: a token bucket for each, which holds the requests of one second. Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Clients that are kept in mind before those whose buckets are full again, which is as good as new, are forgotten.
const MANY: usize = 1024;
/// No bucket is smaller: a client may always begin with some at once.
const LEAST: f64 = 100.0;

/// A bucket for each client.
#[derive(Debug)]
pub(super) struct Rates {
    per_second: f64,
    buckets: HashMap<Vec<u8>, Bucket>,
    /// Clients at which it is looked again who is to be forgotten.
    look_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// So many requests in a second, in the long run.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), buckets: HashMap::new(), look_at: MANY }
    }

    fn size(&self) -> f64 {
        self.per_second.max(LEAST)
    }

    /// Takes a token of this client; whether there was one.
    pub(super) fn take(&mut self, client: &[u8], now: Instant) -> bool {
        let (size, rate) = (self.size(), self.per_second);
        let filled = |bucket: Bucket| (bucket.tokens + now.saturating_duration_since(bucket.at).as_secs_f64() * rate).min(size);
        // Looked up first: a known client costs no allocation.
        let before = self.buckets.get(client).copied();
        let tokens = before.map_or(size, filled);
        let has_one = tokens >= 1.0;
        let bucket = Bucket { tokens: if has_one { tokens - 1.0 } else { tokens }, at: now };
        match self.buckets.get_mut(client) {
            Some(known) => *known = bucket,
            None => {
                self.buckets.insert(client.to_vec(), bucket);
            }
        }
        if self.buckets.len() >= self.look_at {
            let full = Duration::from_secs_f64(size / rate);
            self.buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < full);
            self.look_at = (2 * self.buckets.len()).max(MANY);
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut rates = Rates::new(200);
        let start = Instant::now();
        assert_eq!((0..300).filter(|_| rates.take(b"a", start)).count(), 200);
        assert!(rates.take(b"b", start), "others are not concerned");
        assert_eq!((0..300).filter(|_| rates.take(b"a", start + Duration::from_millis(500))).count(), 100);
        assert!(!rates.take(b"a", start), "a clock that goes back gives nothing");
    }

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let mut rates = Rates::new(1000);
        let start = Instant::now();
        for n in 0..100_000_u32 {
            rates.take(&n.to_be_bytes(), start + Duration::from_millis(n.into()));
        }
        assert!(rates.buckets.len() <= 2 * MANY, "{}", rates.buckets.len());
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_a_burst_and_the_rate(rate in 1_u32..5000, steps in prop::collection::vec(0_u64..200, 1..400)) {
            let mut rates = Rates::new(rate);
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0_u64);
            for step in steps {
                now += Duration::from_millis(step);
                taken += u64::from(rates.take(b"a", now));
            }
            let most = f64::from(rate).max(LEAST) + (now - start).as_secs_f64() * f64::from(rate);
            prop_assert!(taken as f64 <= most + 1e-6, "{taken} {most}");
        }
    }
}
