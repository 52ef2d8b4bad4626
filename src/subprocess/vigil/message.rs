//! One message of a service about itself (sd_notify(3)), taken apart. Pure: whose it is and what follows from it is decided elsewhere.

use std::time::Duration;

/// What a message says. What we do not know or cannot read is left out, and never an error: the service is not ours to correct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `READY=1`: it is ready, or has read its configuration again.
    pub ready: bool,
    /// `RELOADING=1`: it begins to read its configuration again.
    pub reloading: bool,
    /// `STOPPING=1`: it is about to end.
    pub stopping: bool,
    /// `WATCHDOG=1`: it is alive.
    pub alive: bool,
    /// `WATCHDOG=trigger`: it says itself that something is wrong with it.
    pub trigger: bool,
    /// `WATCHDOG_USEC=`: it will say that it is alive at least this often.
    pub watchdog: Option<Duration>,
    /// `MAINPID=`: this is its main process from now on.
    pub main: Option<u32>,
    /// `STATUS=`: what it does, for people.
    pub status: Option<String>,
    /// `EXTEND_TIMEOUT_USEC=`: it needs so much longer.
    pub extend: Option<Duration>,
}

/// The longest message that is read, in bytes; systemd has the same bound (`NOTIFY_BUFFER_MAX`).
pub const MAX_MESSAGE: usize = 4096;
/// The longest status that is kept, in characters.
pub const MAX_STATUS: usize = 256;
/// No time-out of a service is longer than this: it keeps every sum of times within what a clock can say.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Message {
    /// Takes a message apart: `KEY=value`, one to a line. The first of several lines with one key counts, as in systemd.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        let mut watchdog_said = false;
        for line in bytes.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (key, value) = (&line[..at], &line[at + 1..]);
            match key {
                b"READY" => message.ready |= value == b"1",
                b"RELOADING" => message.reloading |= value == b"1",
                b"STOPPING" => message.stopping |= value == b"1",
                b"WATCHDOG" if !watchdog_said => {
                    watchdog_said = true;
                    message.alive = value == b"1";
                    message.trigger = value == b"trigger";
                }
                b"WATCHDOG_USEC" if message.watchdog.is_none() => message.watchdog = microseconds(value),
                b"MAINPID" if message.main.is_none() => message.main = number(value).and_then(|pid| u32::try_from(pid).ok()),
                b"STATUS" if message.status.is_none() => message.status = Some(for_people(value, MAX_STATUS)),
                b"EXTEND_TIMEOUT_USEC" if message.extend.is_none() => message.extend = microseconds(value),
                _ => {}
            }
        }
        message
    }

    /// Whether nothing in it is for us.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A whole number above 0, in digits alone.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    // Digits are UTF-8; more of them than a u64 holds mean "very long", and are no time of day either way.
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten().filter(|number| *number > 0)
}

fn microseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(|number| Duration::from_micros(number).min(LONGEST))
}

/// A text as it may be shown on a terminal: its first `most` characters, without control characters, and what is not UTF-8 as U+FFFD.
pub(super) fn for_people(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(most).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_keys_of_sd_notify() {
        let message = Message::parse(
            b"READY=1\nSTATUS=Serving 3 \x1b[31mclients\nMAINPID=42\nWATCHDOG=1\nWATCHDOG_USEC=2500000\nEXTEND_TIMEOUT_USEC=1000\nFDSTORE=1\n",
        );
        let expected = Message {
            ready: true,
            alive: true,
            watchdog: Some(Duration::from_millis(2500)),
            main: Some(42),
            status: Some("Serving 3 [31mclients".into()),
            extend: Some(Duration::from_millis(1)),
            ..Message::default()
        };
        assert_eq!(message, expected);
        assert!(Message::parse(b"RELOADING=1\nMONOTONIC_USEC=5").reloading);
        assert!(Message::parse(b"STOPPING=1").stopping);
        assert!(Message::parse(b"WATCHDOG=trigger\nWATCHDOG=1").trigger);
        assert_eq!(Message::parse(b"STATUS=a\nSTATUS=b").status.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for nothing in [
            &b""[..],
            b"READY",
            b"READY=0",
            b"READY=10",
            b" READY=1",
            b"ready=1",
            b"MAINPID=-1",
            b"MAINPID=0",
            b"MAINPID=4294967296",
            b"MAINPID=1 2",
            b"WATCHDOG_USEC=",
            b"WATCHDOG_USEC=99999999999999999999999",
            b"BARRIER=1",
            b"=",
            b"\n\n\0",
        ] {
            assert!(Message::parse(nothing).is_empty(), "{nothing:?}");
        }
        let longest = Message::parse(b"EXTEND_TIMEOUT_USEC=18446744073709551615").extend.unwrap();
        assert_eq!(longest, LONGEST);
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let message = Message::parse(&bytes);
            prop_assert!(message.status.is_none_or(|status| status.chars().count() <= MAX_STATUS && !status.chars().any(char::is_control)));
        }

        #[test]
        fn lines_are_read_in_any_order(mut lines in Just(vec!["READY=1", "MAINPID=7", "STATUS=x y", "X_OWN=1", "WATCHDOG=1", "noise"]).prop_shuffle()) {
            let expected = Message { ready: true, alive: true, main: Some(7), status: Some("x y".into()), ..Message::default() };
            prop_assert_eq!(Message::parse(lines.join("\n").as_bytes()), expected.clone());
            lines.push("");
            prop_assert_eq!(Message::parse(lines.join("\n").as_bytes()), expected);
        }

        #[test]
        fn a_status_comes_through(status in "[^\\p{Cc}\\s][^\\p{Cc}]{0,100}[^\\p{Cc}\\s]") {
            prop_assert_eq!(Message::parse(format!("STATUS={status}\nREADY=1").as_bytes()).status, Some(status));
        }
    }
}
