//! Whether a process was started with another definition than there is now, as far as a later daemon can tell.

use serde_json::Value;

use crate::protocol::definition::Definition;

/// Keys that say nothing of what a process is started with; a key that is new counts.
const APART: [&str; 19] = [
    "instances",
    "group",
    "after",
    "requires",
    "log",
    "autostart",
    "schedule",
    "overlap",
    "restart",
    "success_codes",
    "backoff",
    "start_limit",
    "start_seconds",
    "ready",
    "health",
    "stop_request",
    "stop_signal",
    "stop_timeout",
    "cgse_service_type",
];

/// A sum of what a process is started with: the same in every build, whatever keys there are by then, and whether defaults are said or not.
pub(super) fn start_sum(definition: &Definition) -> u64 {
    let Ok(Value::Object(mut keys)) = serde_json::to_value(definition) else { return 0 };
    keys.retain(|key, value| !APART.contains(&key.as_str()) && !is_default(key, value));
    // By key: a map of serde_json is in order.
    let text = Value::Object(keys).to_string();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn is_default(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(text) => matches!(key, "stdout" | "stderr") && text == "null",
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_tells_what_a_process_is_started_with_and_nothing_else() {
        let sum = |keys: Value| start_sum(&serde_json::from_value(keys).unwrap());
        let plain = sum(json!({"cmd": ["sleep", "1"]}));
        assert_eq!(sum(json!({"cmd": ["sleep", "1"], "shell": false, "args": [], "env": {}, "stdout": "null"})), plain, "defaults");
        assert_eq!(sum(json!({"cmd": ["sleep", "1"], "restart": "always", "after": ["a"], "stop_timeout": 3.0, "group": "g"})), plain);
        for other in
            [json!({"cmd": ["sleep", "2"]}), json!({"cmd": ["sleep", "1"], "env": {"A": "b"}}), json!({"cmd": ["sleep", "1"], "nice": 0})]
        {
            assert_ne!(sum(other.clone()), plain, "{other}");
        }
        // What is written down by one build is compared by another.
        assert_eq!(plain, 6_044_637_797_027_075_913);
    }
}
