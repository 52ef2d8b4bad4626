//! The thread that brings commits to the disk, beside the writer: nobody who starts a process waits for a disk to turn.
//!
//! With `synchronous = NORMAL` a commit is in the kernel's hands and outlives the daemon; fdatasync(2) on the write-ahead log makes it outlive the host,
//! as `synchronous = FULL` would within the commit. The log may be opened here: it is the database and its `-shm` whose locks would be lost with a
//! second descriptor's closing. What a checkpoint has carried over meanwhile was synced by it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::Exchange;

/// How long entries of the audit trail, for which nobody waits, may be without the disk: a busy daemon syncs this often and not for each.
const AUDIT_DELAY: Duration = Duration::from_millis(200);

pub(super) struct Syncer {
    pub(super) wal: PathBuf,
    pub(super) exchange: Arc<Exchange>,
}

impl Syncer {
    /// The file stays open, so that a daemon whose descriptors are used up goes on writing.
    fn sync(&self, held: &mut Option<File>) -> io::Result<()> {
        let there = fs::metadata(&self.wal)?;
        let same = |file: &File| file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()));
        if !held.as_ref().is_some_and(same) {
            *held = None;
        }
        match held {
            Some(file) => file.sync_data(),
            None => held.insert(File::open(&self.wal)?).sync_data(),
        }
    }

    pub(super) fn run(self) {
        let mut held = None;
        let mut unsynced_since: Option<Instant> = None;
        loop {
            let mut desk = self.exchange.desk();
            loop {
                if desk.closed && desk.to_sync.is_empty() {
                    return;
                }
                let late = desk.unsynced.then(|| AUDIT_DELAY.saturating_sub(unsynced_since.get_or_insert_with(Instant::now).elapsed()));
                if !desk.to_sync.is_empty() || late == Some(Duration::ZERO) {
                    break;
                }
                desk = Exchange::sleep(&self.exchange.syncer, desk, late.unwrap_or(Duration::from_secs(3600)));
            }
            unsynced_since = None;
            desk.unsynced = false;
            desk.in_sync = std::mem::take(&mut desk.to_sync);
            desk.syncing = Some(Instant::now());
            drop(desk);
            let synced = self.sync(&mut held);
            let mut desk = self.exchange.desk();
            desk.syncing = None;
            match synced {
                Ok(()) => {
                    let done = std::mem::take(&mut desk.in_sync);
                    let closing = desk.closing.is_some();
                    drop(desk);
                    done.into_iter().for_each(|ack| ack.resolve(Ok(())));
                    if closing {
                        self.exchange.writer.notify_one();
                    }
                }
                Err(error) => {
                    // The kernel tells of a page that it could not write once, and forgets it: all must be written anew.
                    let problem = format!("cannot bring {} to the disk: {error}", self.wal.display()).into();
                    let done = std::mem::take(&mut desk.in_sync);
                    desk.sync_failed = Some(error.kind());
                    drop(desk);
                    done.into_iter().for_each(|ack| ack.resolve(Err(super::desk::Desk::not_durable(&problem))));
                    self.exchange.writer.notify_one();
                }
            }
        }
    }
}
