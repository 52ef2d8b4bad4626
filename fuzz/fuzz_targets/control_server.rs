//! Any frames of a client of CGSE's control servers are either understood or refused, and a refusal has something to say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use procman::control::dialect::understood;

fuzz_target!(|data: &[u8]| {
    let frames: Vec<&[u8]> = data.splitn(2, |byte| *byte == b'\n').collect();
    if let Err(message) = understood(&frames) {
        assert!(!message.is_empty());
    }
});
