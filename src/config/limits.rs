//! `[limits]`: what clients may cost, each bound with its reason in the documented file.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Document, Table};
use crate::protocol::definition::Seconds;

/// The keys of `[limits]`.
pub(super) const KEYS: &[&str] = &[
    "connections",
    "handshake_timeout",
    "requests_per_second",
    "unread_replies",
    "unread_events",
    "log_reply_bytes",
    "probe_output_bytes",
    "processes",
];

/// Seconds that `handshake_timeout` may be: libzmq counts in milliseconds.
const HANDSHAKE: RangeInclusive<f64> = 0.1..=60.0;

/// `[limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections to one endpoint at a time. One address, or one user of this host, may have half of them.
    pub connections: usize,
    /// How long a client may take to greet.
    pub handshake_timeout: Duration,
    /// Requests of one client in a second, in the long run; `None`: as many as it likes.
    pub requests_per_second: Option<u32>,
    /// Replies that wait for one client to read them.
    pub unread_replies: u32,
    /// Events that wait for one subscriber to read them.
    pub unread_events: u32,
    /// Bytes of a log that are looked at for one answer.
    pub log_reply_bytes: u32,
    /// Bytes that are kept of what a program writes that asks a sub-process how it is.
    pub probe_output_bytes: usize,
    /// Sub-processes that may be registered.
    pub processes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1000,
            handshake_timeout: Duration::from_secs(5),
            requests_per_second: Some(20_000),
            unread_replies: 1000,
            unread_events: 4096,
            log_reply_bytes: 1 << 20,
            probe_output_bytes: 4096,
            processes: 10_000,
        }
    }
}

/// Where something is out of range the default stands in.
pub(super) fn read<'t>(doc: &mut Document<'t, '_>, table: Option<&mut Table<'t>>) -> Limits {
    let mut limits = Limits::default();
    let Some(table) = table else { return limits };
    doc.check_keys(table, KEYS, &[]);
    let mut number = |key: &str, range: RangeInclusive<u32>| {
        let said = doc.take::<i64>(table, key)?;
        let value = u32::try_from(said.value).ok().filter(|value| range.contains(value));
        if value.is_none() {
            doc.error(said.line, table.key(key), format!("{} is out of range: {} to {}", said.value, range.start(), range.end()));
        }
        value
    };
    let wide = |value: u32| value as usize;
    limits.connections = number("connections", 2..=100_000).map_or(limits.connections, wide);
    // 0 is none.
    limits.requests_per_second =
        number("requests_per_second", 0..=10_000_000).map_or(limits.requests_per_second, |rate| Some(rate).filter(|rate| *rate > 0));
    limits.unread_replies = number("unread_replies", 1..=1_000_000).unwrap_or(limits.unread_replies);
    limits.unread_events = number("unread_events", 1..=1_000_000).unwrap_or(limits.unread_events);
    limits.log_reply_bytes = number("log_reply_bytes", 4096..=1 << 20).unwrap_or(limits.log_reply_bytes);
    limits.probe_output_bytes = number("probe_output_bytes", 256..=1 << 20).map_or(limits.probe_output_bytes, wide);
    limits.processes = number("processes", 1..=100_000).map_or(limits.processes, wide);
    if let Some(said) = doc.take::<Seconds>(table, "handshake_timeout") {
        if HANDSHAKE.contains(&said.value.get()) {
            limits.handshake_timeout = said.value.duration();
        } else {
            let message = format!("{} is out of range: {} to {} seconds", said.value.get(), HANDSHAKE.start(), HANDSHAKE.end());
            doc.error(said.line, table.key("handshake_timeout"), message);
        }
    }
    limits
}
