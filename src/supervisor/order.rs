//! Who is started after whom, and ended before whom. Pure: names in, plans out.
//!
//! The order is a graph over names. A name that somebody says in `after` or `requires` is that of a sub-process, or where there is none, it stands for
//! all `NAME@1`, `NAME@2` … ([`Order::stands_for`]): such a name is a vertex of its own here, so that a thousand that require a thousand are two
//! thousand edges and not a million.
//!
//! - [`Order`]: the graph; what is unknown in it, its cycles, what a start pulls in, whom an end takes along;
//! - [`Cycle`]: a path that leads back to its beginning, as people read it;
//! - [`Plan`]: the partial order of starting or ending some of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Bound;

use crate::protocol::Name;

/// How one depends on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// It is started after it, where both are.
    After,
    /// It needs it.
    Requires,
}

impl Link {
    /// The key of a definition that says so.
    pub const fn key(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Requires => "requires",
        }
    }
}

/// The graph. It may hold names that nobody bears, and cycles, until it is asked for them.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// What each says, each name once: whoever requires somebody is after it too.
    says: BTreeMap<Name, BTreeMap<Name, Link>>,
    /// The same from the other end: who says a name.
    said_by: HashMap<Name, BTreeMap<Name, Link>>,
}

/// One step of a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who depends.
    pub from: Name,
    /// How.
    pub link: Link,
    /// The name that it says: `to`, or what `to` is an instance of.
    pub said: Name,
    /// On whom.
    pub to: Name,
}

/// A path that leads back to its beginning. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<Step>);

/// Of a longer cycle so many steps at its beginning, and as many at its end, are shown.
const SHOWN_STEPS: usize = 8;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, link, said, to } = self;
        let how = match link {
            Link::After => "is after",
            Link::Requires => "requires",
        };
        if said == to { write!(f, "{from} {how} {to}") } else { write!(f, "{from} {how} {said}, which {to} is one of") }
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.0.len().saturating_sub(2 * SHOWN_STEPS);
        for (index, step) in self.0.iter().enumerate() {
            if hidden > 0 && index == SHOWN_STEPS {
                write!(f, ", … {hidden} more …")?;
            }
            if hidden == 0 || !(SHOWN_STEPS..SHOWN_STEPS + hidden).contains(&index) {
                write!(f, "{}{step}", if index == 0 { "" } else { ", " })?;
            }
        }
        Ok(())
    }
}

/// What an instance is one of: `web` of `web@2`; `None` for a name that no instance has.
pub fn base_of(name: &Name) -> Option<&str> {
    let (base, number) = name.as_str().rsplit_once('@')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty() && !number.starts_with('0');
    (is_number && !base.is_empty()).then_some(base)
}

/// How far the search for cycles has come with a vertex.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// It is on the path.
    Open,
    /// No further cycle can be found through it.
    Closed,
}

impl Order {
    /// Notes what one says; what it said before is forgotten.
    pub fn insert(&mut self, name: &Name, after: &[Name], requires: &[Name]) {
        self.remove(name);
        let links = after.iter().map(|said| (said, Link::After)).chain(requires.iter().map(|said| (said, Link::Requires)));
        let says: BTreeMap<Name, Link> = links.map(|(said, link)| (said.clone(), link)).collect();
        for (said, link) in &says {
            self.said_by.entry(said.clone()).or_default().insert(name.clone(), *link);
        }
        self.says.insert(name.clone(), says);
    }

    /// Forgets one. What others say of it stays.
    pub fn remove(&mut self, name: &Name) {
        for said in self.says.remove(name).unwrap_or_default().into_keys() {
            if let Some(by) = self.said_by.get_mut(&said) {
                by.remove(name);
                if by.is_empty() {
                    self.said_by.remove(&said);
                }
            }
        }
    }

