//! What the lists of the registry tell of one service over time. Pure: who asks, and when, is others' business.
//!
//! The registry knows no processes. An entry is taken for that of a run if it is of its type and was not listed before the start; where nobody could ask
//! then, any of that type is.

use std::time::{Duration, Instant};

use crate::protocol::RegistryHealth;

use super::words::Entry;

/// The TTL of an entry that does not say its own: that of CGSE's services.
const TTL: Duration = Duration::from_secs(30);
/// Least and most seconds that an entry's own counts as: what comes from outside may be anything.
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=24 * 3600;
/// Two answers that lie further apart tell nothing of the time between them.
const GAP: Duration = Duration::from_secs(10);
/// The longest of what others say that is shown, in characters.
const MOST_SHOWN: usize = 100;

/// What is known of one service now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The id of its entry.
    pub id: Option<String>,
    /// How it is listed.
    pub health: RegistryHealth,
    /// What is wrong, for people: the registry cannot be asked, or another service has its type.
    pub problem: Option<String>,
    /// It has not been listed as passing for longer than its TTL: a sentence.
    pub ill: Option<String>,
}

/// Since when a service is not listed as passing, while the registry answered.
#[derive(Debug)]
struct Unwell {
    since: Instant,
    /// It has been listed all the time, as critical.
    listed: bool,
}

/// One service over time.
#[derive(Debug)]
pub struct Course {
    service_type: String,
    /// What was listed of that type before it was started; `None` where nobody knows.
    before: Option<Vec<Entry>>,
    id: Option<String>,
    /// It has been listed as passing: from then on it is to be listed.
    was_passing: bool,
    ttl: Duration,
    unwell: Option<Unwell>,
    /// When the registry was asked last, if it answered.
    answered: Option<Instant>,
}

impl Course {
    /// Of a service of this type that has just been started, or goes on. `was_passing` where somebody has seen that in this run.
    pub fn new(service_type: &str, before: Option<Vec<Entry>>, was_passing: bool) -> Self {
        let service_type = service_type.to_owned();
        Self { service_type, before, id: None, was_passing, ttl: TTL, unwell: None, answered: None }
    }

    /// Whether it has ever been listed as passing.
    pub const fn was_passing(&self) -> bool {
        self.was_passing
    }

    /// Takes all that is listed, as it was told to somebody who asked at `asked`; or why nobody was told.
    pub fn see(&mut self, listed: Result<&[Entry], &str>, asked: Instant) -> Look {
        let entries = match listed {
            Ok(entries) => entries,
            Err(problem) => {
                // Whoever is away says nothing of anybody. What came before does not count any more: entries are renewed there, and nowhere else.
                (self.unwell, self.answered) = (None, None);
                return Look { id: self.id.clone(), health: RegistryHealth::Unknown, problem: Some(problem.to_owned()), ill: None };
            }
        };
        if self.answered.is_some_and(|before| asked.saturating_duration_since(before) > GAP) {
            self.unwell = None;
        }
        self.answered = Some(asked);
        let (own, others): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().filter(|entry| entry.is_of(&self.service_type)).partition(|entry| !self.was_before(entry));
        let known = |entry: &&&Entry| Some(&entry.id) == self.id.as_ref();
        let passing = |entry: &&&Entry| entry.is_passing();
        let best = own.iter().find(|entry| known(entry) && passing(entry)).or_else(|| own.iter().find(passing));
        let best = best.or_else(|| own.iter().find(known)).or(own.first());
        let Some(entry) = best else {
            let health = RegistryHealth::Missing;
            let problem = others.iter().find(|other| other.is_passing()).map(|other| {
                let (id, host) = (shown(&other.id), shown(&other.host));
                let port = other.port().map(|port| format!(":{port}")).unwrap_or_default();
                format!("another service has the type {} in the registry of CGSE: {id} at {host}{port}", self.service_type)
            });
            // One that has not entered itself so far is at most not ready.
            if self.was_passing || self.unwell.is_some() {
                self.be_unwell(asked, false)
            } else {
                self.unwell = None
            }
            return Look { id: None, health, problem, ill: self.ill(asked, health) };
        };
        let seconds = entry.ttl.as_u64().map(|seconds| seconds.clamp(*TTL_SECONDS.start(), *TTL_SECONDS.end()));
        let (id, is_passing) = (entry.id.clone(), entry.is_passing());
        self.ttl = seconds.map_or(TTL, Duration::from_secs);
        self.id = Some(id.clone());
        let health = if is_passing { RegistryHealth::Passing } else { RegistryHealth::Critical };
        if is_passing {
            (self.was_passing, self.unwell) = (true, None);
        } else {
            self.be_unwell(asked, true);
        }
        Look { id: Some(id).map(|id| shown(&id)), health, problem: None, ill: self.ill(asked, health) }
    }

