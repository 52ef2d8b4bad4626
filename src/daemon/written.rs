//! What sub-processes write down: into the store, and their descriptors to whoever keeps them for the next daemon.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::procfs::{self, Identity};
use crate::protocol::{EndedBy, Name};
use crate::store::{EndingRow, ProcessRow, RunChange, RunRow, StandingRow, Store};
use crate::subprocess::ledger::{Begun, Intent, Ledger, Standing, Written};
use crate::subprocess::published::unix_seconds;

use super::kept::Depository;
use super::recovery::KEPT_NOTIFY;

/// How long a start waits for its intent to be written. A disk that takes longer is out of order, and supervision goes on.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the socket of a run is kept as.
fn notify_name(uuid: &str) -> String {
    format!("{KEPT_NOTIFY}{uuid}")
}

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
            monotonic: procfs::nanoseconds_at(Instant::now()),
            start_sum: Some(intent.start_sum),
            process: None,
            ready: false,
            ending: None,
        });
        if let Some(notify) = intent.notify {
            self.depository.keep(&notify_name(intent.uuid), notify);
        }
        let wait = move || {
            let _ = committed.wait(PATIENCE); // what cannot be written is told by the store itself
        };
        let (depository, uuid) = (self.depository.clone(), intent.uuid.to_owned());
        Written::after(wait, move |fd| depository.keep(&uuid, fd))
    }

    fn begun(&self, begun: &Begun<'_>) {
        let row = ProcessRow {
            pid: begun.main.pid,
            start_time: begun.main.start_time,
            started_at: unix_seconds(begun.started_at),
            monotonic: procfs::nanoseconds_at(begun.started),
            notify: begun.notify,
        };
        self.store.change(begun.uuid, RunChange::Started(row));
    }

    fn held(&self, uuid: &str, main: BorrowedFd<'_>, notify: Option<BorrowedFd<'_>>) {
        self.depository.keep_new(uuid, main);
        if let Some(notify) = notify {
            self.depository.keep_new(&notify_name(uuid), notify);
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
        let forgotten = self.store.forget(uuid);
        if !self.depository.keeps() {
            return;
        }
        // A daemon that finds the run written down must find its descriptor, too: that alone tells how it ended. What cannot be written down is given
        // up all the same, or there would be more and more of it.
        let (depository, uuid) = (self.depository.clone(), uuid.to_owned());
        tokio::spawn(async move {
            let _ = forgotten.await;
            depository.give_up(&uuid);
            depository.give_up(&notify_name(&uuid));
        });
    }

    fn stands(&self, name: &Name, standing: &Standing) {
        let Standing { state, wanted, restarts, attempt, scheduled } = *standing;
        self.store.stand(StandingRow { name: name.clone(), state, wanted, restarts, attempt, scheduled: scheduled.map(unix_seconds) });
    }

    fn unregistered(&self, name: &Name) {
        self.store.unstand(name);
    }
}
