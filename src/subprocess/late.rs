//! Times that are noticed late, as the daemon itself stood still (SIGSTOP, a machine that was paused or had no time for it). Then nobody is to be
//! blamed before what has happened meanwhile was seen: after SIGCONT, epoll_wait(2) is interrupted, and timers are served first.

use std::time::Duration;

use tokio::time::Instant;

/// A time that is noticed so much later is late.
const LATE: Duration = Duration::from_millis(100);
/// How long what has happened meanwhile may take to be seen.
const GRACE: Duration = Duration::from_millis(20);

/// Whether something of this length that is noticed so much later than it was due says that the daemon stood still, and so may have what it watches.
pub(super) fn is_late(by: Duration, of: Duration) -> bool {
    by > (of / 10).max(LATE)
}

/// Waits for times, and where one is noticed late, a little longer.
#[derive(Debug, Default)]
pub(super) struct Punctual {
    /// The time that was noticed late, and when it counts.
    late: Option<(Instant, Instant)>,
}

impl Punctual {
    /// Resolves at this time, or soon after it was noticed where that was late. Dropped and called again for the same time, it waits no longer for that.
    ///
    /// One that has come is not handed to the runtime's timer, which rounds up to its next millisecond: a restart without a delay would wait for longer
    /// than it takes.
    pub(super) async fn until(&mut self, at: Instant) {
        if at > Instant::now() {
            tokio::time::sleep_until(at).await;
        }
        let now = Instant::now();
        if now - at <= LATE {
            return;
        }
        let counts = match self.late {
            Some((of, counts)) if of == at => counts,
            Some(_) | None => self.late.insert((at, now + GRACE)).1,
        };
        if counts > now {
            tokio::time::sleep_until(counts).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_noticed_late_counts_a_little_later_whoever_asks_how_often() {
        let (mut punctual, began) = (Punctual::default(), Instant::now());
        punctual.until(began).await;
        assert!(punctual.late.is_none(), "it is in time");
        let at = began - Duration::from_secs(3);
        // Given up again and again, as in a select! where other things happen.
        while tokio::time::timeout(Duration::from_millis(2), punctual.until(at)).await.is_err() {}
        let (of, counts) = punctual.late.unwrap();
        assert!(of == at && counts >= began + GRACE && Instant::now() >= counts);
        punctual.until(at).await;
        assert_eq!(punctual.late, Some((of, counts)));
    }
}
