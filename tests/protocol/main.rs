//! What is published of the protocol is what the code does: the frozen messages of `proto/golden`, and the tables of `proto/PROTOCOL.md`.

mod document;
mod golden;
mod samples;
