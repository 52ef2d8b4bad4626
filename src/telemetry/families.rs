//! The metric families that are read from a snapshot at each scrape: those of the daemon's own process, and those of each sub-process.
//!
//! Each is one row of a table: name, kind, help, the label it has of its own, and where its values come from. A row whose closure gives no value
//! has no series, so a sub-process that is not registered any more, or does not run, simply is not there.

use std::fmt::Write;
use std::sync::Arc;

use crate::protocol::reply::{ProcessStatus, View};
use crate::protocol::{Cause, RegistryHealth, StateName};

/// What one scrape shows.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The daemon's own status; `None` before the first refresh.
    pub daemon: Option<Arc<ProcessStatus>>,
    /// The registered sub-processes, in name order.
    pub processes: Vec<ProcessSample>,
}

/// What one scrape shows of one sub-process.
#[derive(Clone, Debug)]
pub struct ProcessSample {
    /// What its supervisor knows.
    pub view: View,
    /// What `/proc` showed at the last refresh; shown only while it is of the run in `view`.
    pub status: Option<Arc<ProcessStatus>>,
    /// Starts since it was registered, those that failed included.
    pub starts: u64,
    /// Ends by cause; only causes that occurred.
    pub exits: Vec<(Cause, u64)>,
}

impl ProcessSample {
    /// Whether it has a living process.
    pub fn is_up(&self) -> bool {
        let live = match self.view.state {
            StateName::Starting | StateName::Running | StateName::Stopping => true,
            StateName::Stopped | StateName::Backoff | StateName::Exited | StateName::Fatal | StateName::Lost => false,
        };
        live && self.view.pid.is_some()
    }

    /// The status of the living process. One that is left over from an earlier run would tell of another process.
    pub fn living(&self) -> Option<&ProcessStatus> {
        self.status
            .as_deref()
            .filter(|status| self.is_up() && Some(status.pid) == self.view.pid && Some(&status.uuid) == self.view.uuid.as_ref())
    }
}

/// How Prometheus is to understand the values of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, and begins anew with the process it is about.
    Counter,
}

impl Kind {
    /// The word in the `# TYPE` line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One row of a table of families.
pub struct Family<T: 'static> {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// What kind of values it has.
    pub kind: Kind,
    /// What it holds.
    pub help: &'static str,
    /// The label that tells several series of the same process apart.
    pub label: Option<&'static str>,
    /// Gives its values.
    values: fn(&T, &mut Values<'_>),
}

/// Takes the values of one family for one process and writes them to the page.
pub(super) struct Values<'a> {
    page: &'a mut String,
    name: &'a str,
    labels: &'a str,
    label: Option<&'static str>,
}

impl Values<'_> {
    /// The only value of a family.
    fn one(&mut self, value: impl Number) {
        self.write(None, value.number());
    }

    /// One of several values, under `word` of the family's own label.
    fn under(&mut self, word: &'static str, value: impl Number) {
        self.write(Some(word), value.number());
    }

    fn write(&mut self, word: Option<&'static str>, value: f64) {
        self.page.push_str(self.name);
        let mut before = '{';
        // No value of a label needs escaping: names and groups have a closed alphabet, the others are words of this program.
        if !self.labels.is_empty() {
            self.page.push('{');
            self.page.push_str(self.labels);
            before = ',';
        }
        if let (Some(label), Some(word)) = (self.label, word) {
            for part in [before.encode_utf8(&mut [0; 4]), label, "=\"", word, "\""] {
                self.page.push_str(part);
            }
            before = ',';
        }
        if before == ',' {
            self.page.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.page, " {value}");
    }
}

/// A value of a metric. Integers above 2^53 lose their last digits, as everywhere in Prometheus.
trait Number {
    fn number(self) -> f64;
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}
impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}
impl Number for u32 {
    fn number(self) -> f64 {
        self.into()
    }
}
impl Number for i32 {
    fn number(self) -> f64 {
        self.into()
    }
}
impl Number for bool {
    fn number(self) -> f64 {
        self.into()
    }
}

impl<T> Family<T> {
    /// Writes the family, its head included, for every sample that has values; nothing at all where none has. `samples` gives with each its labels
    /// as they stand between the braces.
    pub(super) fn write<'a>(&self, prefix: &str, samples: impl Iterator<Item = (&'a str, &'a T)>, page: &mut String) {
        let name = format!("{prefix}{}", self.name);
        let start = page.len();
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {}", self.help, self.kind.as_str());
        let head = page.len();
        for (labels, sample) in samples {
            (self.values)(sample, &mut Values { page, name: &name, labels, label: self.label });
        }
        if page.len() == head {
            page.truncate(start);
        }
    }
}

const fn gauge<T>(name: &'static str, help: &'static str, values: fn(&T, &mut Values<'_>)) -> Family<T> {
    Family { name, kind: Kind::Gauge, help, label: None, values }
}

const fn counter<T>(name: &'static str, help: &'static str, values: fn(&T, &mut Values<'_>)) -> Family<T> {
    Family { name, kind: Kind::Counter, help, label: None, values }
}

const fn gauge_by<T>(label: &'static str, name: &'static str, help: &'static str, values: fn(&T, &mut Values<'_>)) -> Family<T> {
    Family { name, kind: Kind::Gauge, help, label: Some(label), values }
}

const fn counter_by<T>(label: &'static str, name: &'static str, help: &'static str, values: fn(&T, &mut Values<'_>)) -> Family<T> {
    Family { name, kind: Kind::Counter, help, label: Some(label), values }
}

