//! Stub.
#![allow(missing_docs)]
use super::published::Health;
use super::spawn::{Launch, Spawner};
use super::spec::Spec;
use super::spec::probe::{Probe, StopRequest};
use crate::procfs::{Forest, Identity};
use futures_util::future::BoxFuture;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
pub trait Ask: Send + Sync + 'static {
    fn ask(&self, probe: &Probe, within: Duration) -> BoxFuture<'static, Result<(), String>>;
}
#[derive(Debug)]
pub struct NotifySocket;
impl NotifySocket {
    pub fn bind(_: &Path, _: &str) -> io::Result<Self> {
        Ok(Self)
    }
    pub fn path(&self) -> &Path {
        Path::new("/x")
    }
    pub fn environment(&self, _: &Spec) -> Vec<(String, String)> {
        Vec::new()
    }
}
pub struct VigilShared {
    pub ask: Arc<dyn Ask>,
    pub spawner: Spawner,
    pub forest: Arc<Forest>,
}
pub struct WatchedRun {
    pub spec: Arc<Spec>,
    pub launch: Launch,
    pub uuid: String,
    pub main: Identity,
    pub notify: Option<NotifySocket>,
    pub shared: Arc<VigilShared>,
}
pub enum Sign {
    Ready,
    Health(Health),
    Unhealthy { message: String },
    Status(String),
    MainPid(Identity),
    Reloading,
    Stopping,
    ExtendTimeout(Duration),
}
pub struct Vigil;
impl Vigil {
    pub fn begin(_: WatchedRun) -> Self {
        Self
    }
    pub async fn next(&mut self) -> Sign {
        std::future::pending().await
    }
    pub fn drain(&mut self) -> Vec<Sign> {
        Vec::new()
    }
    pub fn ready(&mut self) {}
}
pub async fn ask_to_stop(_: Arc<Spec>, _: StopRequest, _: Launch, _: Arc<VigilShared>) -> Result<(), String> {
    Ok(())
}
