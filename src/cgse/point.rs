//! What the metrics hub takes: a point in JSON, as `egse.metrics.DataPoint` has it.
//!
//! A database behind the hub gives each field a type when it first sees it, and refuses another one later. So a field is a whole number, a number with a
//! fraction or a text once and for ever; what is not known is left out.

use std::collections::BTreeMap;

use serde::Serialize;

/// One point of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataPoint {
    measurement: &'static str,
    tags: BTreeMap<&'static str, String>,
    fields: BTreeMap<&'static str, Field>,
    time: f64,
}

/// The value of a field. A fraction stays one in JSON, also where it is zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Field {
    Int(i64),
    Float(f64),
    Text(String),
}

impl DataPoint {
    /// One without fields, which the hub does not take yet. `time` is Unix seconds.
    pub const fn new(measurement: &'static str, time: f64) -> Self {
        Self { measurement, tags: BTreeMap::new(), fields: BTreeMap::new(), time }
    }

    /// The same with what tells it from other points. A tag without a text is left out: the line protocol of InfluxDB has none.
    #[must_use]
    pub fn tag(mut self, key: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value.filter(|value| is_tag(value)) {
            self.tags.insert(key, value.to_owned());
        }
        self
    }

    /// The same with a whole number.
    #[must_use]
    pub fn int(mut self, key: &'static str, value: Option<impl TryInto<i64>>) -> Self {
        if let Some(value) = value {
            self.fields.insert(key, Field::Int(value.try_into().unwrap_or(i64::MAX)));
        }
        self
    }

    /// The same with a number that may have a fraction. One that is infinite or none is left out.
    #[must_use]
    pub fn float(mut self, key: &'static str, value: Option<f64>) -> Self {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.fields.insert(key, Field::Float(value));
        }
        self
    }

    /// The same with a word.
    #[must_use]
    pub fn text(mut self, key: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.fields.insert(key, Field::Text(value.to_owned()));
        }
        self
    }

    /// As one frame for the metrics hub.
    pub fn encode(&self) -> Vec<u8> {
        // Texts and finite numbers always encode.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Whether a text can be a tag everywhere: printable and without blanks.
pub fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn a_point_is_as_the_hub_takes_it() {
        let point =
            DataPoint::new("procman_process", 1_795_000_000.0).tag("name", Some("log_cs")).tag("group", None).tag("host", Some("a b"));
        let point =
            point.int("up", Some(1_u32)).float("cpu_percent", Some(0.0)).text("state", Some("running")).int("open_fds", None::<u64>);
        let expected = r#"{"measurement":"procman_process","tags":{"name":"log_cs"},"fields":{"cpu_percent":0.0,"state":"running","up":1},"time":1795000000.0}"#;
        assert_eq!(String::from_utf8(point.encode()).unwrap(), expected);
        assert!(["", "a b", "ü", "a\n", "a\\"].into_iter().all(|text| !is_tag(text)) && is_tag("LAB23.x-1"));
    }

    proptest! {
        /// A field never changes its type, and no number is one that JSON has not.
        #[test]
        fn numbers_keep_their_kind(whole in any::<u64>(), fraction in any::<f64>()) {
            let point = DataPoint::new("m", 1.5).int("whole", Some(whole)).float("fraction", Some(fraction)).int("always", Some(0_u8));
            let said: Value = serde_json::from_slice(&point.encode()).unwrap();
            prop_assert_eq!(said["fields"]["whole"].as_i64(), Some(i64::try_from(whole).unwrap_or(i64::MAX)));
            prop_assert_eq!(said["fields"].get("fraction").is_some(), fraction.is_finite());
            prop_assert!(said["fields"].get("fraction").is_none_or(Value::is_f64));
        }
    }
}
