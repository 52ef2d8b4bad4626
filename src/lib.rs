//! procman
pub mod protocol;
pub mod subprocess;
pub mod telemetry;