/// The families of the daemon's own process, which stand under `metrics.prefix`. Names, kinds and labels are those of CGSE's control servers, and so
/// are the help texts where they say what the family holds.
pub const DAEMON: &[Family<ProcessStatus>] = &[
    gauge("psutil_number_of_cpu", "Number of physical cores, excluding hyper thread CPUs", |status, out| {
        if let Some(count) = status.cpu.count {
            out.one(count);
        }
    }),
    gauge("psutil_pid", "Process ID", |status, out| out.one(status.pid)),
    gauge_by("type", "psutil_cpu_times_seconds", "Accumulated process time in seconds", |status, out| {
        out.under("user", status.cpu.user);
        out.under("system", status.cpu.system);
    }),
    gauge("psutil_cpu_percent", "The current process CPU utilization as a percentage", |status, out| out.one(status.cpu.percent)),
    gauge_by("type", "psutil_memory_info_bytes", "Memory info for this instrumented process", |status, out| {
        out.under("rss", status.memory.rss);
        if let Some(uss) = status.memory.uss {
            out.under("uss", uss);
        }
    }),
    gauge("psutil_number_of_threads", "Number of threads of this process", |status, out| out.one(status.threads)),
    gauge("psutil_process_uptime", "Time in seconds that the process is up and running", |status, out| out.one(status.uptime)),
];

/// The families of each sub-process, with the labels `name` and `group`.
pub const PROCESS: &[Family<ProcessSample>] = &[
    gauge("procman_process_up", "1 while it has a living process, else 0", |sample, out| out.one(sample.is_up())),
    gauge_by("state", "procman_process_state", "1 for the state it is in, 0 for each other", |sample, out| {
        for state in StateName::ALL {
            out.under(state.as_str(), *state == sample.view.state);
        }
    }),
    gauge("procman_process_ready", "1 while it is ready to serve, else 0", |sample, out| out.one(sample.view.ready)),
    gauge(
        "procman_process_cgse_passing",
        "1 while the registry of CGSE lists it as passing, else 0; where it has a type there",
        |sample, out| {
            if let Some(entry) = &sample.view.cgse {
                out.one(entry.health == RegistryHealth::Passing);
            }
        },
    ),
    gauge("procman_process_start_time_seconds", "When the running process was started, in Unix seconds", |sample, out| {
        if let Some(started_at) = sample.view.started_at.filter(|_| sample.is_up()) {
            out.one(started_at);
        }
    }),
    counter_by("mode", "procman_process_cpu_seconds_total", "Processor time of the running process", |sample, out| {
        if let Some(status) = sample.living() {
            out.under("user", status.cpu.user);
            out.under("system", status.cpu.system);
        }
    }),
    gauge("procman_process_resident_memory_bytes", "Resident set size of the running process", |sample, out| {
        if let Some(status) = sample.living() {
            out.one(status.memory.rss);
        }
    }),
    gauge("procman_process_unique_memory_bytes", "Memory that would be freed if the running process ended now", |sample, out| {
        if let Some(uss) = sample.living().and_then(|status| status.memory.uss) {
            out.one(uss);
        }
    }),
    gauge("procman_process_threads", "Threads of the running process", |sample, out| {
        if let Some(status) = sample.living() {
            out.one(status.threads);
        }
    }),
    gauge("procman_process_open_fds", "Open file descriptors of the running process", |sample, out| {
        if let Some(fds) = sample.living().and_then(|status| status.fds) {
            out.one(fds);
        }
    }),
    counter("procman_process_read_bytes_total", "Bytes that the running process read from storage", |sample, out| {
        if let Some(bytes) = sample.living().and_then(|status| status.io.read_bytes) {
            out.one(bytes);
        }
    }),
    counter("procman_process_written_bytes_total", "Bytes that the running process wrote to storage", |sample, out| {
        if let Some(bytes) = sample.living().and_then(|status| status.io.write_bytes) {
            out.one(bytes);
        }
    }),
    gauge("procman_process_tree_processes", "Processes of the running tree, the process itself included", |sample, out| {
        if let Some(status) = sample.living() {
            out.one(status.tree.processes);
        }
    }),
    counter("procman_process_starts_total", "Starts since it was registered, those that failed included", |sample, out| {
        out.one(sample.starts)
    }),
    counter_by("cause", "procman_process_exits_total", "Ends since it was registered, by cause", |sample, out| {
        for (cause, count) in &sample.exits {
            out.under(cause.as_str(), *count);
        }
    }),
    gauge("procman_process_last_returncode", "Exit code of the last run, or -N when signal N ended it", |sample, out| {
        if let Some(returncode) = sample.view.returncode {
            out.one(returncode);
        }
    }),
];
