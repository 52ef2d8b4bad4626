//! The threads that look after the logs: one looks and cuts, one compresses, behind everything else.
//!
//! Nothing tells them of a write; they look, the more often the faster a file grows, and an idle one every five seconds, which costs two microseconds.
//! A file that begins to grow fast in between shows on the disk as a whole, whose room is asked for twice a second.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::outputs::{Entry, Inner, Notice, Outputs, lock};
use super::place::Segment;
use super::plan::{Action, next_look, plan};
use super::rotation::Look;
use super::stream::Change;
use crate::sys::file::{self, Room};

/// How often the room on the disk is asked for, and so the shortest time between two looks at all files.
const TICK: Duration = Duration::from_millis(500);
/// So many bytes taken from the disk between two ticks are worth a look at every file that is written to.
const GULP: u64 = 32 << 20;
/// The longest time between two looks at a file that a process writes to.
const IN_USE: Duration = Duration::from_secs(5);
/// And at one that none of ours writes to: there is its age to be watched, and a process that outlived a daemon that was killed may write on.
const AT_REST: Duration = Duration::from_secs(60);
/// The disk counts as full when less is left: the larger of the two leaves no room to work, the smaller suits a small disk.
const MARGIN: (u64, u64) = (64 << 20, 20);
/// Parts that may wait to be compressed; further ones are told again at the next look.
const WAITING: usize = 256;

/// What the caretaker remembers of one stream.
#[derive(Debug, Default)]
pub(super) struct Care {
    next: Option<Instant>,
    last: Option<(Instant, u64)>,
    /// Bytes a second, lately.
    rate: f64,
    /// How long nothing has come.
    quiet: Duration,
    /// It was found that the file system can punch holes.
    can_cut: bool,
    /// What is wrong with it that only a new start heals.
    lost: bool,
}

impl Care {
    /// It was opened: what was wrong with it is over.
    pub(super) fn look_soon(&mut self) {
        (self.next, self.quiet, self.lost) = (None, Duration::ZERO, false);
    }

    /// Takes note of how many bytes were ever written.
    fn grew(&mut self, now: Instant, end: u64) {
        if let Some((at, before)) = self.last {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            if seconds < 0.001 {
                return;
            }
            let rate = end.saturating_sub(before) as f64 / seconds;
            // A rise counts at once; a fall in halves, so that a flood that takes breath is still one.
            self.rate = if rate >= self.rate { rate } else { (self.rate * 0.5_f64.powf(seconds)).max(rate) };
            if self.rate < 1.0 {
                self.rate = 0.0;
            }
            self.quiet = if rate > 0.0 { Duration::ZERO } else { self.quiet + now.saturating_duration_since(at) };
        }
        self.last = Some((now, end));
    }
}

/// The threads. They end when this is dropped, between two files.
#[derive(Debug)]
pub struct Caretaker {
    outputs: Outputs,
    threads: Vec<JoinHandle<()>>,
}

impl Outputs {
    /// Begins to look after the streams.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn look_after(&self) -> io::Result<Caretaker> {
        let (sender, receiver) = sync_channel(WAITING);
        let mut caretaker = Caretaker { outputs: self.clone(), threads: Vec::new() };
        let outputs = self.clone();
        caretaker.threads.push(thread::Builder::new().name("log-gzip".into()).spawn(move || compress(&outputs.0, &receiver))?);
        let mut round = Round { inner: self.0.clone(), compress: sender, clock: Clock::start(), room: None };
        caretaker.threads.push(thread::Builder::new().name("logs".into()).spawn(move || round.run())?);
        Ok(caretaker)
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        *lock(&self.outputs.0.leaving) = true;
        self.outputs.0.wake.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// The wall clock as it was at the start, moved on by the monotonic one: a clock that somebody sets makes no file a year older.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant, SystemTime);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    fn now(&self) -> SystemTime {
        self.1 + self.0.elapsed()
    }
}

type Job = (Arc<Entry>, Segment);

