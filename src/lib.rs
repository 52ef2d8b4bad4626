//! procman
pub mod config;
pub mod protocol;
pub mod subprocess;
