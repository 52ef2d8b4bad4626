//! When a sub-process is started by the clock on the wall: a cron expression (crontab(5)).

use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::Zoned;

/// The longest expression in bytes: lists of single minutes fit in, a document does not.
const LONGEST: usize = 512;

/// A cron expression that was understood: five fields, or six with seconds in front; names, lists, ranges, steps, and `@daily` and the like.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// As they were written.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Schedule {
    /// The expression, if it is one. The sentence otherwise says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: String| format!("{:?} is no cron expression: {why}", text.chars().take(80).collect::<String>());
        if text.len() > LONGEST || !text.is_ascii() {
            return Err(wrong(format!("it is plain text of at most {LONGEST} characters")));
        }
        if text.trim().is_empty() {
            return Err(wrong(
                "it is empty; write minute, hour, day of the month, month and day of the week, such as \"0 3 * * *\"".to_owned(),
            ));
        }
        let cron = CronParser::builder().year(Year::Disallowed).build().parse(text).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { text: text.to_owned(), cron })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first time after this one, in the zone of this one; `None` when there is none (the 30th of February).
    ///
    /// A time that a clock change leaves out (02:30 in spring) comes right after it; one that it repeats comes once.
    pub fn next_after(&self, time: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(time, false).ok().filter(|next| next > time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(text: &str, after: &str) -> Option<String> {
        let after: Zoned = after.parse().unwrap();
        Schedule::parse(text).unwrap().next_after(&after).map(|next| next.to_string())
    }

    #[test]
    fn it_is_crontabs_language() {
        for (text, after, expected) in [
            ("0 3 * * *", "2026-11-22T03:00:00+00:00[UTC]", "2026-11-23T03:00:00+00:00[UTC]"),
            ("*/15 * * * *", "2026-11-22T03:07:30+00:00[UTC]", "2026-11-22T03:15:00+00:00[UTC]"),
            ("0 0 1 jan *", "2026-11-22T03:07:30+00:00[UTC]", "2027-01-01T00:00:00+00:00[UTC]"),
            ("*/10 * * * * *", "2026-11-22T03:07:31+00:00[UTC]", "2026-11-22T03:07:40+00:00[UTC]"),
            ("@daily", "2026-11-22T03:07:31+00:00[UTC]", "2026-11-23T00:00:00+00:00[UTC]"),
        ] {
            assert_eq!(next(text, after).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(next("0 0 30 2 *", "2026-11-22T03:07:30+00:00[UTC]"), None, "there is no 30th of February");
    }

    #[test]
    fn a_change_of_the_clock_neither_loses_nor_doubles_a_daily_time() {
        let zone = "Europe/Brussels";
        for (year, month, day) in [(2026, 3, 28), (2026, 10, 24)] {
            let schedule = Schedule::parse("30 2 * * *").unwrap();
            let mut time = jiff::civil::date(year, month, day).at(0, 0, 0, 0).in_tz(zone).unwrap();
            let end = time.checked_add(jiff::Span::new().days(4)).unwrap();
            let mut days = Vec::new();
            while let Some(next) = schedule.next_after(&time).filter(|next| *next < end) {
                days.push(next.day());
                time = next;
            }
            assert_eq!(days.len(), 4, "{days:?}");
            days.dedup();
            assert_eq!(days.len(), 4, "{days:?}");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for bad in ["", " ", "* * * *", "60 * * * *", "* 24 * * *", "x * * * *", "* * * * * * *", "@sometimes", "ü * * * *"] {
            let error = Schedule::parse(bad).unwrap_err();
            assert!(error.contains("is no cron expression: "), "{error}");
        }
        assert!(Schedule::parse(&"1,".repeat(400)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[0-9*/,\\-@a-zA-Z#L?W ]{0,40}", seconds in 0i64..4_000_000_000) {
            if let Ok(schedule) = Schedule::parse(&text) {
                let time = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
                if let Some(next) = schedule.next_after(&time) {
                    prop_assert!(next > time);
                }
            }
        }
    }
}
