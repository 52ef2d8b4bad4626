//! What waits to be said to a service manager that may not listen for a while: bounded, as what is said later makes earlier words needless.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

/// As much news waits; of more, the oldest is dropped: where things stand, the newest says.
const MOST_NEWS: usize = 16;
/// As many descriptors wait. A store holds fewer (`FileDescriptorStoreMax=` of the unit).
const MOST_KEPT: usize = 4096;

/// Something about the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Ready { status: String },
    Reloading,
    Stopping,
    StillStopping { status: String, for_another: Duration },
    Alive,
}

/// What is to be said next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Words<F> {
    News(News),
    Keep(String, F),
    GiveUp(String),
}

/// All that waits, and what the service manager has; `F` is a descriptor.
#[derive(Debug)]
pub(super) struct Outbox<F> {
    news: VecDeque<News>,
    /// Names about which there is something to say; some may have become needless.
    names: VecDeque<String>,
    wanted: HashMap<String, Wanted<F>>,
    /// What it was given and has not been told to give up.
    given: HashSet<String>,
}

#[derive(Debug)]
struct Wanted<F> {
    /// What it has under the name is to be given up first.
    give_up: bool,
    keep: Option<F>,
}

impl<F> Outbox<F> {
    /// With what it has from the beginning.
    pub(super) fn new(given: HashSet<String>) -> Self {
        Self { news: VecDeque::new(), names: VecDeque::new(), wanted: HashMap::new(), given }
    }

    pub(super) fn tell(&mut self, news: News) {
        let replaces = |waiting: &News| match news {
            News::Alive => *waiting == News::Alive,
            News::StillStopping { .. } => matches!(waiting, News::StillStopping { .. }),
            News::Ready { .. } | News::Reloading | News::Stopping => false,
        };
        self.news.retain(|waiting| !replaces(waiting));
        if self.news.len() >= MOST_NEWS {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    /// Whether it has something under this name, or will.
    pub(super) fn has(&self, name: &str) -> bool {
        match self.wanted.get(name) {
            Some(wanted) => wanted.keep.is_some() || !wanted.give_up,
            None => self.given.contains(name),
        }
    }

    /// Has a descriptor kept; `false` where too many wait already.
    pub(super) fn keep(&mut self, name: &str, fd: F) -> bool {
        let is_full = self.wanted.len() >= MOST_KEPT;
        match self.wanted.get_mut(name) {
            Some(wanted) => wanted.keep = Some(fd),
            None if is_full => return false,
            None => self.want(name, Wanted { give_up: false, keep: Some(fd) }),
        }
        true
    }

    /// Has what is kept under this name given up; what it was not yet given, it never gets.
    pub(super) fn give_up(&mut self, name: &str) {
        let give_up = self.given.contains(name);
        match self.wanted.get_mut(name) {
            Some(_) if !give_up => drop(self.wanted.remove(name)),
            Some(wanted) => *wanted = Wanted { give_up, keep: None },
            None if give_up => self.want(name, Wanted { give_up, keep: None }),
            None => {}
        }
    }

    fn want(&mut self, name: &str, wanted: Wanted<F>) {
        self.wanted.insert(name.to_owned(), wanted);
        self.names.push_back(name.to_owned());
        if self.names.len() > 2 * (self.wanted.len() + MOST_NEWS) {
            // Most of them have become needless.
            let mut seen = HashSet::new();
            let wanted = &self.wanted;
            self.names.retain(|name| wanted.contains_key(name) && seen.insert(name.clone()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.news.is_empty() && self.wanted.is_empty()
    }

    /// Takes what is to be said next out.
    pub(super) fn next(&mut self) -> Option<Words<F>> {
        if let Some(news) = self.news.pop_front() {
            return Some(Words::News(news));
        }
        while let Some(name) = self.names.pop_front() {
            let Some(mut wanted) = self.wanted.remove(&name) else { continue };
            if wanted.give_up {
                self.given.remove(&name);
                if wanted.keep.is_some() {
                    wanted.give_up = false;
                    self.wanted.insert(name.clone(), wanted);
                    self.names.push_front(name.clone());
                }
                return Some(Words::GiveUp(name));
            }
            if let Some(fd) = wanted.keep {
                self.given.insert(name.clone());
                return Some(Words::Keep(name, fd));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<F>(outbox: &mut Outbox<F>) -> Vec<Words<F>> {
        let all = std::iter::from_fn(|| outbox.next()).collect();
        assert!(outbox.is_empty());
        all
    }

    fn keep(name: &str, fd: u32) -> Words<u32> {
        Words::Keep(name.to_owned(), fd)
    }

    fn give_up(name: &str) -> Words<u32> {
        Words::GiveUp(name.to_owned())
    }

    #[test]
    fn all_is_said_in_its_order() {
        let mut outbox = Outbox::new(HashSet::new());
        outbox.keep("a", 1);
        outbox.keep("b", 2);
        outbox.tell(News::Reloading);
        outbox.tell(News::Ready { status: "well".into() });
        assert!(outbox.has("a") && !outbox.has("c"));
        let news = [News::Reloading, News::Ready { status: "well".into() }].map(Words::News);
        assert_eq!(all(&mut outbox), news.into_iter().chain([keep("a", 1), keep("b", 2)]).collect::<Vec<_>>());
        outbox.give_up("a");
        assert!(!outbox.has("a") && outbox.has("b"));
        assert_eq!(all(&mut outbox), [give_up("a")]);
        outbox.give_up("a");
        assert_eq!(all(&mut outbox), []);
    }

    #[test]
    fn another_one_under_the_same_name_comes_after_the_former_is_given_up() {
        let mut outbox = Outbox::new(["a".to_owned()].into());
        outbox.give_up("a");
        outbox.keep("a", 1);
        outbox.give_up("a");
        outbox.keep("a", 2);
        assert!(outbox.has("a"));
        assert_eq!(all(&mut outbox), [give_up("a"), keep("a", 2)]);
        // What was not said yet is never said.
        outbox.keep("b", 3);
        outbox.give_up("b");
        assert!(!outbox.has("b"));
        outbox.keep("b", 4);
        assert_eq!(all(&mut outbox), [keep("b", 4)]);
    }

    #[test]
    fn it_stays_small_while_nobody_listens() {
        let mut outbox = Outbox::new(HashSet::new());
        outbox.keep("lives", 0);
        for run in 0..100_000 {
            let name = format!("run{run}");
            assert!(outbox.keep(&name, run));
            outbox.tell(News::Alive);
            outbox.tell(News::StillStopping { status: name.clone(), for_another: Duration::ZERO });
            outbox.tell(if run % 2 == 0 { News::Reloading } else { News::Ready { status: name.clone() } });
            outbox.give_up(&name);
        }
        assert!(outbox.news.len() <= MOST_NEWS && outbox.names.len() < 100 && outbox.wanted.len() == 1);
        let said = all(&mut outbox);
        let mut news = said.iter().filter_map(|words| if let Words::News(news) = words { Some(news) } else { None });
        assert_eq!(news.next_back(), Some(&News::Ready { status: "run99999".into() }), "the newest");
        assert_eq!(said.last(), Some(&keep("lives", 0)));
        let kept = (0..MOST_KEPT as u32 + 10).filter(|run| outbox.keep(&format!("run{run}"), *run)).count();
        assert_eq!(kept, MOST_KEPT);
    }
}
