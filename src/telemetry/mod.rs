//! What the daemon says of itself: log lines, metrics, and the HTTP door they are read through.
//!
//! One [`Event`] is a log line, a counter and an entry of the sequence that subscribers see, so that they cannot disagree. Whoever has something to tell holds a [`Telemetry`] and emits;
//! nobody in here calls up. The room knows `protocol` of this crate and nobody else.
//!
//! - [`event`]: the closed list of events, and what each becomes in the log;
//! - [`feed`]: what of them goes out to subscribers, in one gap-free sequence; [`ring`]: the last of it, for those who come late;
//! - [`metrics`]: the daemon's own counters and histograms, and [`Telemetry`];
//! - [`families`]: the metric families read from a snapshot of the processes, one table;
//! - [`page`]: the page of a scrape, made of both;
//! - [`http`]: `/metrics`, `/healthz`, `/readyz`;
//! - [`logging`]: where log lines go and what they look like.

pub mod event;
pub mod families;
pub mod feed;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod page;
pub mod ring;

pub use event::Event;
pub use families::{ProcessSample, Snapshot};
pub use feed::Feed;
pub use http::Readiness;
pub use logging::LogFormat;
pub use metrics::{MetricsError, Telemetry};
pub use page::{Exporter, Source};
