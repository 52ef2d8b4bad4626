//! procman
pub mod procfs;
pub mod protocol;
pub mod subprocess;
