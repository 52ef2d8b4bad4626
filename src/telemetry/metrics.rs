//! The daemon's own counters and histograms, and the handle that everyone emits through.

use std::sync::Arc;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::event::{self, Event};
use super::feed::Feed;
use super::page::{Exporter, Source};
use crate::protocol::CommandName;

/// Upper bounds of the histograms in seconds, from 50 µs, which is about what a `ping` takes, to a minute, which is a patient `quit`.
const BUCKETS: [f64; 19] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Why metrics could not be set up or a page not be made.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The prefix cannot begin the name of a metric.
    #[error("metrics.prefix {prefix:?} cannot begin the name of a metric: use letters, digits and underscores, and begin with a letter")]
    Prefix {
        /// What was said.
        prefix: String,
    },
    /// The registry refused a family.
    #[error("failed to set up the metrics")]
    SetUp(#[source] prometheus::Error),
    /// The registry's families could not be written.
    #[error("failed to write the metrics page")]
    Write(#[source] prometheus::Error),
}

/// Takes events; cheap to clone and to share among threads.
#[derive(Clone, Debug)]
pub struct Telemetry {
    own: Arc<Own>,
    /// Where events go out to subscribers, once there is a place.
    feed: Option<Arc<Feed>>,
}

/// The families that are counted as things happen, as opposed to those read from a snapshot.
#[derive(Debug)]
struct Own {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    refresh_duration: Histogram,
    zombies: IntGauge,
    orphans_reaped: IntCounter,
    strangers_refused: IntCounter,
    log_rotations: IntCounter,
    log_dropped: IntCounter,
    log_disk_full: IntGauge,
    store_up: IntGauge,
    cgse_registered: IntGauge,
    hub_connected: IntGaugeVec,
    hub_sent: IntCounterVec,
    hub_dropped: IntCounterVec,
    recovered: IntCounterVec,
}

impl Telemetry {
    /// Sets up the daemon's own families. Fails only if a family is declared wrongly.
    pub fn new() -> Result<Self, MetricsError> {
        Own::new().map(|own| Self { own: Arc::new(own), feed: None }).map_err(MetricsError::SetUp)
    }

    /// The same, which also appends to this sequence of events.
    #[must_use]
    pub fn publishing(self, feed: Arc<Feed>) -> Self {
        Self { feed: Some(feed), ..self }
    }

    /// Counts an event, writes it to the log, and appends it to the sequence that subscribers see.
    pub fn emit(&self, event: Event<'_>) {
        self.own.count(&event);
        if let Some(feed) = &self.feed {
            feed.take(&event);
        }
        event::log(&event);
    }

    /// A maker of pages for `/metrics`: what was counted here, and what `source` shows of the processes. `prefix` stands before the families of the
    /// daemon's own process, in lower case and followed by an underscore, as CGSE does it; an empty one adds nothing.
    pub fn exporter(&self, prefix: &str, source: Source) -> Result<Exporter, MetricsError> {
        Exporter::new(self.own.registry.clone(), prefix, source)
    }
}

impl Own {
    fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build_info = IntGaugeVec::new(Opts::new("procman_build_info", "1, with the version of the daemon"), &["version"])?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let requests = IntCounterVec::new(
            Opts::new("procman_requests_total", "Requests answered; the outcome is ok or the code of the error"),
            &["command", "outcome"],
        )?;
        // A counter that first appears at 1 hides its first increase from rate(): the usual ones are there from the start.
        for command in CommandName::ALL {
            requests.with_label_values(&[command.as_str(), event::OK]);
        }
        let request_duration = HistogramVec::new(
            HistogramOpts::new("procman_request_duration_seconds", "Time from the arrival of a request to its reply")
                .buckets(BUCKETS.to_vec()),
            &["command"],
        )?;
        let refresh_duration = Histogram::with_opts(
            HistogramOpts::new("procman_refresh_duration_seconds", "Time that one refresh of the status of all processes took")
                .buckets(BUCKETS.to_vec()),
        )?;
        let zombies = IntGauge::new("procman_zombies", "Zombies on the host at the last refresh")?;
        let orphans_reaped = IntCounter::new("procman_orphans_reaped_total", "Orphaned processes that the daemon reaped")?;
        let strangers_refused =
            IntCounter::new("procman_strangers_refused_total", "Connections to TCP endpoints that were refused for want of a known key")?;
        let log_rotations = IntCounter::new("procman_log_rotations_total", "Parts that were rotated out of the logs of sub-processes")?;
        let log_dropped =
            IntCounter::new("procman_log_dropped_bytes_total", "Output that was given up because it came too fast or the disk was full")?;
        let log_disk_full = IntGauge::new("procman_log_disk_full", "1 while the disk of the logs is full, else 0")?;
        let store_up = IntGauge::new("procman_store_up", "1 while what must outlive the daemon is written to the disk, else 0")?;
        store_up.set(1);
        let cgse_registered = IntGauge::new("procman_cgse_registered", "1 while the daemon is in the registry of CGSE, else 0")?;
        let by_hub = ["hub"];
        let hub_connected = IntGaugeVec::new(
            Opts::new("procman_cgse_hub_connected", "1 while a hub of CGSE is there and takes what it is sent, else 0"),
            &by_hub,
        )?;
        let hub_sent =
            IntCounterVec::new(Opts::new("procman_cgse_hub_sent_total", "Messages that the connection to a hub of CGSE took"), &by_hub)?;
        let hub_dropped = IntCounterVec::new(
            Opts::new(
                "procman_cgse_hub_dropped_total",
                "Messages for a hub of CGSE that were given up because it was away or did not read",
            ),
            &by_hub,
        )?;
        let recovered = IntCounterVec::new(
            Opts::new(
                "procman_recovered_runs_total",
                "Runs of an earlier daemon that this one took over: adopted, ended or lost meanwhile, or a remnant that nobody defines",
            ),
            &["outcome"],
        )?;
        for outcome in ["adopted", "ended", "lost", "remnant"] {
            recovered.with_label_values(&[outcome]);
        }
        registry.register(Box::new(store_up.clone()))?;
        registry.register(Box::new(cgse_registered.clone()))?;
        registry.register(Box::new(hub_connected.clone()))?;
        registry.register(Box::new(hub_sent.clone()))?;
        registry.register(Box::new(hub_dropped.clone()))?;
        registry.register(Box::new(recovered.clone()))?;
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(request_duration.clone()))?;
        registry.register(Box::new(refresh_duration.clone()))?;
        registry.register(Box::new(zombies.clone()))?;
        registry.register(Box::new(orphans_reaped.clone()))?;
        registry.register(Box::new(strangers_refused.clone()))?;
        registry.register(Box::new(log_rotations.clone()))?;
        registry.register(Box::new(log_dropped.clone()))?;
        registry.register(Box::new(log_disk_full.clone()))?;
        Ok(Self {
            registry,
            requests,
            request_duration,
            refresh_duration,
            zombies,
            orphans_reaped,
            strangers_refused,
            log_rotations,
            log_dropped,
            log_disk_full,
            store_up,
            cgse_registered,
            hub_connected,
            hub_sent,
            hub_dropped,
            recovered,
        })
    }

    fn count(&self, event: &Event<'_>) {
        match *event {
            Event::RequestServed { command, error, duration, request_id: _ } => {
                let command = event::command_word(command);
                self.requests.with_label_values(&[command, event::outcome_word(error.map(|error| error.code))]).inc();
                self.request_duration.with_label_values(&[command]).observe(duration.as_secs_f64());
            }
            Event::Refreshed { took, zombies } => {
                self.refresh_duration.observe(took.as_secs_f64());
                self.zombies.set(i64::try_from(zombies).unwrap_or(i64::MAX));
            }
            Event::OrphanReaped { .. } => self.orphans_reaped.inc(),
            Event::StrangerRefused => self.strangers_refused.inc(),
            Event::LogRotated { parts, .. } => self.log_rotations.inc_by(parts),
            Event::LogDropped { bytes, .. } => self.log_dropped.inc_by(bytes),
            Event::Recovered { adopted, ended, lost, remnants, took: _ } => {
                for (outcome, count) in [("adopted", adopted), ("ended", ended), ("lost", lost), ("remnant", remnants)] {
                    self.recovered.with_label_values(&[outcome]).inc_by(count);
                }
            }
            Event::StoreTrouble { .. } => self.store_up.set(0),
            Event::StoreHealed { .. } => self.store_up.set(1),
            Event::RegistryMissing { .. } => self.cgse_registered.set(0),
            Event::RegistryEntered => self.cgse_registered.set(1),
            Event::HubMissing { hub, problem: _ } => self.hub_connected.with_label_values(&[hub]).set(0),
            Event::HubReached { hub, dropped: _ } => self.hub_connected.with_label_values(&[hub]).set(1),
            Event::HubServed { hub, sent, dropped } => {
                // It is there with the first one that is told of, before anybody knows whether it is reached.
                drop(self.hub_connected.with_label_values(&[hub]));
                self.hub_sent.with_label_values(&[hub]).inc_by(sent);
                self.hub_dropped.with_label_values(&[hub]).inc_by(dropped);
            }
            Event::LogDisk { full, .. } => self.log_disk_full.set(full.into()),
            // Starts and ends of sub-processes are counted by their supervisor, which shows them in its snapshot.
            Event::StateChanged { .. }
            | Event::SpawnFailed { .. }
            | Event::Restarting { .. }
            | Event::GaveUp { .. }
            | Event::LogProblem { .. }
            | Event::Listed { .. }
            | Event::StoreSetAside { .. }
            | Event::ScheduleMissed { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ErrorCode, WireError};
    use crate::telemetry::Snapshot;
    use std::time::Duration;

    fn page(telemetry: &Telemetry) -> String {
        telemetry.exporter("", Arc::new(Snapshot::default)).unwrap().render().unwrap()
    }

    #[test]
    fn events_are_counted() {
        let telemetry = Telemetry::new().unwrap();
        let busy = WireError::new(ErrorCode::Busy, "later");
        let served = |command, error| {
            let duration = Duration::from_micros(80);
            telemetry.clone().emit(Event::RequestServed { command, error, duration, request_id: None });
        };
        served(Some(CommandName::Ping), None);
        served(Some(CommandName::Ping), None);
        served(Some(CommandName::Execute), Some(&busy));
        served(None, Some(&WireError::bad_request("what?")));
        telemetry.emit(Event::OrphanReaped { pid: 5, status: 0 });
        telemetry.emit(Event::Refreshed { took: Duration::from_millis(3), zombies: 2 });
        let name = "web".parse().unwrap();
        telemetry.emit(Event::LogRotated { name: &name, stream: "stdout", parts: 3, bytes: 9 });
        telemetry.emit(Event::LogDisk { directory: "/logs", full: true, available: 1 });
        let page = page(&telemetry);
        for line in [
            "procman_requests_total{command=\"ping\",outcome=\"ok\"} 2",
            "procman_requests_total{command=\"execute\",outcome=\"busy\"} 1",
            "procman_requests_total{command=\"invalid\",outcome=\"bad_request\"} 1",
            "procman_requests_total{command=\"shutdown\",outcome=\"ok\"} 0",
            "procman_request_duration_seconds_bucket{command=\"ping\",le=\"0.00005\"} 0",
            "procman_request_duration_seconds_bucket{command=\"ping\",le=\"0.0001\"} 2",
            "procman_refresh_duration_seconds_count 1",
            "procman_zombies 2",
            "procman_orphans_reaped_total 1",
            "procman_log_rotations_total 3",
            "procman_log_dropped_bytes_total 0",
            "procman_log_disk_full 1",
            concat!("procman_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn the_buckets_ascend() {
        assert!(BUCKETS.is_sorted() && BUCKETS[0] == 50e-6 && BUCKETS[18] == 60.0);
    }
}
