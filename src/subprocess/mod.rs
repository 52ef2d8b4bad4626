//! One supervised sub-process.
pub mod machine;
pub mod restart;
pub mod spec;
