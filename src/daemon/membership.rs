//! The daemon in the registry of CGSE: what it is entered as, and who is told what becomes of that.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cgse::words::ServiceInfo;
use crate::cgse::{Member, Standing};
use crate::config::Cgse;
use crate::control::Identity;
use crate::control::dialect::NAME;
use crate::procfs::Owner;
use crate::telemetry::{Event, Telemetry};

/// How long taking the entry out may hold the daemon up.
const PATIENCE: Duration = Duration::from_millis(1200);

/// The entry, for as long as this lives.
pub(super) struct Membership {
    /// Whether it is to be taken out, once the daemon leaves.
    leave: watch::Sender<Option<bool>>,
    tasks: JoinSet<()>,
    pub(super) standing: watch::Receiver<Standing>,
}

impl Membership {
    /// Begins to keep it.
    pub(super) fn begin(cgse: &Cgse, owner: &Owner, identity: &Identity, telemetry: Telemetry) -> Self {
        let (leave, mut leaving) = watch::channel(None);
        let info = entry(cgse, owner, identity);
        let (member, standing) = Member::new(&zmq::Context::new(), &cgse.registry, &cgse.heartbeat, info, cgse.ttl);
        let mut tasks = JoinSet::new();
        let mut seen = standing.clone();
        tasks.spawn(async move {
            let left = async move {
                match leaving.wait_for(Option::is_some).await {
                    Ok(take_out) => *take_out == Some(true),
                    Err(_) => false,
                }
            };
            member.keep(left).await;
        });
        tasks.spawn(async move {
            while seen.changed().await.is_ok() {
                match &*seen.borrow_and_update() {
                    Standing::Unknown => {}
                    Standing::Registered => telemetry.emit(Event::RegistryEntered),
                    Standing::Missing(problem) => telemetry.emit(Event::RegistryMissing { problem }),
                }
            }
        });
        Self { leave, tasks, standing }
    }

    /// Takes the entry out, as the daemon leaves for good. Does not wait for a registry that is away.
    pub(super) async fn take_out(&mut self) {
        self.leave.send_replace(Some(true));
        drop(tokio::time::timeout(PATIENCE, self.tasks.join_next()).await);
    }
}

/// What the daemon is entered as: the same for the next one in its place.
fn entry(cgse: &Cgse, owner: &Owner, identity: &Identity) -> ServiceInfo {
    let control = identity.endpoints.iter().find_map(|endpoint| tcp(endpoint));
    let (mut doors, nowhere) = (identity.cgse_endpoints.iter().filter_map(|endpoint| tcp(endpoint)), ("127.0.0.1", 0));
    // Where there is no door for clients of CGSE, those of ours have to do.
    let (host, port) = doors.next().or(control).unwrap_or(nowhere);
    let service = doors.next().or(control).map(|(_, port)| port);
    let host = match &cgse.advertise_host {
        Some(host) => host.clone(),
        // Every address of this host.
        None if matches!(host, "0.0.0.0" | "[::]") => identity.hostname.clone(),
        None => host.to_owned(),
    };
    let ports = [
        ("service_port", service),
        ("control_port", control.map(|(_, port)| port)),
        ("monitoring_port", identity.events_endpoints.iter().find_map(|endpoint| Some(tcp(endpoint)?.1))),
        ("metrics_port", identity.metrics_endpoint.as_deref().and_then(metrics_port)),
    ];
    let metadata = ports.into_iter().filter_map(|(key, port)| Some((key.to_owned(), Value::from(port?))));
    ServiceInfo {
        name: NAME.to_owned(),
        host,
        port,
        service_type: cgse.service_type.clone(),
        metadata: Map::from_iter(metadata),
        tags: vec![cgse.service_type.clone()],
        id: format!("procman-{owner}"),
    }
}

/// Host and port of an endpoint that is open.
fn tcp(endpoint: &str) -> Option<(&str, u16)> {
    let (host, port) = endpoint.strip_prefix("tcp://")?.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

fn metrics_port(url: &str) -> Option<u16> {
    url.strip_prefix("http://")?.split('/').next()?.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_from_what_is_open() {
        assert_eq!(tcp("tcp://127.0.0.1:6150"), Some(("127.0.0.1", 6150)));
        assert_eq!(tcp("tcp://[::1]:6150"), Some(("[::1]", 6150)));
        assert_eq!((tcp("ipc:///run/c.sock"), tcp("tcp://x")), (None, None));
        assert_eq!(metrics_port("http://127.0.0.1:9469/metrics"), Some(9469));
    }
}