    /// Whether it is in it.
    pub fn contains(&self, name: &Name) -> bool {
        self.says.contains_key(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.says.keys()
    }

    /// The one that bears a name, or where nobody does, its instances; none when it is unknown.
    pub fn stands_for(&self, said: &str) -> Vec<&Name> {
        if let Some((name, _)) = self.says.get_key_value(said) {
            return vec![name];
        }
        self.instances(said).collect()
    }

    /// All whose names are those of instances of this one.
    fn instances<'a>(&'a self, base: &str) -> impl Iterator<Item = &'a Name> {
        // A digit follows: `:` is the character behind `9`.
        let (first, behind) = (format!("{base}@0"), format!("{base}@:"));
        let range = self.says.range::<str, _>((Bound::Included(first.as_str()), Bound::Excluded(behind.as_str())));
        range.map(|(name, _)| name).filter(move |name| base_of(name) == Some(base))
    }

    /// The one that bears a name, and its instances: all that a definition of this name may stand for.
    pub fn family<'a>(&'a self, name: &Name) -> impl Iterator<Item = &'a Name> {
        self.says.get_key_value(name).map(|(name, _)| name).into_iter().chain(self.instances(name.as_str()))
    }

    /// The names that one says and nobody bears.
    pub fn unknown(&self, name: &Name) -> Vec<(Link, Name)> {
        let says = self.says.get(name).into_iter().flatten();
        says.filter(|(said, _)| self.stands_for(said.as_str()).is_empty()).map(|(said, link)| (*link, said.clone())).collect()
    }

    /// Those who say a name themselves, or the name that it is an instance of: of one that is none any more nobody says that.
    fn followers<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = (&'a str, &'a BTreeMap<Name, Link>)> {
        let by_base = base_of(name).filter(|base| self.says.contains_key(name) && !self.says.contains_key(*base));
        [Some(name.as_str()), by_base].into_iter().flatten().filter_map(|said| self.said_by.get(said).map(|by| (said, by)))
    }

    /// Who requires it, not counting who requires those.
    pub fn required_by(&self, name: &Name) -> BTreeSet<Name> {
        let all = self.followers(name).flat_map(|(_, by)| by);
        all.filter(|(by, link)| **link == Link::Requires && *by != name).map(|(by, _)| by.clone()).collect()
    }

    /// One of these, all of which are to go, and who would be without all that a name they require stands for; none where nobody would.
    pub fn bereft(&self, going: &BTreeSet<Name>) -> Option<(Name, BTreeSet<Name>)> {
        going.iter().find_map(|name| {
            let lost = self.followers(name).filter(|(said, _)| self.stands_for(said).into_iter().all(|name| going.contains(name)));
            let requiring = lost.flat_map(|(_, by)| by).filter(|(by, link)| **link == Link::Requires && !going.contains(*by));
            let by: BTreeSet<Name> = requiring.map(|(by, _)| by.clone()).collect();
            (!by.is_empty()).then(|| (name.clone(), by))
        })
    }

    /// Everybody who cannot be without one of these, except themselves.
    pub fn dependents<'a>(&self, of: impl IntoIterator<Item = &'a Name>) -> BTreeSet<Name> {
        let mut open: Vec<Name> = of.into_iter().cloned().collect();
        let given: BTreeSet<Name> = open.iter().cloned().collect();
        let mut seen = HashSet::new();
        let mut found = BTreeSet::new();
        while let Some(name) = open.pop() {
            for (said, by) in self.followers(&name) {
                if seen.insert(said.to_owned()) {
                    let requiring = by.iter().filter(|(by, link)| **link == Link::Requires && !given.contains(*by));
                    open.extend(requiring.map(|(by, _)| by.clone()).filter(|by| found.insert(by.clone())));
                }
            }
        }
        found
    }

    /// What has to be started for these, besides them: all that they require, as far as `needed` says so of it, and all that those require.
    pub fn pulled_in<'a>(&self, of: impl IntoIterator<Item = &'a Name>, mut needed: impl FnMut(&Name) -> bool) -> BTreeSet<Name> {
        let mut open: Vec<&Name> = of.into_iter().collect();
        let given: BTreeSet<&Name> = open.iter().copied().collect();
        let mut seen: HashSet<&Name> = HashSet::new();
        let mut found = BTreeSet::new();
        while let Some(name) = open.pop() {
            let says = self.says.get(name).into_iter().flatten();
            for (said, _) in says.filter(|(_, link)| **link == Link::Requires) {
                if seen.insert(said) {
                    for required in self.stands_for(said.as_str()) {
                        if !given.contains(required) && !found.contains(required) && needed(required) {
                            found.insert(required.clone());
                            open.push(required);
                        }
                    }
                }
            }
        }
        found
    }

    /// Where the arrows from a vertex lead: to the names that one says, and from a name that nobody bears to its instances.
    fn arrows<'a>(&'a self, vertex: &'a Name) -> Vec<(&'a Name, Option<Link>)> {
        match self.says.get(vertex) {
            Some(says) => says.iter().map(|(said, link)| (said, Some(*link))).collect(),
            None => self.stands_for(vertex.as_str()).into_iter().map(|name| (name, None)).collect(),
        }
    }

    /// A cycle that can be reached from some of these, if there is any.
    pub fn cycle_among<'a>(&'a self, names: impl IntoIterator<Item = &'a Name>) -> Option<Cycle> {
        self.search(names.into_iter().filter(|name| self.says.contains_key(*name)), 1).pop()
    }

    /// Up to `most` cycles, none when and only when there is none.
    pub fn cycles(&self, most: usize) -> Vec<Cycle> {
        self.search(self.says.keys(), most)
    }

    /// Looks for arrows back to the path, depth first.
    fn search<'a>(&'a self, roots: impl IntoIterator<Item = &'a Name>, most: usize) -> Vec<Cycle> {
        let mut marks: HashMap<&Name, Mark> = HashMap::new();
        let mut cycles = Vec::new();
        for root in roots {
            if marks.contains_key(root) {
                continue;
            }
            marks.insert(root, Mark::Open);
            // The path: each vertex with the link that led to it, and the arrows that are still to be followed.
            let mut path = vec![(root, None, self.arrows(root))];
            while let Some((vertex, _, arrows)) = path.last_mut() {
                let vertex = *vertex;
                let Some((to, link)) = arrows.pop() else {
                    marks.insert(vertex, Mark::Closed);
                    path.pop();
                    continue;
                };
                match marks.get(to) {
                    Some(Mark::Closed) => {}
                    None => {
                        marks.insert(to, Mark::Open);
                        path.push((to, link, self.arrows(to)));
                    }
                    Some(Mark::Open) => {
                        let begin = path.iter().position(|(on_path, _, _)| *on_path == to).unwrap_or_default();
                        let steps = path.iter().skip(begin + 1).map(|(to, link, _)| (*to, *link)).chain([(to, link)]);
                        cycles.push(self.cycle(to, steps));
                        if cycles.len() >= most {
                            return cycles;
                        }
                    }
                }
            }
        }
        cycles
    }

    /// The steps of a walk that begins and ends at the same vertex, without the vertices that are no sub-process.
    fn cycle<'a>(&self, begin: &'a Name, walk: impl Iterator<Item = (&'a Name, Option<Link>)>) -> Cycle {
        let mut walk: Vec<_> = walk.collect();
        let mut from = begin;
        if !self.says.contains_key(begin) {
            // It begins at a name that stands for instances: begin at the instance instead.
            walk.rotate_left(1);
            from = walk.last().map_or(begin, |(instance, _)| *instance);
        }
        let mut steps = Vec::new();
        let mut said = None;
        for (to, link) in walk {
            said = link.map(|link| (to, link)).or(said);
            if let (true, Some((said, link))) = (self.says.contains_key(to), said) {
                steps.push(Step { from: from.clone(), link, said: said.clone(), to: to.clone() });
                from = to;
            }
        }
        Cycle(steps)
    }
}

