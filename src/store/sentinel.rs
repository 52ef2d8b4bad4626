//! The thread that asks no disk anything, and so can tell when one does not answer: then nobody waits for it any longer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::desk::{Exchange, PATIENCE, Problem};
use super::{Notice, Watcher};

const ROUND: Duration = Duration::from_secs(1);

pub(super) struct Sentinel {
    pub(super) path: PathBuf,
    pub(super) exchange: Arc<Exchange>,
    pub(super) watcher: Arc<dyn Watcher>,
}

impl Sentinel {
    pub(super) fn run(self) {
        loop {
            let mut desk = Exchange::sleep(&self.exchange.sentinel, self.exchange.desk(), ROUND);
            if desk.closed {
                return;
            }
            let hangs = [desk.committing, desk.syncing].into_iter().flatten().any(|since| since.elapsed() > PATIENCE);
            if !hangs && matches!(desk.problem, Some(Problem::Hangs(_))) {
                desk.problem = None;
                let (lost_audit, lost_history) = desk.mirror.take_lost();
                drop(desk);
                self.watcher.notice(&Notice::Healed { lost_audit, lost_history });
            } else if hangs && desk.problem.is_none() {
                let seconds = PATIENCE.as_secs();
                let problem: Arc<str> = format!(
                    "{} cannot be written: the disk has not answered for {seconds} s; look at the disk and the kernel's log; until it answers what \
                     changes is kept in memory only",
                    self.path.display()
                )
                .into();
                desk.problem = Some(Problem::Hangs(Arc::clone(&problem)));
                desk.resolve_all(&problem);
                drop(desk);
                self.watcher.notice(&Notice::Trouble { problem: &problem });
            }
        }
    }
}
