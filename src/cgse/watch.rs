//! One question to the registry for all services that are followed, again and again for as long as there are any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use crate::protocol::RegistryHealth;

use super::course::{Course, Look};
use super::registry::Registry;
use super::words::Entry;

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(2);
/// The same while one that has just been started is not listed as passing.
const SOON: Duration = Duration::from_millis(250);
/// For how long one has just been started.
const YOUNG: Duration = Duration::from_secs(60);
/// How long an answer may take: nobody waits for it, and one that does not come starts each service's time anew.
const PATIENCE: Duration = Duration::from_secs(2);
/// A start follows at once on the look at what is listed before it; what is older is left of one that failed.
const BEFORE: Duration = Duration::from_secs(60);

/// What is seen of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the registry tells.
    pub look: Look,
    /// Since when its id and health have been these.
    pub since: SystemTime,
}

/// Follows services. Nothing is asked before [`Watch::run`] runs.
#[derive(Debug)]
pub struct Watch {
    registry: Arc<Registry>,
    followed: Mutex<Followed>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct Followed {
    services: Vec<Service>,
    /// What was listed before a start, by the name of what was started.
    before: HashMap<String, (Instant, Option<Vec<Entry>>)>,
}

#[derive(Debug)]
struct Service {
    since: Instant,
    course: Course,
    seen: watch::Sender<Option<Seen>>,
}

impl Watch {
    /// Of what this registry lists.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, followed: Mutex::default(), begun: Notify::new() }
    }

    /// This is about to be started, and these entries of its type are there already; `None` where nobody could ask.
    pub fn starts(&self, name: &str, listed: Option<Vec<Entry>>) {
        let now = Instant::now();
        let mut followed = self.lock();
        followed.before.retain(|_, (since, _)| now.saturating_duration_since(*since) < BEFORE);
        followed.before.insert(name.to_owned(), (now, listed));
    }

    /// Follows a service of this type, until nobody listens any more. `was_passing` where somebody has seen it listed so in this run.
    pub fn follow(&self, name: &str, service_type: &str, was_passing: bool) -> watch::Receiver<Option<Seen>> {
        let (seen, receiver) = watch::channel(None);
        let mut followed = self.lock();
        let before = followed.before.remove(name).and_then(|(_, before)| before);
        followed.services.push(Service { since: Instant::now(), course: Course::new(service_type, before, was_passing), seen });
        drop(followed);
        self.begun.notify_one();
        receiver
    }

    /// Asks for ever.
    pub async fn run(self: Arc<Self>) -> std::convert::Infallible {
        let mut exchange = self.registry.exchange();
        loop {
            if !self.is_needed() {
                // Nobody is connected to for nothing.
                exchange = self.registry.exchange();
                self.begun.notified().await;
                continue;
            }
            let asked = Instant::now();
            let listed = self.registry.list(&mut exchange, None, PATIENCE).await;
            let pause = self.tell(listed.as_deref().map_err(String::as_str), asked);
            tokio::time::sleep(SOON).await;
            drop(tokio::time::timeout(pause.saturating_sub(SOON), self.begun.notified()).await);
        }
    }

    fn is_needed(&self) -> bool {
        let mut followed = self.lock();
        followed.services.retain(|service| !service.seen.is_closed());
        !followed.services.is_empty()
    }

    /// Tells each what concerns it; how long to wait before the next question.
    fn tell(&self, listed: Result<&[Entry], &str>, asked: Instant) -> Duration {
        let mut pause = INTERVAL;
        for service in &mut self.lock().services {
            let look = service.course.see(listed, asked);
            if look.health != RegistryHealth::Passing && !service.course.was_passing() && service.since.elapsed() < YOUNG {
                pause = SOON;
            }
            service.seen.send_if_modified(|seen| {
                let kept = seen.as_ref().filter(|seen| (&seen.look.id, seen.look.health) == (&look.id, look.health));
                let next = Seen { since: kept.map_or_else(SystemTime::now, |seen| seen.since), look };
                let is_news = seen.as_ref() != Some(&next);
                *seen = Some(next);
                is_news
            });
        }
        pause
    }

    /// A panic under it cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
