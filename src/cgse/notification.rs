//! What the notify hub takes: an event in JSON, as `egse.notifyhub` has it. It publishes it under its `event_type`, and its subscribers look a handler up
//! by that very word, so the names of sub-processes are in the data alone.

use serde::Serialize;

use crate::protocol::event::Event;

/// What stands before each type: a subscription to it is one to all events of procman.
pub const PREFIX: &str = "procman.";
/// The word of a change of state.
const STATE_CHANGED: &str = "state_changed";

#[derive(Serialize)]
struct Notification<'a> {
    event_type: String,
    source_service: &'a str,
    data: &'a Event,
    timestamp: f64,
    correlation_id: &'a str,
}

/// An event as one frame for the notify hub, from a daemon of this service type. `correlation_id` is the run of the daemon, in which the event's `seq`
/// counts: both together are it alone.
pub fn encode(event: &Event, service_type: &str) -> Vec<u8> {
    let (word, timestamp, daemon) = match event {
        Event::StateChanged(event) => (STATE_CHANGED, event.time, &event.daemon),
        Event::Noted(event) => (event.event.as_str(), event.time, &event.daemon),
    };
    let notification = Notification {
        event_type: format!("{PREFIX}{word}"),
        source_service: service_type,
        data: event,
        timestamp,
        correlation_id: daemon,
    };
    // Texts and numbers always encode; a number that JSON has not becomes null.
    serde_json::to_vec(&notification).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::{Fact, Noted, Stamp, StateChanged};
    use crate::protocol::{Cause, EventName, StateName};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn said(event: &Event) -> Value {
        serde_json::from_slice(&encode(event, "PROCMAN")).unwrap()
    }

    fn stamp() -> Stamp {
        Stamp { seq: 7, time: 1_795_000_000.5, daemon: "e20647c3".into() }
    }

    #[test]
    fn a_change_of_state_is_as_the_hub_takes_it() {
        let Stamp { seq, time, daemon } = stamp();
        let event = StateChanged {
            seq,
            time,
            name: "log_cs".parse().unwrap(),
            from: StateName::Running,
            to: StateName::Exited,
            pid: None,
            returncode: Some(-9),
            signal: Some(9),
            cause: Some(Cause::Signal),
            daemon,
        };
        assert_eq!(
            said(&Event::StateChanged(event)),
            json!({"event_type": "procman.state_changed", "source_service": "PROCMAN", "timestamp": 1_795_000_000.5, "correlation_id": "e20647c3",
                "data": {"seq": 7, "time": 1_795_000_000.5, "name": "log_cs", "from": "running", "to": "exited", "pid": null, "returncode": -9,
                    "signal": 9, "cause": "signal", "daemon": "e20647c3"}})
        );
    }

    proptest! {
        /// Whatever an event says, `egse.notifyhub.server` finds what it looks for: a type that is a text without blanks, data that is a map, numbers that are numbers.
        #[test]
        fn any_event_is_one_that_the_hub_takes(
            word in 0..EventName::ALL.len(), message in ".{0,1200}", key in "[a-z_]{1,12}", number in any::<f64>(), text in ".{0,40}", named in any::<bool>()
        ) {
            let name = named.then(|| "a.b@1".parse().unwrap());
            let mut noted = Noted::new(stamp(), EventName::ALL[word], name, &message).with(&key, number).with("more", text.as_str());
            noted.details.insert("count".into(), Fact::Int(i64::MIN));
            let frame = encode(&Event::Noted(noted), "PROCMAN");
            let said: Value = serde_json::from_slice(&frame).unwrap();
            prop_assert_eq!(&said["event_type"], &json!(format!("procman.{}", EventName::ALL[word])));
            prop_assert!(said["source_service"] == "PROCMAN" && said["timestamp"].is_f64() && said["correlation_id"].is_string());
            prop_assert!(said["data"]["message"].is_string() && said["data"]["details"].is_object());
            prop_assert_eq!(said["data"]["details"][&key].is_null(), !number.is_finite() && key != "count" && key != "more");
            prop_assert_eq!(said.as_object().unwrap().len(), 5);
        }
    }
}