/// The life of the thread that compresses.
fn compress(inner: &Inner, jobs: &Receiver<Job>) {
    file::yield_to_all();
    while let Ok((entry, segment)) = jobs.recv() {
        match entry.stream.compress(segment, || !*lock(&inner.leaving)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            // It is told again at a later look.
            Err(error) => tracing::warn!(name = %entry.name, stream = %entry.which, %error, "cannot compress a part of a log"),
            Ok(()) => {}
        }
    }
}

/// The one that looks and cuts.
struct Round {
    inner: Arc<Inner>,
    compress: SyncSender<Job>,
    clock: Clock,
    room: Option<Room>,
}

impl Round {
    fn run(&mut self) {
        loop {
            {
                let leaving = lock(&self.inner.leaving);
                let (leaving, _) =
                    self.inner.wake.wait_timeout_while(leaving, TICK, |leaving| !*leaving).unwrap_or_else(PoisonError::into_inner);
                if *leaving {
                    return;
                }
            }
            self.tick();
        }
    }

    fn tick(&mut self) {
        let entries: Vec<Arc<Entry>> = lock(&self.inner.entries).values().cloned().collect();
        if entries.is_empty() {
            return;
        }
        let gulp = self.ask_for_room(&entries);
        let full = self.inner.full.load(Ordering::Relaxed);
        for entry in &entries {
            let due = lock(&entry.care).next.is_none_or(|next| next <= Instant::now());
            if due || (gulp || full) && entry.is_leased() {
                self.care_for(entry, full);
            }
            if *lock(&self.inner.leaving) {
                return;
            }
        }
    }

    /// Asks how much room is left, and answers whether much was taken since. On a full disk the oldest parts of all go first.
    fn ask_for_room(&mut self, entries: &[Arc<Entry>]) -> bool {
        // Before the first log is opened there is no directory, and nothing to look after.
        let Ok(mut room) = file::room(&self.inner.settings.logs) else { return false };
        let gulp = self.room.is_some_and(|before| before.available.saturating_sub(room.available) > GULP);
        self.room = Some(room);
        let margin = MARGIN.0.min(room.size / MARGIN.1);
        let was_full = self.inner.full.load(Ordering::Relaxed);
        // Once full it stays so until there is a little more, or it would come and go with every line.
        let full = room.available < if was_full { margin + margin / 4 } else { margin };
        if full {
            room = self.make_room(entries, room, margin + margin / 4);
        }
        if full != was_full {
            self.inner.full.store(full, Ordering::Relaxed);
            self.inner.watcher.notice(&Notice::Disk { logs: &self.inner.settings.logs, full, available: room.available });
        }
        gulp
    }

    /// Removes the oldest part of all, again and again until there is room. The newest part of each stream stays.
    fn make_room(&self, entries: &[Arc<Entry>], mut room: Room, margin: u64) -> Room {
        let mut oldest: BTreeMap<(SystemTime, usize), &Arc<Entry>> = BTreeMap::new();
        let find = |at: usize, entry: &Entry| Some((entry.stream.oldest_removable().ok()??, at));
        for (at, entry) in entries.iter().enumerate() {
            oldest.extend(find(at, entry).map(|key| (key, entry)));
        }
        while room.available < margin
            && let Some(((_, at), entry)) = oldest.pop_first()
        {
            if let Err(error) = entry.stream.remove(1) {
                tracing::warn!(name = %entry.name, stream = %entry.which, %error, "cannot remove an old part of a log from a full disk");
                continue;
            }
            oldest.extend(find(at, entry).map(|key| (key, entry)));
            match file::room(&self.inner.settings.logs) {
                Ok(now) => room = now,
                Err(_) => break,
            }
        }
        room
    }

