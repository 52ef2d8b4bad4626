//! Any frame is either understood or refused, and a refusal has something to say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use procman::protocol::codec::decode_request;

fuzz_target!(|frame: &[u8]| {
    if let Err(rejected) = decode_request(frame) {
        assert!(!rejected.error.message.is_empty());
    }
});
