//! Asking a service one question.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::subprocess::spec::probe::Probe;
use crate::subprocess::vigil::Ask;

/// Asks services.
#[derive(Clone, Debug, Default)]
pub struct Asker;

impl Asker {
    /// One that asks.
    pub fn new() -> Self {
        Self
    }
}

impl Ask for Asker {
    fn ask(&self, _: &Probe, _: Duration) -> BoxFuture<'static, Result<(), String>> {
        std::future::ready(Err("not built yet".to_owned())).boxed()
    }
}
