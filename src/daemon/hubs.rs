//! What the hubs of CGSE are told: each event, and every so often the status of all. A hub has a task of its own; nothing else waits for it, and what
//! waits for a hub that is away is bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::cgse::{Hub, Reach, hub, notification};
use crate::config::Cgse;
use crate::subprocess::published::unix_seconds;
use crate::telemetry::{Event, Feed, Source, Telemetry};

use super::points::points;

pub(super) use super::points::Tags;

/// How many events wait for a notify hub that is away, or does not read: the last ones, which are in the sequence of events anyway.
const WAITING: u64 = 1024;
/// Messages in a row, before others of the thread have their turn.
const BATCH: u64 = 64;
/// Between two tries to get a socket.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why a hub gets nothing; `None` while it does.
pub(super) type Problem = watch::Receiver<Option<String>>;

/// What is told to hubs, and who is told of them.
pub(super) struct Hubs {
    pub(super) telemetry: Telemetry,
    /// The events.
    pub(super) feed: Arc<Feed>,
    /// The status of all.
    pub(super) source: Source,
    pub(super) tags: Tags,
    /// The daemon leaves.
    pub(super) closing: watch::Receiver<bool>,
}

impl Hubs {
    /// Begins to tell the hubs that the configuration says. Returns what is wrong with the notify hub and with the metrics hub.
    pub(super) fn begin(self, cgse: &Cgse, tasks: &mut JoinSet<()>) -> (Option<Problem>, Option<Problem>) {
        let Self { telemetry, feed, source, tags, closing } = self;
        let notify_hub = cgse.notify_hub.as_ref().map(|endpoint| {
            let (herald, problem) = Herald::new("notify", endpoint, telemetry.clone());
            tasks.spawn(herald.serve(Events::new(feed, cgse.service_type.clone()), closing.clone()));
            problem
        });
        let metrics_hub = cgse.metrics_hub.as_ref().map(|endpoint| {
            let (herald, problem) = Herald::new("metrics", endpoint, telemetry);
            tasks.spawn(herald.serve(Points::new(source, tags, cgse.metrics_interval), closing));
            problem
        });
        (notify_hub, metrics_hub)
    }
}

/// What a hub is sent, in its order.
trait Supply: Send {
    /// The frame whose turn it is.
    fn front(&mut self) -> Option<&[u8]>;
    /// That one is sent.
    fn taken(&mut self);
    /// How many were given up since this was asked last.
    fn dropped(&mut self) -> u64;
    /// Resolves when there may be more. Dropped, it goes on where it was.
    fn more(&mut self) -> impl Future<Output = ()> + Send;
    /// The daemon leaves: what is to be sent now is the last.
    fn last(&mut self) -> impl Future<Output = ()> + Send;
    /// Gives up what is left.
    fn give_up(&mut self);
}

/// The events, each as the sequence has it.
struct Events {
    feed: Arc<Feed>,
    /// The place after the last event.
    next: watch::Receiver<u64>,
    /// The place of the event whose turn it is.
    since: u64,
    frame: Option<Vec<u8>>,
    service_type: String,
    dropped: u64,
}

impl Events {
    fn new(feed: Arc<Feed>, service_type: String) -> Self {
        Self { next: feed.watch(), feed, since: 1, frame: None, service_type, dropped: 0 }
    }

    /// Goes on at this place, or where it is where that is later.
    fn skip_to(&mut self, place: u64) {
        if place > self.since {
            self.dropped += place - self.since;
            (self.since, self.frame) = (place, None);
        }
    }
}

impl Supply for Events {
    fn front(&mut self) -> Option<&[u8]> {
        let next = *self.next.borrow_and_update();
        self.skip_to(next.saturating_sub(WAITING));
        if self.frame.is_none() {
            let event = self.feed.replay(self.since, None, 1).events.pop()?;
            self.skip_to(event.seq());
            self.frame = Some(notification::encode(&event, &self.service_type));
        }
        self.frame.as_deref()
    }

    fn taken(&mut self) {
        (self.since, self.frame) = (self.since + 1, None);
    }

    fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    async fn more(&mut self) {
        if self.next.changed().await.is_err() {
            std::future::pending().await
        }
    }

    async fn last(&mut self) {}