/// A partial order that is being carried out: [`Plan::free`] gives out who may begin, [`Plan::done`] takes note. Whoever depends on another by way of
/// one that is not among them depends on it all the same.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `None` for a name that stands for instances, and for who is not among those, but between them.
    vertices: Vec<Option<Name>>,
    index: HashMap<Name, usize>,
    /// For how many each still waits.
    waits_for: Vec<usize>,
    /// Who waits for each.
    awaited_by: Vec<Vec<usize>>,
    ready: Vec<usize>,
    /// Given out, and not done.
    begun: usize,
    /// Not given out.
    left: usize,
}

impl Plan {
    /// To start these: each once all that it is after has been done.
    pub fn start(order: &Order, names: &BTreeSet<Name>) -> Self {
        Self::new(order, names, false)
    }

    /// To end these: exactly the reverse.
    pub fn stop(order: &Order, names: &BTreeSet<Name>) -> Self {
        Self::new(order, names, true)
    }

    fn new(order: &Order, names: &BTreeSet<Name>, reverse: bool) -> Self {
        let mut plan = Self {
            vertices: names.iter().cloned().map(Some).collect(),
            index: names.iter().cloned().zip(0..).collect(),
            waits_for: vec![0; names.len()],
            awaited_by: vec![Vec::new(); names.len()],
            ready: Vec::new(),
            begun: 0,
            left: names.len(),
        };
        let mut vertices: HashMap<&Name, usize> = names.iter().zip(0..).collect();
        let mut open: Vec<&Name> = names.iter().filter(|name| order.says.contains_key(*name)).collect();
        while let Some(name) = open.pop() {
            for (first, _) in order.arrows(name) {
                let at = *vertices.entry(first).or_insert_with(|| {
                    open.push(first);
                    plan.vertices.push(None);
                    plan.waits_for.push(0);
                    plan.awaited_by.push(Vec::new());
                    plan.vertices.len() - 1
                });
                if let Some(then) = vertices.get(name) {
                    plan.arrow(at, *then, reverse);
                }
            }
        }
        let free: Vec<usize> = (0..plan.vertices.len()).filter(|at| plan.waits_for.get(*at) == Some(&0)).collect();
        plan.release(free);
        plan
    }

