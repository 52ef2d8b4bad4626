//! The daemon's own entry in the registry: made, renewed, made again when the registry has forgotten it, and taken out at the end. Whatever becomes of
//! the registry, nothing else waits for it.

use std::time::Duration;

use tokio::sync::watch;

use super::exchange::{Door, Exchange};
use super::registry::{is_abandoned, is_own};
use super::words::{Action, ServiceInfo};

/// Signs of life come so many times as often as the entry needs them.
const BEATS: u32 = 3;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same of a heartbeat.
const BEAT_PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries to be entered. A registry that has just started knows nobody.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where the daemon stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not asked yet.
    Unknown,
    /// It is entered.
    Registered,
    /// It is not, and why.
    Missing(String),
}

/// Keeps the entry.
#[derive(Debug)]
pub struct Member {
    info: ServiceInfo,
    /// The entry counts for so many seconds without a sign of life.
    ttl: u64,
    requests: Exchange,
    heartbeats: Exchange,
    standing: watch::Sender<Standing>,
}

impl Member {
    /// One that is to be entered at these endpoints, to count for `ttl` seconds without a sign of life. What becomes of it is told by what this returns
    /// beside it.
    pub fn new(context: &zmq::Context, registry: &str, heartbeat: &str, info: ServiceInfo, ttl: u64) -> (Self, watch::Receiver<Standing>) {
        let (standing, seen) = watch::channel(Standing::Unknown);
        let requests = Exchange::new(context.clone(), registry, Door::Requests);
        let heartbeats = Exchange::new(context.clone(), heartbeat, Door::Heartbeats);
        (Self { info, ttl, requests, heartbeats, standing }, seen)
    }

    /// Keeps the entry until `leave` resolves, and takes it out then if `leave` says so: a daemon that takes over has the same one.
    pub async fn keep(mut self, leave: impl Future<Output = bool>) {
        let mut leave = std::pin::pin!(leave);
        let take_out = tokio::select! {
            take_out = &mut leave => take_out,
            never = self.stay() => match never {},
        };
        if take_out {
            let id = self.info.id.clone();
            // A registry that is busy is asked once more; where it does not answer then, the entry ends by itself.
            for _ in 0..2 {
                if self.requests.ask(&Action::Deregister { service_id: &id }, PATIENCE).await.is_ok() {
                    break;
                }
            }
        }
    }

    async fn stay(&mut self) -> std::convert::Infallible {
        loop {
            let next = match self.enter().await {
                Ok(()) => {
                    self.tell(Standing::Registered);
                    self.beat().await
                }
                Err(why) => why,
            };
            self.tell(Standing::Missing(next));
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Enters it. An entry of an earlier daemon gives way, where that was in this one's place, and nobody else can be there now, or nobody listens any more.
    async fn enter(&mut self) -> Result<(), String> {
        let info = self.info.clone();
        let register = Action::Register { service_info: &info, ttl: self.ttl };
        let answer = self.requests.ask(&register, PATIENCE).await?;
        if answer.success {
            return Ok(());
        }
        let Some(id) = &answer.existing_service_id else { return Err(format!("the registry refuses this daemon: {}", answer.refusal())) };
        let found = self.requests.ask(&Action::Get { service_id: id }, PATIENCE).await?;
        let gives_way = match &found.service {
            Some(entry) => entry.is_in_place_of(&info) || is_abandoned(entry, is_own).await,
            None => false,
        };
        if !gives_way {
            return Err(format!("the registry refuses this daemon: {}", answer.refusal()));
        }
        self.requests.ask(&Action::Deregister { service_id: id }, PATIENCE).await?;
        let again = self.requests.ask(&register, PATIENCE).await?;
        if again.success { Ok(()) } else { Err(format!("the registry refuses this daemon: {}", again.refusal())) }
    }

    /// Says that it lives until that is not taken any more; answers why.
    async fn beat(&mut self) -> String {
        let id = self.info.id.clone();
        let pause = Duration::from_secs(self.ttl) / BEATS;
        loop {
            tokio::time::sleep(pause).await;
            match self.heartbeats.ask(&Action::Renew { service_id: &id }, BEAT_PATIENCE).await {
                Ok(answer) if answer.success => {}
                Ok(answer) => return format!("the registry does not know this daemon any more: {}", answer.refusal()),
                Err(why) => return why,
            }
        }
    }

    fn tell(&self, standing: Standing) {
        self.standing.send_if_modified(|known| {
            let is_news = *known != standing;
            *known = standing;
            is_news
        });
    }
}
