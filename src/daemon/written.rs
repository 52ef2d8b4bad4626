//! What sub-processes write down: into the store, and their descriptors to whoever keeps them for the next daemon.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::procfs::{self, Identity};
use crate::protocol::{EndedBy, Name};
use crate::store::{EndingRow, ProcessRow, RunChange, RunRow, StandingRow, Store};
use crate::subprocess::ledger::{Begun, Intent, Ledger, Standing, Written};
use crate::subprocess::published::unix_seconds;

use super::kept::Depository;
use super::recovery::KEPT_NOTIFY;

/// How long a start waits for its intent to be written. A disk that takes longer is out of order, and supervision goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes down what a later daemon must know.
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) depository: Arc<Depository>,
    /// Names this boot of the host.
    pub(super) boot_id: String,
}

impl Ledger for Writer {
    fn intend(&self, intent: &Intent<'_>) -> Written {
        let committed = self.store.begin(RunRow {
            uuid: intent.uuid.to_owned(),
            name: intent.name.clone(),
            args: intent.launch.args.clone(),
            env: intent.launch.env.clone(),
            started_by: intent.origin,
            boot_id: self.boot_id.clone(),
            intended_at: unix_seconds(SystemTime::now()),
            process: None,
            ready: false,
            ending: None,
        });
        Written::after(move || {
            let _ = committed.wait(PATIENCE); // what cannot be written is told by the store itself
        })
    }

    fn begun(&self, begun: &Begun<'_>) {
        let monotonic = procfs::monotonic().saturating_sub(begun.started.elapsed());
        let row = ProcessRow {
            pid: begun.main.pid,
            start_time: begun.main.start_time,
            started_at: unix_seconds(begun.started_at),
            monotonic: u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX),
            notify: begun.notify.is_some(),
        };
        self.store.change(begun.uuid, RunChange::Started(row));
        self.depository.keep(begun.uuid, begun.fd);
        if let Some(notify) = begun.notify {
            self.depository.keep(&format!("{KEPT_NOTIFY}{}", begun.uuid), notify);
        }
    }

    fn main_moved(&self, uuid: &str, main: Identity, fd: BorrowedFd<'_>) {
        self.store.change(uuid, RunChange::MainMoved { pid: main.pid, start_time: main.start_time });
        self.depository.give_up(uuid);
        self.depository.keep(uuid, fd);
    }

    fn ready(&self, uuid: &str) {
        self.store.change(uuid, RunChange::Ready(true));
    }

    fn ending(&self, uuid: &str, by: EndedBy, then_start: bool) {
        self.store.change(uuid, RunChange::Ending(Some(EndingRow { by, then_start })));
    }

    fn gone(&self, uuid: &str) {
        self.store.forget(uuid);
        self.depository.give_up(uuid);
        self.depository.give_up(&format!("{KEPT_NOTIFY}{uuid}"));
    }

    fn stands(&self, name: &Name, standing: &Standing) {
        let Standing { state, wanted, restarts, attempt } = *standing;
        self.store.stand(StandingRow { name: name.clone(), state, wanted, restarts, attempt });
    }

    fn unregistered(&self, name: &Name) {
        self.store.unstand(name);
    }
}
