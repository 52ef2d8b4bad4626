//! Texts of the command line to values.

use glob::Pattern;

use crate::protocol::definition::Seconds;

/// Seconds, from 0 up.
pub(super) fn seconds(text: &str) -> Result<Seconds, String> {
    let number: f64 = text.parse().map_err(|_| "say a number of seconds, such as 10 or 0.5".to_owned())?;
    Seconds::new(number).ok_or_else(|| "say a number of seconds from 0 to 1e9".to_owned())
}

/// Seconds, more than none.
pub(super) fn patience(text: &str) -> Result<Seconds, String> {
    seconds(text).and_then(|seconds| if seconds.get() > 0.0 { Ok(seconds) } else { Err("it must be more than 0".to_owned()) })
}

/// A pattern of names, as in a shell.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| format!("this is no pattern of names: {}", error.msg))
}

/// `KEY=VALUE`; the value may be empty and may hold further equals signs.
pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("say KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_split_at_the_first_equals_sign() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
        assert!(variable("A").is_err() && variable("=b").is_err());
    }

    #[test]
    fn times_are_numbers() {
        assert_eq!(seconds("0.5").map(Seconds::get), Ok(0.5));
        assert_eq!(seconds("0").map(Seconds::get), Ok(0.0));
        for bad in ["", "5s", "-1", "inf", "1e10"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(patience("0").is_err());
    }
}
