//! What a client can ask of the daemon itself. Only the daemon knows how that is done.

use futures_util::future::BoxFuture;

use crate::protocol::WireError;
use crate::protocol::reply::Reloaded;
use crate::protocol::request::ChildrenAtShutdown;

/// The daemon's care for itself. Asked on the runtime's threads: it must not block.
pub trait Upkeep: Send + Sync + 'static {
    /// Reads the configuration again and puts it in the place of the former one, or only says what that would do. The answer comes when the definitions are
    /// in place; what is to start and to end goes on beside it.
    fn reload(&self, dry_run: bool) -> BoxFuture<'static, Result<Reloaded, WireError>>;

    /// Puts the program that is installed now in the place of the one that runs, in the same process; the sub-processes stay. An error says why the
    /// daemon goes on as it is.
    fn upgrade(&self) -> BoxFuture<'static, Result<(), WireError>>;

    /// Has the daemon leave, or says why it cannot leave in this way.
    fn shutdown(&self, children: ChildrenAtShutdown) -> Result<(), WireError>;
}
