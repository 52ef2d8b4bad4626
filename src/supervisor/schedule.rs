//! Starts by the clock on the wall: the one thing here that this clock decides, and it is told when somebody sets it.
//!
//! A time that nobody was there for, or that came while the run before still went on, is reported and not made up for.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};

use crate::protocol::{Name, Origin};
use crate::subprocess::report::Missed;
use crate::subprocess::spec::schedule::Schedule;
use crate::subprocess::{CommandError, Launch, Notice, Reporter, SubProcessHandle};
use crate::sys::wall_timer::WallTimer;

use super::SupervisorHandle;

/// A time that is this late is missed: the host slept, or its clock was set forward.
const GRACE: SignedDuration = SignedDuration::from_secs(10);
/// A clock that was set back by less repeats no time; by more, what comes is new (as cron(8) has it).
const REPEATS: SignedDuration = SignedDuration::from_hours(3);
/// Missed times are counted up to here.
const MOST_COUNTED: u32 = 1000;

/// What is known of the schedule of one sub-process.
#[derive(Clone, Debug)]
struct Plan {
    schedule: Schedule,
    /// Times up to this one have been dealt with.
    dealt_with: Zoned,
}

/// What the clock says of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
struct Due {
    /// It is to be started now.
    start: bool,
    /// Times that passed without a start, and the last of them.
    missed: Option<(u32, Zoned)>,
    /// When to look again.
    next: Option<Zoned>,
}

impl Plan {
    /// Looks at the clock, which may have been set.
    fn look(&mut self, now: &Zoned) -> Due {
        if now.duration_until(&self.dealt_with) > REPEATS {
            self.dealt_with = now.clone();
        }
        let mut due = Due::default();
        let mut at = self.dealt_with.clone();
        let mut passed = 0;
        loop {
            match self.schedule.next_after(&at) {
                Some(next) if next <= *now => {
                    if let Some(missed) = std::mem::take(&mut due.start).then_some(at) {
                        due.missed = Some((passed, missed));
                    }
                    if passed == MOST_COUNTED {
                        // Somebody set the clock by years: how many they were exactly is of no interest.
                        due.missed = Some((passed, next));
                        self.dealt_with = now.clone();
                        due.next = self.schedule.next_after(now);
                        return due;
                    }
                    passed += 1;
                    due.start = true;
                    at = next;
                }
                next => {
                    due.next = next;
                    break;
                }
            }
        }
        if due.start && at.duration_until(now) > GRACE {
            due.start = false;
            due.missed = Some((passed, at.clone()));
        }
        if *now > self.dealt_with {
            self.dealt_with = now.clone();
        }
        due
    }
}

/// Up to when times were dealt with by an earlier daemon that was to start something next at this time.
fn since(next: SystemTime, now: &Zoned) -> Zoned {
    let next = jiff::Timestamp::try_from(next).map(|next| next.to_zoned(now.time_zone().clone()));
    let before = next.and_then(|next| next.checked_sub(SignedDuration::from_nanos(1)));
    before.ok().filter(|before| before < now).unwrap_or_else(|| now.clone())
}

/// Starts what is due until the end of the daemon. `before` says what an earlier daemon was to start next, and when.
pub async fn run(supervisor: SupervisorHandle, reporter: Arc<dyn Reporter>, mut before: BTreeMap<Name, SystemTime>) -> io::Result<()> {
    let timer = WallTimer::new()?;
    let mut plans: BTreeMap<Name, Plan> = BTreeMap::new();
    loop {
        // Asked anew each time, because the host's time zone may be changed.
        let now = Zoned::now().with_time_zone(TimeZone::system());
        let handles = supervisor.scheduled();
        plans.retain(|name, _| handles.iter().any(|(handle, _)| handle.name() == name));
        let mut next: Option<Zoned> = None;
        for (handle, schedule) in handles {
            let plan = plans.entry(handle.name().clone()).or_insert_with(|| {
                let dealt_with = before.remove(handle.name()).map_or_else(|| now.clone(), |next| since(next, &now));
                Plan { schedule: schedule.clone(), dealt_with }
            });
            if plan.schedule != schedule {
                *plan = Plan { schedule, dealt_with: now.clone() };
            }
            plan.dealt_with = plan.dealt_with.with_time_zone(now.time_zone().clone());
            let due = plan.look(&now);
            if let Some((times, last)) = &due.missed {
                let notice = Notice::ScheduleMissed { name: handle.name(), times: *times, last: last.into(), why: Missed::Late };
                reporter.report(&notice);
            }
            handle.scheduled(due.next.as_ref().map(SystemTime::from)).await;
            if due.start && !supervisor.is_leaving() {
                tokio::spawn(start(supervisor.clone(), handle, now.clone(), reporter.clone()));
            }
            next = [next, due.next].into_iter().flatten().min();
        }
        if let Some(next) = &next {
            timer.set(next.into())?;
        }
        tokio::select! {
            woken = timer.woken(), if next.is_some() => drop(woken?),
            () = supervisor.schedules_changed() => {}
        }
    }
}

