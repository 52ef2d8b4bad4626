#![allow(missing_docs)]
use std::collections::BTreeMap;
use crate::protocol::definition::Definition;
use crate::protocol::reply::PastRun;
use crate::protocol::{EndedBy, Name, Origin, StateName, Wanted};
#[derive(Clone, Debug)]
pub struct Store;
#[derive(Debug)]
pub struct Committed;
impl Committed { pub fn wait(self, _: std::time::Duration) {} }
pub trait Watcher: Send + Sync + 'static { fn notice(&self, notice: &StoreNotice<'_>); }
pub enum StoreNotice<'a> { Trouble { problem: &'a str } }
#[derive(Debug)]
pub struct Opened { pub store: Store, pub recovered: Recovered }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct StoreError;
impl std::future::Future for Committed { type Output = Result<(), StoreError>; fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> { std::task::Poll::Ready(Ok(())) } }
impl Store {
    pub fn open(_: &std::path::Path, _: std::sync::Arc<dyn Watcher>) -> Result<Opened, StoreError> { Ok(Opened { store: Store, recovered: Recovered::default() }) }
    pub fn define(&self, _: &Name, _: &Definition) -> Committed { Committed }
    pub fn undefine(&self, _: &Name) -> Committed { Committed }
    pub fn boot(&self, _: &str) {}
    pub fn leave(&self, _: Farewell) {}
    pub fn close(&self) {}
    pub fn begin(&self, _: RunRow) -> Committed { Committed }
    pub fn change(&self, _: &str, _: RunChange) {}
    pub fn end(&self, _: &PastRun) {}
    pub fn forget(&self, _: &str) {}
    pub fn stand(&self, _: StandingRow) {}
    pub fn unstand(&self, _: &Name) {}
}
#[derive(Clone, Debug, PartialEq)]
pub enum Farewell { Quit, Kept }
#[derive(Debug, Default)]
pub struct Recovered {
    pub definitions: Vec<(Name, Definition)>, pub runs: Vec<RunRow>, pub standings: Vec<StandingRow>, pub history: Vec<PastRun>,
    pub farewell: Option<Farewell>, pub boot_id: Option<String>, pub fresh: bool,
}
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow { pub uuid: String, pub name: Name, pub args: Vec<String>, pub env: BTreeMap<String,String>, pub started_by: Origin, pub boot_id: String,
    pub intended_at: f64, pub process: Option<ProcessRow>, pub ready: bool, pub ending: Option<EndingRow> }
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessRow { pub pid: u32, pub start_time: u64, pub started_at: f64, pub monotonic: u64, pub notify: bool }
#[derive(Clone, Debug, PartialEq)]
pub struct EndingRow { pub by: EndedBy, pub then_start: bool }
#[derive(Clone, Debug, PartialEq)]
pub enum RunChange { Started(ProcessRow), MainMoved { pid: u32, start_time: u64 }, Ready(bool), Ending(Option<EndingRow>) }
#[derive(Clone, Debug, PartialEq)]
pub struct StandingRow { pub name: Name, pub state: StateName, pub wanted: Wanted, pub restarts: u64, pub attempt: u32 }
