//! A service that must keep saying that it is alive.

use std::time::Duration;

use tokio::time::Instant;

use crate::subprocess::late::is_late;

/// When it has to say so again.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    due: Instant,
    /// It was given another interval since it last said so.
    excused: bool,
}

impl Keepalive {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now + interval, excused: false }
    }

    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Changes the interval, and counts it from now.
    pub(super) fn set_interval(&mut self, interval: Duration, now: Instant) {
        (self.interval, self.due) = (interval, now + interval);
    }

    /// It has said so.
    pub(super) fn alive(&mut self, now: Instant) {
        (self.due, self.excused) = (now + self.interval, false);
    }

    /// Until it is due, with everything heard so far.
    pub(super) async fn due(&self) {
        tokio::time::sleep_until(self.due).await;
    }

    /// Whether it has been missed now that it is due. It gets another interval, once, if the daemon was late or is behind with listening.
    pub(super) fn is_missed(&mut self, now: Instant, behind: bool) -> bool {
        if now < self.due {
            return false;
        }
        if !self.excused && (behind || is_late(now - self.due, self.interval)) {
            (self.due, self.excused) = (now + self.interval, true);
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_daemon_is_no_fault_of_the_service_but_only_once() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut keepalive = Keepalive::new(second, start);
        assert!(!keepalive.is_missed(start + second / 2, false), "not due");
        keepalive.alive(start + second / 2);
        assert!(!keepalive.is_missed(start + second, false));
        assert!(keepalive.is_missed(start + second * 3 / 2, false));

        keepalive.alive(start);
        assert!(!keepalive.is_missed(start + second * 5, false), "the daemon was stopped for four seconds");
        assert!(!keepalive.is_missed(start + second * 5, false));
        assert!(keepalive.is_missed(start + second * 9, false), "one excuse");
        keepalive.alive(start + second * 9);
        assert!(!keepalive.is_missed(start + second * 10, true), "there is more to be heard");
        assert!(keepalive.is_missed(start + second * 11, true));
        keepalive.set_interval(second * 2, start + second * 11);
        assert!(!keepalive.is_missed(start + second * 12, false));
    }
}
