//! What happens to a daemon and to its host in the worst of weeks. `make torture` has all of it at length.
//!
//! - `standstill`: the daemon is stopped for a while;
//! - `vanishing`: clients are gone in the middle of their requests;
//! - `wrapping`: PIDs begin anew, and are somebody else's;
//! - `stepped`: the host's clock is set while no daemon lives;
//! - `memory`: the kernel kills the daemon for lack of memory.

mod memory;
mod standstill;
mod stepped;
mod vanishing;
mod wrapping;
