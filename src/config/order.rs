//! Whom the sub-processes of all files name in `after` and `requires`: nobody unknown, and no cycle.

use std::collections::{HashMap, HashSet};

use super::diagnostic::Report;
use super::process::{Entry, Taken};
use crate::protocol::Name;
use crate::protocol::names::nearest;
use crate::supervisor::order::{Cycle, Order, base_of};

/// Of a file full of cycles so many are told: whoever resolves these has resolved most.
const MOST_CYCLES: usize = 10;

/// Tells of unknown names and of cycles. `taken` are all names, those of entries that are wrong in another way included; they are
/// not all when the files are not `complete`.
pub(super) fn check(entries: &[Entry], taken: &Taken, complete: bool, report: &mut Report) {
    let mut order = Order::default();
    let mut owners: HashMap<&Name, &Entry> = HashMap::new();
    for entry in entries {
        for spec in &entry.specs {
            order.insert(&spec.name, &spec.after, &spec.requires);
            owners.insert(&spec.name, entry);
        }
    }
    for entry in entries.iter().filter(|_| complete) {
        // What one instance says, all say.
        let Some(spec) = entry.specs.first() else { continue };
        for (link, said) in order.unknown(&spec.name) {
            // One that is wrong is told about already; once it is right, its name is known.
            if taken.contains_key(&said) || base_of(&said).is_some_and(|base| taken.contains_key(base) && order.stands_for(base).is_empty())
            {
                continue;
            }
            let hint =
                nearest(said.as_str(), taken.keys().map(Name::as_str)).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let (file, line, key) = entry.place_of(link);
            report.error(file, Some(line), Some(key), format!("there is no sub-process {:?}{hint}", said.as_str()));
        }
    }
    let mut told = HashSet::new();
    for cycle in order.cycles(MOST_CYCLES) {
        let Cycle(steps) = &cycle;
        let first = steps.first().and_then(|step| owners.get(&step.from).map(|entry| entry.place_of(step.link)));
        // Several instances say the same at the same place.
        if let Some((file, line, key)) = first
            && told.insert((file, line))
        {
            report.error(file, Some(line), Some(key), format!("this is a cycle, in which nobody could be the first: {cycle}"));
        }
    }
}
