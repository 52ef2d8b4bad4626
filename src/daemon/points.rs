//! The status of the daemon and of its sub-processes as points for the metrics hub: what a scrape of the metrics shows, as it was last seen.

use crate::cgse::DataPoint;
use crate::cgse::point::is_tag;
use crate::protocol::Cause;
use crate::protocol::reply::ProcessStatus;
use crate::telemetry::{ProcessSample, Snapshot};

/// The measurement of the daemon itself.
const DAEMON: &str = "procman";
/// That of each sub-process.
const PROCESS: &str = "procman_process";
/// Where CGSE's own services find out at which site they are.
const SITE: &str = "SITE_ID";

/// What every point of a daemon is tagged with; `origin` and `site_id` are the tags of CGSE's own control servers.
#[derive(Clone, Debug)]
pub(super) struct Tags {
    /// The daemon's type in CGSE's registry.
    pub(super) origin: String,
    /// The host's name.
    pub(super) host: String,
    /// The site, where the daemon's environment says it.
    pub(super) site_id: Option<String>,
}

impl Tags {
    /// Those of a daemon of this type on this host.
    pub(super) fn new(service_type: &str, hostname: &str) -> Self {
        let site_id = std::env::var(SITE).ok().filter(|site| is_tag(site));
        Self { origin: service_type.to_owned(), host: hostname.to_owned(), site_id }
    }

    fn point(&self, measurement: &'static str, time: f64) -> DataPoint {
        let point = DataPoint::new(measurement, time).tag("origin", Some(&self.origin)).tag("host", Some(&self.host));
        point.tag("site_id", self.site_id.as_deref())
    }
}

/// One point of the daemon, and one of each sub-process, all at the same time (Unix seconds). `is_up` is false for the last ones of a daemon that leaves.
pub(super) fn points(snapshot: &Snapshot, tags: &Tags, time: f64, is_up: bool) -> Vec<DataPoint> {
    let processes = snapshot.processes.iter().map(|sample| of_process(sample, tags.point(PROCESS, time)));
    std::iter::once(of_daemon(snapshot, tags.point(DAEMON, time), is_up)).chain(processes).collect()
}

fn of_daemon(snapshot: &Snapshot, point: DataPoint, is_up: bool) -> DataPoint {
    let up = snapshot.processes.iter().filter(|sample| sample.is_up()).count();
    let point = point.int("up", Some(u8::from(is_up))).text("version", Some(env!("CARGO_PKG_VERSION")));
    let point = point.int("processes", Some(snapshot.processes.len())).int("processes_up", Some(up));
    of_status(point, snapshot.daemon.as_deref())
}

fn of_process(sample: &ProcessSample, point: DataPoint) -> DataPoint {
    let ProcessSample { view, status: _, starts, exits } = sample;
    let point = point.tag("name", Some(view.name.as_str())).tag("group", view.group.as_ref().map(|group| group.as_str()));
    let point = point.int("up", Some(u8::from(sample.is_up()))).int("ready", Some(u8::from(view.ready)));
    let point = point.text("state", Some(view.state.as_str())).text("health", view.health.as_deref());
    let point = point.int("starts", Some(*starts)).int("restarts", Some(view.restarts));
    let point = point.int("exits", Some(exits.iter().map(|(_, count)| count).sum::<u64>()));
    let point = point.int("last_returncode", view.returncode).text("last_cause", view.cause.map(Cause::as_str));
    of_status(point, sample.living())
}

/// What is known only of what runs.
fn of_status(point: DataPoint, status: Option<&ProcessStatus>) -> DataPoint {
    let Some(ProcessStatus { pid, uuid: _, create_time: _, uptime, memory, cpu, threads, fds, io, context_switches: _, tree }) = status
    else {
        return point;
    };
    let point = point.int("pid", Some(*pid)).float("uptime_seconds", Some(*uptime));
    let point = point.float("cpu_user_seconds", Some(cpu.user)).float("cpu_system_seconds", Some(cpu.system));
    let point = point.float("cpu_percent", Some(cpu.percent));
    let point = point.int("memory_rss_bytes", Some(memory.rss)).int("memory_uss_bytes", memory.uss);
    let point = point.int("threads", Some(*threads)).int("open_fds", *fds);
    let point = point.int("read_bytes", io.read_bytes).int("written_bytes", io.write_bytes);
    let point = point.int("tree_processes", Some(tree.processes)).int("tree_rss_bytes", Some(tree.rss));
    point.float("tree_cpu_percent", Some(tree.cpu_percent))
}