    /// One look at one stream, and what is to be done about it.
    fn care_for(&self, entry: &Arc<Entry>, full: bool) {
        let now = Instant::now();
        let policy = lock(&entry.policy).clone();
        let Look { change, end, mut facts } = match entry.stream.examine(self.clock.now()) {
            Ok(look) => look,
            Err(error) => return self.failed(entry, &policy, &error),
        };
        let mut care = lock(&entry.care);
        care.grew(now, end);
        (facts.rate, facts.full) = (care.rate, full);
        let leased = entry.is_leased();
        care.lost |= leased && matches!(change, Change::Missing | Change::Replaced);
        let latest = if leased { IN_USE } else { AT_REST };
        care.next = Some(now + next_look(facts.data, policy.max_size, care.rate, care.quiet, latest));
        let (lost, can_cut) = (care.lost, care.can_cut);
        drop(care);
        if change == Change::Truncated {
            tracing::warn!(name = %entry.name, stream = %entry.which, "somebody has cut the log short; what was in it is gone");
        }
        if lost {
            let path = entry.stream.path();
            let text = format!("{} was removed: the output goes into the deleted file, and is lost, until the next start", path.display());
            return self.problem(entry, Some(&text));
        }
        let actions = plan(&facts, &policy);
        if actions.is_empty() {
            return self.problem(entry, None);
        }
        if !can_cut && actions.iter().any(|action| matches!(action, Action::Drop(_) | Action::Rotate(_))) {
            match entry.stream.try_to_cut() {
                Ok(()) => lock(&entry.care).can_cut = true,
                Err(error) if full && error.raw_os_error() == Some(libc::ENOSPC) => {}
                Err(error) => return self.failed(entry, &policy, &error),
            }
        }
        match actions.iter().try_for_each(|action| self.act(entry, action)) {
            Ok(()) => self.problem(entry, None),
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && !full => {
                // The disk is full though there seemed to be room: what can be done without any is done at once.
                let without_copying = plan(&super::plan::Facts { full: true, ..facts }, &policy);
                if let Err(error) = without_copying.iter().try_for_each(|action| self.act(entry, action)) {
                    self.failed(entry, &policy, &error);
                }
            }
            Err(error) => self.failed(entry, &policy, &error),
        }
    }

    fn act(&self, entry: &Arc<Entry>, action: &Action) -> io::Result<()> {
        let (name, stream) = (&entry.name, entry.which);
        match action {
            Action::Remove(count) => entry.stream.remove(*count)?,
            Action::Drop(bytes) => {
                if entry.stream.drop_head(*bytes)? {
                    self.inner.watcher.notice(&Notice::Dropped { name, stream, bytes: *bytes });
                }
            }
            Action::Rotate(sizes) => {
                let parts = entry.stream.rotate(sizes)?;
                if parts > 0 {
                    let bytes = sizes.iter().take(parts).sum();
                    self.inner.watcher.notice(&Notice::Rotated { name, stream, parts, bytes });
                }
            }
            Action::Compress(at) => {
                if let Some(segment) = entry.stream.queue(*at)?
                    && self.compress.try_send((entry.clone(), segment)).is_err()
                {
                    entry.stream.unqueue(segment)?;
                }
            }
            Action::Collapse => entry.stream.collapse()?,
        }
        Ok(())
    }

    fn failed(&self, entry: &Entry, policy: &super::Policy, error: &io::Error) {
        lock(&entry.care).next = Some(Instant::now() + Duration::from_secs(5));
        let path = entry.stream.path();
        let text = match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => format!(
                "{} has more than {} bytes and cannot be rotated: its file system knows no holes; put state_dir on ext4, xfs, btrfs or tmpfs",
                path.display(),
                policy.max_size
            ),
            _ => format!("{} cannot be looked after: {error}", path.display()),
        };
        self.problem(entry, Some(&text));
    }

    /// Takes note of what is wrong with a stream, and tells when that changes.
    fn problem(&self, entry: &Entry, problem: Option<&str>) {
        let mut known = lock(&entry.problem);
        if known.as_deref() == problem {
            return;
        }
        *known = problem.map(str::to_owned);
        drop(known);
        self.inner.watcher.notice(&Notice::Problem { name: &entry.name, stream: entry.which, problem });
    }
}
