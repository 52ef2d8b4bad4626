//! procman
pub mod client;
pub mod protocol;
pub mod subprocess;
pub mod sys;
