//! A timer of the clock on the wall, which also tells when somebody sets that clock (timerfd_create(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use super::readiness;

/// A timer of `CLOCK_REALTIME`.
#[derive(Debug)]
pub struct WallTimer {
    timer: TimerFd,
    ready: AsyncFd<OwnedFd>,
}

/// Why it woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Its time has come.
    Due,
    /// Somebody set the clock (`TFD_TIMER_CANCEL_ON_SET`): what was computed from it no longer holds.
    ClockSet,
}

impl WallTimer {
    /// One that is not set. Needs the runtime.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let ready = readiness::watch_duplicate(timer.as_fd().as_raw_fd())?;
        Ok(Self { timer, ready })
    }

    /// Sets it to this time, instead of what it was set to before. A time that has passed is due at once.
    pub fn set(&self, time: SystemTime) -> io::Result<()> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        // All zero would disarm it.
        let at = TimeSpec::from_duration(since.max(std::time::Duration::from_nanos(1)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match self.timer.set(Expiration::OneShot(at), flags) {
            // The clock was set between the last look at it and now: the timer is set nevertheless.
            Ok(()) | Err(nix::errno::Errno::ECANCELED) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Resolves when its time has come, or the clock was set.
    pub async fn woken(&self) -> io::Result<Woken> {
        loop {
            let mut guard = self.ready.readable().await?;
            let mut expirations = [0_u8; 8];
            match nix::unistd::read(self.timer.as_fd(), &mut expirations) {
                Ok(_) => return Ok(Woken::Due),
                Err(nix::errno::Errno::ECANCELED) => return Ok(Woken::ClockSet),
                Err(nix::errno::Errno::EAGAIN) => guard.clear_ready(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_is_due_at_its_time_and_a_past_time_at_once() {
        let timer = WallTimer::new().unwrap();
        let now = SystemTime::now();
        timer.set(now + Duration::from_millis(50)).unwrap();
        assert_eq!(timer.woken().await.unwrap(), Woken::Due);
        assert!(SystemTime::now() >= now + Duration::from_millis(50));
        timer.set(UNIX_EPOCH).unwrap();
        assert_eq!(timer.woken().await.unwrap(), Woken::Due);
        timer.set(now + Duration::from_secs(3600)).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), timer.woken()).await.is_err(), "not yet");
    }
}
