//! procman
pub mod protocol;
pub mod subprocess;
