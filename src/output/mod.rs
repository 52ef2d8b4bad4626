//! Where the output of sub-processes goes. It never passes through the daemon: each stream is a descriptor of its own file, or of journald's socket.
//!
//! Pure, without clock or I/O:
//! - [`plan`]: what is to be done about a file of this size and this past; [`lines`]: bytes of a stream → the lines of an answer.
//!
//! On the disk:
//! - [`place`]: directories and the names of files in them; [`stream`]: one stream, addressed by the number of bytes that were ever written to it;
//! - [`rotation`]: cutting a file under its writer without losing a byte; [`gzip`]: old parts, compressed so that they can be read from the middle;
//! - [`record`]: what has to be known of a stream after the daemon was away.
//!
//! At the rim:
//! - [`outputs`]: all streams of a daemon, the handle that everybody holds; [`caretaker`]: the threads that look after them;
//! - [`journal`]: journald's stream socket.

pub mod caretaker;
pub mod gzip;
pub mod journal;
pub mod lines;
pub mod outputs;
pub mod place;
pub mod plan;
pub mod record;
pub mod rotation;
pub mod stream;
#[cfg(test)]
mod tests;

pub use lines::{Lines, Query};
pub use outputs::{Health, Lease, Notice, OpenError, Outputs, Settings, Watcher};
pub use place::StreamName;
pub use plan::Policy;
