//! Times, and what they come to.

use std::time::{Duration, Instant};

/// Times that were taken of the same thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Times one more.
    pub(crate) fn time<T, E>(&mut self, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began = Instant::now();
        let result = act()?;
        self.0.push(began.elapsed());
        Ok(result)
    }

    /// Takes one that was timed elsewhere.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The time that this share of the samples, 0 to 1, does not exceed; zero where there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The shortest: of work that is the same each time, what it takes when nothing else of the machine comes between.
    pub(crate) fn best(&self) -> Duration {
        self.quantile(0.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