/// Starts one, and what it requires. What the operating system refuses is reported by the sub-process itself.
async fn start(supervisor: SupervisorHandle, handle: SubProcessHandle, at: Zoned, reporter: Arc<dyn Reporter>) {
    let why = match supervisor.execute(&handle, Launch::default(), Origin::Schedule).await {
        Ok(_) | Err(CommandError::SpawnFailed(_) | CommandError::Gone) => return,
        Err(CommandError::AlreadyRunning { .. }) => Missed::Overlap,
        Err(
            CommandError::Busy
            | CommandError::NotRunning
            | CommandError::Required(_)
            | CommandError::Overtaken
            | CommandError::Survivors(_)
            | CommandError::System(_),
        ) => Missed::Refused,
    };
    reporter.report(&Notice::ScheduleMissed { name: handle.name(), times: 1, last: (&at).into(), why });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Zoned {
        jiff::Timestamp::from_second(1_800_000_000 + second).unwrap().to_zoned(TimeZone::UTC)
    }

    /// Every ten seconds; 1,800,000,000 is a multiple of ten.
    fn plan() -> Plan {
        Plan { schedule: Schedule::parse("*/10 * * * * *").unwrap(), dealt_with: at(0) }
    }

    #[test]
    fn it_starts_at_its_time_and_once() {
        let mut plan = plan();
        assert_eq!(plan.look(&at(5)), Due { next: Some(at(10)), ..Due::default() });
        assert_eq!(plan.look(&at(10)), Due { start: true, missed: None, next: Some(at(20)) });
        assert_eq!(plan.look(&at(10)), Due { next: Some(at(20)), ..Due::default() });
    }

    #[test]
    fn times_that_passed_are_counted_and_not_made_up_for() {
        let mut plan = plan();
        assert_eq!(
            plan.look(&at(41)),
            Due { start: true, missed: Some((3, at(30))), next: Some(at(50)) },
            "40 is in time, 10 to 30 are not"
        );
        let mut rare = Plan { schedule: Schedule::parse("0 * * * *").unwrap(), dealt_with: at(0) };
        let hour = rare.schedule.next_after(&at(0)).unwrap();
        let late = hour.checked_add(SignedDuration::from_secs(60)).unwrap();
        let due = rare.look(&late);
        assert_eq!((due.start, due.missed), (false, Some((1, hour))), "a minute late is too late");
    }

    #[test]
    fn times_that_passed_while_no_daemon_lived_are_counted() {
        let away = |next: i64, now: i64| {
            let time = SystemTime::from(at(next));
            Plan { dealt_with: since(time, &at(now)), ..plan() }.look(&at(now))
        };
        assert_eq!(away(10, 35), Due { start: true, missed: Some((2, at(20))), next: Some(at(40)) }, "the last of them is in time");
        assert_eq!(away(40, 35), Due { next: Some(at(40)), ..Due::default() });
        assert_eq!(away(1_000_000, 35), Due { next: Some(at(40)), ..Due::default() }, "the clock was set back meanwhile");
    }

    #[test]
    fn a_clock_set_back_repeats_nothing_and_one_set_forward_a_year_floods_nobody() {
        let mut plan = plan();
        assert!(plan.look(&at(10)).start);
        assert_eq!(
            plan.look(&at(10 - 3600)),
            Due { next: Some(at(20)), ..Due::default() },
            "an hour back: the times come again, it does not"
        );
        assert_eq!(plan.look(&at(-86_400)), Due { next: Some(at(-86_390)), ..Due::default() }, "a day back is another time");
        let year = plan.look(&at(365 * 86_400));
        assert_eq!((year.start, year.missed.map(|(times, _)| times)), (false, Some(MOST_COUNTED)));
        assert_eq!(year.next, Some(at(365 * 86_400 + 10)));
    }

    proptest! {
        #[test]
        fn no_time_is_started_twice_while_the_clock_goes_on(steps in proptest::collection::vec(0i64..40, 1..60)) {
            let mut plan = plan();
            let (mut now, mut starts, mut missed) = (0, 0, 0);
            for step in steps {
                now += step;
                let due = plan.look(&at(now));
                starts += i64::from(due.start);
                missed += due.missed.map_or(0, |(times, _)| i64::from(times));
                prop_assert_eq!(due.next, Some(at(now - now.rem_euclid(10) + 10)));
            }
            prop_assert_eq!(starts + missed, now / 10, "each time is started or missed, once");
        }
    }
}
