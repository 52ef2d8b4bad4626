//! What is published of the protocol is what the code does: the frozen messages of `proto/golden`, and the tables of `proto/PROTOCOL.md`.

// Everything here is a test, helpers included, which clippy knows of `#[test]` functions only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod document;
mod golden;
mod samples;
