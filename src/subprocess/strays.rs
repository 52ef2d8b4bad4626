//! Processes of earlier daemons that were left alone: they are nobody's, and they live. Their sub-process is not started a second time beside them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::procfs::{self, Identity};
use crate::protocol::Name;

/// All of them, as far as they are known.
#[derive(Debug, Default)]
pub struct Strays(Mutex<BTreeMap<Name, Vec<Identity>>>);

impl Strays {
    /// Takes note of a process of this sub-process.
    pub fn know(&self, name: Name, process: Identity) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().push(process);
    }

    /// The PID of one that lives; the others are forgotten.
    pub(super) fn of(&self, name: &Name) -> Option<u32> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let processes = known.get_mut(name)?;
        processes.retain(|process| procfs::read_stat(process.pid).is_ok_and(|stat| stat.identity() == *process && !stat.is_dead()));
        let first = processes.first().map(|process| process.pid);
        if first.is_none() {
            known.remove(name);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_known_for_as_long_as_it_lives() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = procfs::read_stat(child.id()).unwrap().identity();
        let (strays, name): (_, Name) = (Strays::default(), "web".parse().unwrap());
        strays.know(name.clone(), Identity { start_time: identity.start_time + 1, ..identity });
        assert_eq!(strays.of(&name), None, "another process had this PID");
        strays.know(name.clone(), identity);
        assert_eq!((strays.of(&name), strays.of(&"other".parse().unwrap())), (Some(child.id()), None));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(strays.of(&name), None);
    }
}
