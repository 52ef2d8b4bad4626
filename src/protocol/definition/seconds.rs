//! Times of a definition.

use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use crate::protocol::MAX_SECONDS;

/// A time in seconds: finite, not negative, at most [`MAX_SECONDS`]. A float or an integer on the wire.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Seconds(f64);

impl Seconds {
    /// The time, if it is one.
    pub fn new(seconds: f64) -> Option<Self> {
        (0.0..=MAX_SECONDS).contains(&seconds).then_some(Self(seconds))
    }

    /// As a duration, exact to a nanosecond.
    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }

    /// As seconds.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self(duration.as_secs_f64().min(MAX_SECONDS))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::new(seconds).ok_or_else(|| D::Error::custom(format!("{seconds} is not a time: 0 to {MAX_SECONDS:e} seconds are allowed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_is_refused() {
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Seconds::new(bad), None);
        }
        assert_eq!(serde_json::from_str::<Seconds>("5").unwrap().duration(), Duration::from_secs(5));
        assert!(serde_json::from_str::<Seconds>("-0.5").is_err());
    }
}
