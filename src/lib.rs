//! procman
pub mod host;
pub mod procfs;
pub mod protocol;
pub mod status;
pub mod subprocess;
