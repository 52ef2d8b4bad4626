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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::protocol::StateName;
    use crate::telemetry::page::tests::{running, status};
    use serde_json::{Value, json};

    fn tags() -> Tags {
        Tags { origin: "PROCMAN".into(), host: "lab".into(), site_id: None }
    }

    fn said(snapshot: &Snapshot) -> Vec<Value> {
        points(snapshot, &tags(), 2.5, true).iter().map(|point| serde_json::from_slice(&point.encode()).unwrap()).collect()
    }

    /// Every field there is, with its type and whose it is, as PROTOCOL.md tells it.
    #[test]
    fn fields_are_those_that_are_told() {
        let mut web = running("web", 4100);
        web.view.health = Some("passing".into());
        let mut job = running("job", 4200);
        (job.view.state, job.view.pid, job.view.returncode, job.view.cause) = (StateName::Exited, None, Some(-9), Some(Cause::Signal));
        let snapshot = Snapshot { daemon: Some(Arc::new(status(1, "u"))), processes: vec![job, web] };
        let mut fields: BTreeMap<String, (&str, Vec<String>)> = BTreeMap::new();
        for point in said(&snapshot) {
            let measurement = point["measurement"].as_str().unwrap().to_owned();
            for (field, value) in point["fields"].as_object().unwrap() {
                let kind = match value {
                    Value::String(_) => "str",
                    Value::Number(number) if number.is_f64() => "float",
                    Value::Number(_) => "int",
                    other @ (Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => panic!("{field} is {other}"),
                };
                let known = fields.entry(field.clone()).or_insert((kind, Vec::new()));
                assert_eq!(known.0, kind, "{field} is of two kinds");
                if known.1.last() != Some(&measurement) {
                    known.1.push(measurement.clone());
                }
            }
        }
        let document = include_str!("../../proto/PROTOCOL.md");
        let (_, table) = document.split_once("<!-- table: points -->\n").unwrap();
        let told: BTreeMap<String, (&str, Vec<String>)> = table
            .lines()
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|row| {
                let cells: Vec<&str> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
                let of = if cells[2] == "both" { vec![DAEMON.to_owned(), PROCESS.to_owned()] } else { vec![cells[2].to_owned()] };
                (cells[0].to_owned(), (cells[1], of))
            })
            .collect();
        assert_eq!(fields, told);
    }

    #[test]
    fn what_does_not_run_has_nothing_of_a_process() {
        let mut job = running("job", 4200);
        (job.view.state, job.view.pid, job.view.group) = (StateName::Stopped, None, None);
        let said = said(&Snapshot { daemon: None, processes: vec![job] });
        assert_eq!(
            said[0],
            json!({"measurement": "procman", "time": 2.5, "tags": {"origin": "PROCMAN", "host": "lab"},
                "fields": {"up": 1, "version": env!("CARGO_PKG_VERSION"), "processes": 1, "processes_up": 0}})
        );
        assert_eq!(said[1]["tags"], json!({"origin": "PROCMAN", "host": "lab", "name": "job"}));
        assert_eq!(said[1]["fields"], json!({"up": 0, "ready": 1, "state": "stopped", "starts": 2, "restarts": 1, "exits": 1}));
        // A status that is left over from another run tells of another process.
        let mut other = running("web", 4100);
        other.view.uuid = Some("another".into());
        let said = points(&Snapshot { daemon: None, processes: vec![other] }, &tags(), 2.5, false);
        let said: Vec<Value> = said.iter().map(|point| serde_json::from_slice(&point.encode()).unwrap()).collect();
        assert_eq!((&said[0]["fields"]["up"], &said[1]["fields"]["up"], said[1]["fields"].get("pid")), (&json!(0), &json!(1), None));
    }
}
