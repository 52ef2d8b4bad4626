//! Who there is of a tree: by its control group, by the forest, or by both.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::procfs::{self, Forest, Identity};

use super::super::containment::RunGroup;
use super::Whole;

/// Whether some of a run with a group live outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beyond {
    /// To be looked for when the group is empty.
    Unknown,
    /// As the last look of anybody at all processes says.
    LastSeen,
    /// Some did.
    Some,
    /// None do.
    None,
}

/// Who was found of a tree.
pub(super) struct Found {
    /// Ascending.
    pub(super) living: Vec<Identity>,
    /// Some that have ended and wait to be reaped by this daemon.
    pub(super) unreaped: Vec<Identity>,
    /// Whether something lives that cannot be seen: in another PID namespace, or on its last steps.
    pub(super) hidden: bool,
    /// Whether nothing found means that there is nothing.
    pub(super) certain: bool,
}

/// So few processes are looked at on the spot: most runs are a process or two.
const FEW: usize = 16;

/// Looks for the processes of one tree.
pub(super) struct Finder {
    forest: Arc<Forest>,
    whole: Whole,
    /// Who was there in the first look.
    first: Option<Vec<Identity>>,
    beyond: Beyond,
    /// Nothing lives in the group or beyond it, so nothing ever will: what is left is to be reaped.
    empty: bool,
}

impl Finder {
    /// `everywhere`: looks beyond a group, too, before it calls the tree gone.
    pub(super) fn new(forest: Arc<Forest>, whole: Whole, everywhere: bool) -> Self {
        Self { forest, whole, first: None, beyond: if everywhere { Beyond::Unknown } else { Beyond::LastSeen }, empty: false }
    }

    /// The run.
    pub(super) fn uuid(&self) -> &str {
        &self.whole.uuid
    }

    /// The group to ask, where one can be asked.
    pub(super) fn group(&self) -> Option<&Arc<RunGroup>> {
        self.whole.group.as_ref().filter(|_| self.whole.except.is_none())
    }

    /// Whether the tree is in its group, as far as is known.
    pub(super) fn group_is_all(&self) -> bool {
        self.group().is_some() && self.beyond != Beyond::Some
    }

    /// Looks, beginning now. `known` were found before and may not be reaped yet.
    ///
    /// # Errors
    /// Neither the group nor `/proc` can be read.
    pub(super) async fn find(&mut self, known: Vec<Identity>) -> io::Result<Found> {
        let found = match self.group().cloned() {
            Some(group) => match self.find_in_group(group, known).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::debug!(uuid = self.whole.uuid, %error, "cannot read the control group of a run, looking without it");
                    self.find_in_forest().await?
                }
            },
            None => self.find_in_forest().await?,
        };
        self.first.get_or_insert_with(|| found.living.clone());
        Ok(found)
    }

    /// By the table of all processes.
    async fn find_in_forest(&self) -> io::Result<Found> {
        let look = self.forest.look().await?;
        let (dead, mut living): (Vec<_>, Vec<_>) = look.members(&self.whole.uuid).into_iter().partition(|stat| stat.is_dead());
        let unreaped = dead.iter().filter(|stat| stat.ppid == std::process::id()).map(|stat| stat.identity()).collect();
        if let Some(main) = self.whole.except {
            living = below(&living, main, self.first.as_deref());
        }
        let mut living: Vec<Identity> = living.into_iter().map(procfs::Stat::identity).collect();
        living.sort_unstable();
        Ok(Found { living, unreaped, hidden: false, certain: false })
    }

    /// By its group, and what is beyond that.
    async fn find_in_group(&mut self, group: Arc<RunGroup>, known: Vec<Identity>) -> io::Result<Found> {
        if self.empty {
            let unreaped = known.into_iter().filter(|identity| is_unreaped(*identity)).collect();
            return Ok(Found { living: Vec::new(), unreaped, hidden: false, certain: true });
        }
        let pids = group.members()?;
        let few = pids.len() + known.len() < FEW;
        // The group is asked last: who is listed no more may be on its last steps, and counts until the kernel says otherwise.
        let populated = !pids.is_empty() || group.is_populated()?;
        let work = move || -> io::Result<(Vec<Identity>, Vec<Identity>)> {
            let living = identities(pids)?;
            // Those that were known and are listed no more may wait to be reaped.
            let unreaped = known.into_iter().filter(|identity| living.binary_search(identity).is_err() && is_unreaped(*identity)).collect();
            Ok((living, unreaped))
        };
        let (mut living, mut unreaped) =
            if few { work()? } else { tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?? };
        let hidden = populated && living.is_empty();
        if self.beyond == Beyond::LastSeen {
            let last = self.forest.last();
            let seen =
                last.iter().flat_map(|last| last.members(&self.whole.uuid)).filter(|stat| !stat.is_dead()).map(procfs::Stat::identity);
            let beyond: Vec<Identity> = seen.filter(|identity| !living.contains(identity) && lives(*identity)).collect();
            self.beyond = if beyond.is_empty() { Beyond::None } else { Beyond::Some };
            living.extend(beyond);
        }
        if self.beyond == Beyond::Some || self.beyond == Beyond::Unknown && living.is_empty() && !hidden {
            let beyond = self.find_in_forest().await?;
            self.beyond = match (beyond.living.is_empty(), self.beyond) {
                (false, _) => Beyond::Some,
                // It may just have moved on: a second look in a row must show nothing, too.
                (true, Beyond::Some) => Beyond::Unknown,
                (true, Beyond::Unknown | Beyond::LastSeen | Beyond::None) => Beyond::None,
            };
            living.extend(beyond.living);
            unreaped.extend(beyond.unreaped);
        }
        living.sort_unstable();
        living.dedup();
        let certain = self.beyond == Beyond::None;
        self.empty = certain && living.is_empty() && !hidden;
        Ok(Found { living, unreaped, hidden, certain })
    }
}

/// Those of these processes that are still there, in the order of their PIDs.
fn identities(pids: Vec<u32>) -> io::Result<Vec<Identity>> {
    let mut found = Vec::with_capacity(pids.len());
    for pid in pids {
        match procfs::read_stat(pid) {
            // One whose first thread has ended is listed for the others.
            Ok(stat) => found.push(stat.identity()),
            Err(error) if procfs::is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_unreaped(identity: Identity) -> bool {
    procfs::read_stat(identity.pid).is_ok_and(|stat| stat.identity() == identity && stat.is_dead() && stat.ppid == std::process::id())
}

fn lives(identity: Identity) -> bool {
    procfs::read_stat(identity.pid).is_ok_and(|stat| stat.identity() == identity && !stat.is_dead())
}

/// Who of a tree is below its main, without what the main started after the first look: that is not meant.
fn below<'a>(living: &[&'a procfs::Stat], main: Identity, first: Option<&[Identity]>) -> Vec<&'a procfs::Stat> {
    let mut later: BTreeSet<u32> = BTreeSet::new();
    if let Some(first) = first {
        later.extend(living.iter().filter(|stat| stat.ppid == main.pid && !first.contains(&stat.identity())).map(|stat| stat.pid));
        loop {
            let before = later.len();
            let next: Vec<u32> = living.iter().filter(|stat| later.contains(&stat.ppid)).map(|stat| stat.pid).collect();
            later.extend(next);
            if later.len() == before {
                break;
            }
        }
    }
    living.iter().copied().filter(|stat| stat.identity() != main && !later.contains(&stat.pid)).collect()
}
