//! Whether a start may begin: what it requires must be ready first.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::protocol::{Name, StateName};

use super::spec::Spec;

/// Somebody who knows whether what a sub-process requires is ready.
pub trait Gate: Send + Sync + Debug + 'static {
    /// What to wait for before this is started; `None` when it may start at once.
    fn open(&self, spec: &Arc<Spec>) -> Option<BoxFuture<'static, Result<(), Closed>>>;
}

/// A start that cannot be made, because what it requires has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// What it requires.
    pub name: Name,
    /// Where that is.
    pub state: StateName,
}

/// Nothing is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Open;

impl Gate for Open {
    fn open(&self, _: &Arc<Spec>) -> Option<BoxFuture<'static, Result<(), Closed>>> {
        None
    }
}