    /// Whether this very entry was listed before the start. One that has been entered again elsewhere under the same id is another.
    fn was_before(&self, entry: &Entry) -> bool {
        let same = |before: &Entry| before.id == entry.id && before.host == entry.host && before.port == entry.port;
        self.before.as_ref().is_some_and(|before| before.iter().any(same))
    }

    fn be_unwell(&mut self, now: Instant, listed: bool) {
        let unwell = self.unwell.get_or_insert(Unwell { since: now, listed });
        unwell.listed &= listed;
    }

    fn ill(&self, now: Instant, health: RegistryHealth) -> Option<String> {
        let Unwell { since, listed } = self.unwell.as_ref()?;
        let time = now.saturating_duration_since(*since);
        if time <= self.ttl {
            return None;
        }
        let (service_type, seconds) = (&self.service_type, time.as_secs_f64());
        Some(match (listed, health) {
            (true, _) => format!("{service_type} has been critical in the registry of CGSE for {seconds:.0} s"),
            (false, RegistryHealth::Missing) => {
                format!("{service_type} has been critical in the registry of CGSE, or missing there, for {seconds:.0} s")
            }
            (false, _) => format!("{service_type} has been missing from the registry of CGSE, or critical there, for {seconds:.0} s"),
        })
    }
}

/// A text of others, as it can be shown.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CRITICAL: &str = "critical";
    const PASSING: &str = "passing";

    fn entry(id: &str, health: &str) -> Entry {
        let told =
            json!({"id": id, "host": "127.0.0.1", "port": 1, "health": health, "ttl": 30, "tags": ["A_CS"], "metadata": {"type": "A_CS"}});
        serde_json::from_value(told).unwrap()
    }

    /// A run that is looked at every two seconds.
    struct Run {
        course: Course,
        now: Instant,
    }

    impl Run {
        fn new(before: Option<Vec<Entry>>, was_passing: bool) -> Self {
            Self { course: Course::new("A_CS", before, was_passing), now: Instant::now() }
        }

        fn see(&mut self, listed: &[Entry]) -> Look {
            self.now += Duration::from_secs(2);
            self.course.see(Ok(listed), self.now)
        }

        fn away(&mut self) -> Look {
            self.now += Duration::from_secs(2);
            self.course.see(Err("it does not answer"), self.now)
        }

        /// For how many seconds this can be listed before it is ill; `None` where it never is.
        fn lasts(&mut self, listed: &[Entry]) -> Option<(u64, String)> {
            let began = self.now;
            (0..100).find_map(|_| self.see(listed).ill.map(|ill| ((self.now - began).as_secs(), ill)))
        }
    }

    #[test]
    fn critical_for_longer_than_its_ttl_is_ill_and_the_entry_says_how_long_that_is() {
        let mut run = Run::new(Some(vec![]), false);
        let look = run.see(&[entry("a", PASSING), entry("b", PASSING)]);
        assert_eq!((look.id.as_deref(), look.health, look.problem, look.ill), (Some("a"), RegistryHealth::Passing, None, None));
        assert_eq!(run.see(&[entry("a", CRITICAL)]).health, RegistryHealth::Critical);
        run.see(&[entry("a", PASSING)]);
        assert_eq!(run.lasts(&[entry("a", CRITICAL)]), Some((34, "A_CS has been critical in the registry of CGSE for 32 s".to_owned())));
        for (ttl, seconds) in [(json!(5), 8), (json!(0), 4), (json!(-1), 34), (json!("x"), 34), (json!(null), 34), (json!(u64::MAX), 0)] {
            let listed = [Entry { ttl: ttl.clone(), ..entry("a", CRITICAL) }];
            let ill = Run::new(None, false).lasts(&listed);
            assert_eq!(ill.map_or(0, |ill| ill.0), seconds, "{ttl}");
        }
    }

    #[test]
    fn missing_is_ill_only_where_it_was_there() {
        assert_eq!(Run::new(Some(vec![]), false).lasts(&[]), None, "it was never listed");
        let mut run = Run::new(Some(vec![]), false);
        run.see(&[entry("a", PASSING)]);
        // The registry takes critical ones out after a while: that is one and the same illness.
        for _ in 0..10 {
            assert_eq!(run.see(&[entry("a", CRITICAL)]).ill, None);
        }
        let (seconds, why) = run.lasts(&[]).unwrap();
        assert_eq!((seconds, &*why), (14, "A_CS has been critical in the registry of CGSE, or missing there, for 32 s"));
        assert!(Run::new(None, true).lasts(&[]).is_some(), "an earlier daemon has seen it");
    }

    #[test]
    fn a_registry_that_was_away_makes_nobody_ill() {
        let mut run = Run::new(Some(vec![]), false);
        run.see(&[entry("a", PASSING)]);
        for _ in 0..10 {
            // So it goes with each answer that does not come.
            for _ in 0..15 {
                assert_eq!(run.see(&[entry("a", CRITICAL)]).ill, None);
            }
            let look = run.away();
            assert_eq!((look.id.as_deref(), look.health, look.ill), (Some("a"), RegistryHealth::Unknown, None));
        }
        // The same where nobody asked for a while.
        run.see(&[]);
        run.now += Duration::from_secs(3600);
        assert_eq!(run.see(&[]).ill, None);
        assert_eq!(run.lasts(&[]).map(|ill| ill.0), Some(32), "the time begins anew");
    }

    #[test]
    fn what_was_there_before_is_another_ones() {
        let old = entry("old", PASSING);
        let mut run = Run::new(Some(vec![old.clone()]), false);
        let look = run.see(std::slice::from_ref(&old));
        assert_eq!((look.id, look.health), (None, RegistryHealth::Missing));
        assert_eq!(look.problem.unwrap(), "another service has the type A_CS in the registry of CGSE: old at 127.0.0.1:1");
        assert_eq!(run.lasts(std::slice::from_ref(&old)), None);
        let look = run.see(&[old.clone(), entry("new", PASSING)]);
        assert_eq!((look.id.as_deref(), look.problem), (Some("new"), None));
        // Under the same id, at another port, it is the one that was started.
        let moved = Entry { port: json!(2), ..old.clone() };
        assert_eq!(Run::new(Some(vec![old.clone()]), false).see(&[moved]).id.as_deref(), Some("old"));
        // Where nobody knows, it may be its own; once that is gone, the next is.
        let mut run = Run::new(None, false);
        assert_eq!(run.see(&[old]).id.as_deref(), Some("old"));
        assert_eq!(run.see(&[entry("old", CRITICAL), entry("new", PASSING)]).id.as_deref(), Some("new"));
        let other = Entry { tags: json!(["B_CS"]), metadata: json!([]), ..entry("b", PASSING) };
        assert_eq!(run.see(&[other]).id, None, "another type");
    }
}
