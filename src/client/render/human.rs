//! Numbers as people read them. Programs take the exact ones from `--json`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time in seconds in its two largest units: `42s`, `2m 03s`, `1h 05m`, `3d 4h`.
pub fn duration(seconds: f64) -> String {
    // `as` saturates, and takes what is no number for 0.
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h {:02}m", whole / 3600, whole / 60 % 60),
        86400.. => format!("{}d {}h", whole / 86400, whole / 3600 % 24),
    }
}

/// A size in bytes: `512 B`, `23.4 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // One that would be shown as 1024.0 is shown in the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A share of a processor, in percent.
pub fn percent(percent: f64) -> String {
    format!("{percent:.1}")
}

/// An instant in Unix seconds, in a time zone: `2026-11-22 14:03:05 CET`.
pub fn instant(unix_seconds: f64, zone: &TimeZone) -> String {
    Timestamp::from_second(unix_seconds as i64)
        .map(|instant| instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string())
        .unwrap_or_else(|_| format!("{unix_seconds} s since 1970"))
}

/// `1 process`, `2 processes`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_read_well() {
        let table: [(f64, &str); 11] = [
            (0.0, "0s"),
            (0.99, "0s"),
            (42.5, "42s"),
            (60.0, "1m 00s"),
            (123.0, "2m 03s"),
            (3599.9, "59m 59s"),
            (3900.0, "1h 05m"),
            (273_600.0, "3d 4h"),
            (1e9, "11574d 1h"),
            (-1.0, "0s"),
            (f64::NAN, "0s"),
        ];
        for (seconds, shown) in table {
            assert_eq!(duration(seconds), shown, "{seconds}");
        }
    }

    #[test]
    fn sizes_read_well() {
        let table: [(u64, &str); 8] = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (24_536_678, "23.4 MiB"),
            (1 << 30, "1.0 GiB"),
            (1 << 50, "1.0 PiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, shown) in table {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn instants_are_told_in_a_zone() {
        assert_eq!(instant(1_795_356_185.9, &TimeZone::UTC), "2026-11-22 14:03:05 UTC");
        assert_eq!(instant(1e300, &TimeZone::UTC), format!("{} s since 1970", 1e300));
    }

    proptest! {
        #[test]
        fn no_number_breaks_them(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assert!(!duration(number).is_empty() && !instant(number, &TimeZone::UTC).is_empty());
            prop_assert!(size(bits).len() <= 10);
        }
    }
}
