//! Whatever a service says of itself, it breaks nothing, and what comes of it is bounded.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use procman::subprocess::vigil::message::{MAX_STATUS, Message};

fuzz_target!(|bytes: &[u8]| {
    let message = Message::parse(bytes);
    if let Some(status) = &message.status {
        assert!(status.chars().count() <= MAX_STATUS && !status.chars().any(char::is_control));
    }
    assert!(message.main != Some(0));
    for time in [message.watchdog, message.extend].into_iter().flatten() {
        assert!(time > Duration::ZERO && time < Duration::from_secs(366 * 24 * 3600));
    }
    assert!(!(message.alive && message.trigger));
});
