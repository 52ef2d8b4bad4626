//! JSON as a client sends it, held against what MessagePack is held against: depth, keys that are said twice, and numbers that would not be what was said.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::protocol::MAX_DEPTH;

/// Reads one object.
///
/// # Errors
/// It is none, or says what cannot be taken over as it is; for people.
pub(super) fn read_object(text: &[u8]) -> Result<Map<String, Value>, String> {
    look_over(text)?;
    match serde_json::from_slice(text) {
        Ok(Once(Value::Object(object))) => Ok(object),
        Ok(_) => Err("a request in JSON is an object, { … }, with `command`".to_owned()),
        Err(error) => Err(format!("this is not JSON: {error}")),
    }
}

/// Goes over the text once, before anything is built of it: how deep it is nested, and whether an integer is one that only a float could stand for, which
/// would be rounded in silence. What is no JSON at all is told by who reads it.
fn look_over(text: &[u8]) -> Result<(), String> {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = match first {
            b'"' => behind_string(behind),
            b'[' | b'{' => {
                depth += 1;
                // What stands in the innermost one is a level, too, as in MessagePack.
                if depth >= MAX_DEPTH {
                    return Err(format!("it is nested more than {MAX_DEPTH} levels deep"));
                }
                behind
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                behind
            }
            b'-' | b'0'..=b'9' => {
                let length = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
                let (number, behind) = rest.split_at(length);
                if is_too_large(number) {
                    let shown: String = String::from_utf8_lossy(number).chars().take(SHOWN_DIGITS).collect();
                    return Err(format!("the integer {shown} is out of range: {} to {}", i64::MIN, u64::MAX));
                }
                behind
            }
            _ => behind,
        };
    }
    Ok(())
}

/// So many digits of a number are shown.
const SHOWN_DIGITS: usize = 40;

/// Whether this is an integer that has no 64 bits for it.
fn is_too_large(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let Ok(text) = std::str::from_utf8(number) else { return false };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && text.parse::<u64>().is_err() && text.parse::<i64>().is_err()
}

/// What follows the quotation mark at the end of a string, which begins here.
fn behind_string(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b'"', behind @ ..] => return behind,
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return text,
        };
    }
}

/// A JSON value in which each key of an object is said once.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Once(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some((key, Once(value))) = map.next_entry::<String, Once>()? {
            if entries.contains_key(&key) {
                return Err(A::Error::custom(format_args!("`{key}` is said twice")));
            }
            entries.insert(key, value);
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_not_be_taken_over_as_it_is_is_refused() {
        let refused = |text: &str, words: &str| {
            let message = read_object(text.as_bytes()).unwrap_err();
            assert!(message.contains(words), "{text}: {message}");
        };
        refused(r#"{"a": 18446744073709551616}"#, "18446744073709551616");
        refused(r#"{"a": [-9223372036854775809]}"#, "-9223372036854775809");
        refused(&format!("{{\"a\": {}}}", "9".repeat(1000)), "out of range");
        refused(r#"{"a": 1, "b": {"c": 2, "c": 3}}"#, "`c` is said twice");
        for not_json in ["", "{", "{\"a", "{\"a\\", "{\"a\": -}", "{\"a\": 1-2}", "{\"a\": 1e999}", "{}{}", "]", "{\"a\": NaN}"] {
            refused(not_json, "not JSON");
        }
        refused("[1]", "an object");
        for right in [r#"{"a": 18446744073709551615, "b": -9223372036854775808, "c": -0, "d": 1e30, "e": 99999999999999999999.5}"#, "{}"] {
            read_object(right.as_bytes()).unwrap();
        }
        // What stands in a text counts for nothing.
        read_object(format!(r#"{{"\\": "\\\"{}99999999999999999999 \\\\", "b": "{}"}}"#, "[".repeat(99), "{".repeat(99)).as_bytes())
            .unwrap();
    }

    #[test]
    fn it_may_be_nested_as_deep_as_messagepack() {
        for depth in 1..80 {
            let text = format!("{{\"command\": \"ping\", \"x\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
            let packed = rmp_serde::to_vec_named(&serde_json::from_str::<Value>(&text).unwrap()).unwrap();
            let message = crate::protocol::codec::decode_request(&packed).unwrap_err().error.message;
            let is_too_deep = message.contains("levels deep");
            assert_eq!(read_object(text.as_bytes()).is_err(), is_too_deep, "{depth}: {message}");
        }
    }

    proptest! {
        #[test]
        fn integers_are_what_was_said_or_refused(number in any::<i128>(), shift in 0_u32..128) {
            let number = number >> shift;
            let read = read_object(format!("{{\"a\": {number}}}").as_bytes());
            let fits = i64::try_from(number).is_ok() || u64::try_from(number).is_ok();
            prop_assert_eq!(read.is_ok(), fits);
            if let Ok(object) = read {
                prop_assert_eq!(object["a"].to_string(), number.to_string());
            }
        }

        #[test]
        fn no_text_breaks_it(text in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'['), Just(b'9'), Just(b'-'), any::<u8>()], 0..60)) {
            drop(read_object(&text));
        }
    }
}