    fn give_up(&mut self) {
        let next = *self.next.borrow();
        self.skip_to(next);
    }
}

/// The status of all, as it is every so often. One that was not sent before the next is given up: a hub gets nothing that is older.
struct Points {
    make: Arc<dyn Fn(bool) -> VecDeque<Vec<u8>> + Send + Sync>,
    ticks: tokio::time::Interval,
    /// Being made.
    coming: Option<JoinHandle<VecDeque<Vec<u8>>>>,
    waiting: VecDeque<Vec<u8>>,
    dropped: u64,
}

impl Points {
    fn new(source: Source, tags: Tags, interval: Duration) -> Self {
        let make = move |is_up: bool| {
            let points = points(&source(), &tags, unix_seconds(SystemTime::now()), is_up);
            points.iter().map(crate::cgse::DataPoint::encode).collect()
        };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { make: Arc::new(make), ticks, coming: None, waiting: VecDeque::new(), dropped: 0 }
    }

    /// Takes a look. For a thousand sub-processes that takes some milliseconds, on a thread that nobody waits for.
    fn look(&self, is_up: bool) -> JoinHandle<VecDeque<Vec<u8>>> {
        let make = self.make.clone();
        tokio::task::spawn_blocking(move || make(is_up))
    }

    fn replace(&mut self, points: VecDeque<Vec<u8>>) {
        self.give_up();
        self.waiting = points;
    }
}

impl Supply for Points {
    fn front(&mut self) -> Option<&[u8]> {
        self.waiting.front().map(Vec::as_slice)
    }

    fn taken(&mut self) {
        self.waiting.pop_front();
    }

    fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    async fn more(&mut self) {
        if self.coming.is_none() {
            self.ticks.tick().await;
            self.coming = Some(self.look(true));
        }
        if let Some(coming) = &mut self.coming {
            let points = coming.await;
            self.coming = None;
            // Where it cannot be made, the next one may.
            self.replace(points.unwrap_or_default());
        }
    }

    async fn last(&mut self) {
        let points = self.look(false).await;
        self.replace(points.unwrap_or_default());
    }

    fn give_up(&mut self) {
        self.dropped += self.waiting.len() as u64;
        self.waiting.clear();
    }
}

/// Resolves when the daemon leaves.
async fn closed(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}

/// Tells one hub, and tells of it.
struct Herald {
    hub: &'static str,
    endpoint: String,
    telemetry: Telemetry,
    problem: watch::Sender<Option<String>>,
    /// It was last told that the hub is there.
    is_reached: bool,
    /// Given up since it was last told that the hub is there.
    missed: u64,
}

impl Herald {
    fn new(hub: &'static str, endpoint: &str, telemetry: Telemetry) -> (Self, Problem) {
        let (problem, seen) = watch::channel(None);
        // The counters are there before there is something to count.
        telemetry.emit(Event::HubServed { hub, sent: 0, dropped: 0 });
        (Self { hub, endpoint: endpoint.to_owned(), telemetry, problem, is_reached: false, missed: 0 }, seen)
    }

