//! One supervised sub-process.
pub mod spec;
