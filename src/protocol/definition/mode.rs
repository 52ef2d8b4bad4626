//! Permission bits of a definition.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Permission bits, 0 to 0o777: a text of octal digits such as `"027"`. No integer, because a decimal 22 would silently be 0o26.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u32);

/// A text that is no permissions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} are no permissions: say octal digits from \"000\" to \"777\"")]
pub struct InvalidMode {
    shown: String,
}

impl Mode {
    /// The permissions, if they are some.
    pub fn new(bits: u32) -> Option<Self> {
        (bits <= 0o777).then_some(Self(bits))
    }

    /// As bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        let octal = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        octal
            .then(|| u32::from_str_radix(text, 8).ok().and_then(Self::new))
            .flatten()
            .ok_or_else(|| InvalidMode { shown: text.chars().take(40).collect() })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Mode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("octal digits in quotes, such as \"027\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        assert_eq!("027".parse::<Mode>().unwrap().bits(), 0o27);
        assert_eq!("0o27".parse::<Mode>().ok(), None);
        for bad in ["", "8", "1000", "-1", "rwx"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad:?}");
        }
        assert_eq!(serde_json::to_string(&Mode::new(0o22).unwrap()).unwrap(), "\"022\"");
        assert!(serde_json::from_str::<Mode>("22").unwrap_err().to_string().contains("octal digits in quotes"));
    }
}