    fn arrow(&mut self, first: usize, then: usize, reverse: bool) {
        let (first, then) = if reverse { (then, first) } else { (first, then) };
        if let (Some(awaited_by), Some(waits_for)) = (self.awaited_by.get_mut(first), self.waits_for.get_mut(then)) {
            awaited_by.push(then);
            *waits_for += 1;
        }
    }

    /// These wait for nobody any more. Who is not among them is done at once.
    fn release(&mut self, mut free: Vec<usize>) {
        while let Some(at) = free.pop() {
            match self.vertices.get(at) {
                Some(Some(_)) => self.ready.push(at),
                Some(None) | None => free.extend(self.freed_by(at)),
            }
        }
    }

    /// One is done; returns who waits for nobody any more.
    fn freed_by(&mut self, at: usize) -> Vec<usize> {
        let waiting = self.awaited_by.get_mut(at).map(std::mem::take).unwrap_or_default();
        let is_free = |at: &usize| {
            self.waits_for.get_mut(*at).is_some_and(|waits_for| {
                *waits_for = waits_for.saturating_sub(1);
                *waits_for == 0
            })
        };
        waiting.into_iter().filter(is_free).collect()
    }

    /// Who may begin now, each given out once. Empty while all that are left wait for somebody, and at the end.
    pub fn free(&mut self) -> Vec<Name> {
        if self.ready.is_empty() && self.begun == 0 && self.left > 0 {
            // A cycle, which nobody lets in. Were there one, the order is given up rather than the work.
            self.ready = (0..self.vertices.len()).filter(|at| self.waits_for.get(*at).is_some_and(|waits_for| *waits_for > 0)).collect();
            self.waits_for.fill(0);
            self.awaited_by.iter_mut().for_each(Vec::clear);
        }
        let names: Vec<Name> = std::mem::take(&mut self.ready).into_iter().filter_map(|at| self.vertices.get(at)?.clone()).collect();
        self.begun += names.len();
        self.left = self.left.saturating_sub(names.len());
        names
    }

    /// One that was given out is done: whoever waited for it alone may begin.
    pub fn done(&mut self, name: &Name) {
        let Some(at) = self.index.get(name).copied() else { return };
        self.begun = self.begun.saturating_sub(1);
        let freed = self.freed_by(at);
        self.release(freed);
    }
}

#[cfg(test)]
mod tests;
