//! What a client can ask of the daemon itself. Only the daemon knows how that is done.

use futures_util::future::BoxFuture;

use crate::protocol::definition::Definition;
use crate::protocol::reply::Reloaded;
use crate::protocol::request::ChildrenAtShutdown;
use crate::protocol::{Name, WireError};

/// Who keeps what was registered at run time. Called on the runtime's threads: it must not block.
pub trait Definitions: Send + Sync + 'static {
    /// Keeps a definition, also for a later daemon. Resolves once it is on the disk, or cannot be.
    fn define(&self, name: &Name, definition: &Definition) -> BoxFuture<'static, ()>;
    /// Keeps it no longer.
    fn undefine(&self, name: &Name) -> BoxFuture<'static, ()>;
    /// Why nothing can be kept at present, in a sentence; `None` while all is well.
    fn trouble(&self) -> Option<String>;
}

/// What is wrong between the daemon and CGSE, each in a sentence; `None` while all is well, and where the daemon has nothing to do with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgseProblems {
    /// Why the daemon is not in the registry.
    pub registry: Option<String>,
    /// Why the notify hub is not told of events.
    pub notify_hub: Option<String>,
    /// Why the metrics hub gets no points.
    pub metrics_hub: Option<String>,
}

/// The daemon's care for itself. Asked on the runtime's threads: it must not block.
pub trait Upkeep: Send + Sync + 'static {
    /// What is wrong between the daemon and CGSE.
    fn cgse_problems(&self) -> CgseProblems;
    /// Reads the configuration again and puts it in the place of the former one, or only says what that would do. The answer comes when the definitions are
    /// in place; what is to start and to end goes on beside it.
    fn reload(&self, dry_run: bool) -> BoxFuture<'static, Result<Reloaded, WireError>>;

    /// Puts the program that is installed now in the place of the one that runs, in the same process; the sub-processes stay. An error says why the
    /// daemon goes on as it is.
    fn upgrade(&self) -> BoxFuture<'static, Result<(), WireError>>;

    /// Has the daemon leave, or says why it cannot leave in this way.
    fn shutdown(&self, children: ChildrenAtShutdown) -> Result<(), WireError>;
}