    async fn serve(mut self, mut supply: impl Supply, mut closing: watch::Receiver<bool>) {
        loop {
            let hub = tokio::select! {
                hub = self.connect() => hub,
                () = closed(&mut closing) => return,
            };
            match self.attend(hub, &mut supply, &mut closing).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(hub = self.hub, %error, "the connection to a hub of CGSE is made anew"),
            }
        }
    }

    /// A socket, as soon as there may be one.
    async fn connect(&mut self) -> Hub {
        loop {
            match Hub::connect(&self.endpoint) {
                Ok(hub) => return hub,
                Err(error) => {
                    self.miss(format!("cannot connect to {}: {error}", self.endpoint));
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Sends what there is until the daemon leaves.
    async fn attend(&mut self, mut hub: Hub, supply: &mut impl Supply, closing: &mut watch::Receiver<bool>) -> std::io::Result<()> {
        let mut is_leaving = false;
        loop {
            let mut sent = 0;
            while let Some(frame) = supply.front() {
                if !hub.push(frame) {
                    break;
                }
                supply.taken();
                sent += 1;
                if sent % BATCH == 0 {
                    tokio::task::yield_now().await;
                }
            }
            if is_leaving {
                supply.give_up();
            }
            self.count(sent, supply.dropped());
            if is_leaving {
                break;
            }
            tokio::select! {
                changes = hub.changes() => changes?,
                () = supply.more() => {}
                () = closed(closing) => is_leaving = true,
            }
            if is_leaving {
                supply.last().await;
            }
            self.tell(hub.reach());
        }
        // Closing waits for messages that are on their way, for as long as they may take; what else holds it up is not waited for.
        drop(tokio::time::timeout(2 * hub::LINGER, tokio::task::spawn_blocking(move || drop(hub))).await);
        Ok(())
    }

    fn count(&mut self, sent: u64, dropped: u64) {
        if sent + dropped > 0 {
            self.missed += dropped;
            self.telemetry.emit(Event::HubServed { hub: self.hub, sent, dropped });
        }
    }

    /// Once for each time that the hub comes.
    fn tell(&mut self, reach: Reach) {
        match reach {
            Reach::Unknown => {}
            Reach::Missing(why) => self.miss(why.sentence(&self.endpoint)),
            Reach::Reached if self.is_reached => {}
            Reach::Reached => {
                self.is_reached = true;
                self.problem.send_replace(None);
                let dropped = std::mem::take(&mut self.missed);
                self.telemetry.emit(Event::HubReached { hub: self.hub, dropped });
            }
        }
    }

    /// Once for each time that the hub goes, whatever the reasons are meanwhile.
    fn miss(&mut self, problem: String) {
        if self.problem.borrow().is_none() {
            self.telemetry.emit(Event::HubMissing { hub: self.hub, problem: &problem });
        }
        self.is_reached = false;
        self.problem.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(&problem);
            *known = Some(problem);
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::EventName;
    use crate::protocol::event::{self, Noted};
    use crate::telemetry::Snapshot;
    use futures_util::FutureExt;

    fn append(feed: &Feed, count: u64) {
        (0..count).for_each(|_| feed.append(|stamp| event::Event::Noted(Noted::new(stamp, EventName::GaveUp, None, "x"))));
    }

    /// The place in the sequence of the event whose turn it is.
    fn front(events: &mut Events) -> Option<u64> {
        let frame: serde_json::Value = serde_json::from_slice(events.front()?).unwrap();
        frame["data"]["seq"].as_u64()
    }

    #[test]
    fn the_last_events_wait_and_each_of_the_others_is_counted_once() {
        let feed = Feed::new("u");
        append(&feed, 3);
        let mut events = Events::new(feed.clone(), "PROCMAN".into());
        assert_eq!((front(&mut events), front(&mut events), events.dropped()), (Some(1), Some(1), 0));
        events.taken();
        assert_eq!(front(&mut events), Some(2));
        // More than wait; then more than the sequence keeps.
        append(&feed, WAITING);
        assert_eq!((front(&mut events), events.dropped(), events.dropped()), (Some(4), 2, 0));
        append(&feed, 10_000);
        assert_eq!((front(&mut events), events.dropped()), (Some(10_004), 10_000));
        (0..WAITING - 1).for_each(|_| {
            assert!(front(&mut events).is_some());
            events.taken();
        });
        assert_eq!(front(&mut events), Some(10_000 + 3 + WAITING));
        events.give_up();
        assert_eq!((front(&mut events), events.dropped()), (None, 1));
        append(&feed, 1);
        assert_eq!(front(&mut events), Some(10_000 + 4 + WAITING));
    }

    #[tokio::test]
    async fn points_give_way_to_newer_ones() {
        let tags = Tags { origin: "PROCMAN".into(), host: "lab".into(), site_id: None };
        let mut points = Points::new(Arc::new(Snapshot::default), tags, Duration::from_millis(5));
        assert_eq!(points.front(), None);
        points.more().await;
        assert!(points.front().is_some());
        // Whoever waits may be called away at any moment, and nothing is lost by that.
        while points.more().now_or_never().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!((points.waiting.len(), points.dropped(), points.dropped()), (1, 1, 0));
        points.taken();
        assert_eq!((points.front().is_none(), points.dropped()), (true, 0));
        points.last().await;
        let last: serde_json::Value = serde_json::from_slice(points.front().unwrap()).unwrap();
        assert_eq!(last["fields"]["up"], 0);
    }
}
