//! Any cron expression is either understood or refused with a reason, and the next time of one that is understood is later than the one asked for.
#![no_main]

use jiff::Zoned;
use libfuzzer_sys::fuzz_target;
use procman::subprocess::spec::schedule::Schedule;

fuzz_target!(|text: &str| {
    match Schedule::parse(text) {
        Ok(schedule) => {
            let time: Zoned = "2026-03-29T00:59:59+01:00[Europe/Brussels]".parse().unwrap();
            assert!(schedule.next_after(&time).is_none_or(|next| next > time));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
});
