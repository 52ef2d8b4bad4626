//! Sizes of a definition.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A size in bytes: an integer, or a text such as `"2G"` (K, M, G and T are powers of 1024). At most 2⁶³ − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(u64);

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not a size: say a number of bytes, or a text such as \"512K\", \"10M\" or \"2G\"")]
pub struct InvalidBytes {
    shown: String,
}

/// TOML and SQL know signed integers only.
const MOST: u64 = i64::MAX as u64;

impl Bytes {
    /// The size, if it is one.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes <= MOST).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = InvalidBytes;

    fn from_str(text: &str) -> Result<Self, InvalidBytes> {
        let invalid = || InvalidBytes { shown: text.chars().take(40).collect() };
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
            Some(b'T' | b't') => (&text[..text.len() - 1], 40),
            Some(_) | None => (text, 0),
        };
        // `parse` would take a sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).and_then(Self::new).ok_or_else(invalid)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a text such as \"10M\"")
            }

            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Bytes, E> {
                Bytes::new(bytes).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(bytes), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                u64::try_from(bytes).ok().and_then(Bytes::new).ok_or_else(|| E::invalid_value(Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Size).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("512", 512), ("1K", 1024), ("10M", 10 << 20), ("2g", 2 << 30), ("1T", 1 << 40)] {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), bytes);
        }
        for bad in ["", "M", "-1", "+1", "1.5G", "1 G", "1GB", "99999999999999999999", "99999999T"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        assert_eq!(serde_json::from_str::<Bytes>("4096").unwrap().get(), 4096);
        assert_eq!(serde_json::from_str::<Bytes>("\"4K\"").unwrap().get(), 4096);
        assert!(serde_json::from_str::<Bytes>("-1").is_err() && serde_json::from_str::<Bytes>("1.5").is_err());
    }
}
