//! `[daemon]`, `[control]`, `[events]`, `[metrics]`, `[limits]` and `[cgse]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::access::{self, ReadAccess};
use super::document::{Document, Said, Table};
use super::endpoint::Endpoint;
use super::limits::{self, Limits};
use super::places::Places;
use super::{Cgroup, Cgse, Control, ControlServer, Events, Metrics};
use crate::access::{Access, Programs, Role};
use crate::protocol::DEFAULT_MAX_REQUEST_BYTES;
use crate::protocol::definition::Seconds;

/// The tables of the main file.
pub(super) const TABLES: &[&str] = &["daemon", "control", "events", "metrics", "limits", "cgse", "defaults", "process"];
/// Tables that a later version knows.
pub(super) const LATER_TABLES: &[&str] = &[];
/// The keys of `[daemon]`.
pub(super) const DAEMON_KEYS: &[&str] = &["state_dir", "runtime_dir", "cgroup", "include"];
/// The keys of `[control]`.
pub(super) const CONTROL_KEYS: &[&str] = &[
    "endpoints",
    "max_request_bytes",
    "socket_mode",
    "socket_group",
    "allow_insecure_tcp",
    "allow_programs",
    "curve",
    "client",
    "endpoint",
];
/// The keys of `[events]`.
pub(super) const EVENTS_KEYS: &[&str] = &["endpoints", "socket_mode", "socket_group"];
/// The keys of `[metrics]`.
pub(super) const METRICS_KEYS: &[&str] = &["listen", "refresh_interval", "prefix"];

/// The keys of `[cgse]`.
pub(super) const CGSE_KEYS: &[&str] = &[
    "registry",
    "heartbeat",
    "service_type",
    "advertise_host",
    "ttl",
    "device_endpoint",
    "service_endpoint",
    "role",
    "notify_hub",
    "metrics_hub",
    "metrics_interval",
];

/// Where the registry of CGSE takes requests, as its settings have it.
const CGSE_REGISTRY: &str = "tcp://127.0.0.1:6100";
/// Where it takes heartbeats.
const CGSE_HEARTBEAT: &str = "tcp://127.0.0.1:6102";
/// Where its notify hub takes events. Where nobody says one, it is told nothing.
const CGSE_NOTIFY_HUB: &str = "tcp://127.0.0.1:6125";
/// Where its metrics hub takes points, likewise.
const CGSE_METRICS_HUB: &str = "tcp://127.0.0.1:6130";
/// The default of `metrics_interval`.
const CGSE_METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// Least and most seconds of it: a database keeps every point.
const CGSE_METRICS_SECONDS: std::ops::RangeInclusive<f64> = 0.5..=3600.0;
/// The type of the daemon there.
const CGSE_SERVICE_TYPE: &str = "PROCMAN";
/// For how many seconds its entry counts without a sign of life, as CGSE's own services have it.
const CGSE_TTL: u64 = 30;
/// Least and most of that: below, an answer that takes its time would be taken for a death; above, a dead daemon would be listed for hours.
const CGSE_TTL_SECONDS: std::ops::RangeInclusive<u64> = 3..=3600;
/// The longest text that is registered.
const CGSE_TEXT: usize = 64;
/// The longest name of a client.
pub(super) const MOST_NAME: usize = 64;

/// The file name of the control socket in the runtime directory, where no endpoint is said.
const CONTROL_SOCKET: &str = "control.sock";
/// The same of the events socket.
const EVENTS_SOCKET: &str = "events.sock";
/// Least and most of `max_request_bytes`: below, not even a `register` fits; above, a few clients could fill the memory.
const REQUEST_BYTES: std::ops::RangeInclusive<usize> = 1024..=64 << 20;
/// The default of `socket_mode`: the daemon's user and the socket's group may command it.
const SOCKET_MODE: u32 = 0o660;
/// The default of `listen`.
const METRICS_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9469);
/// Least and most seconds of `refresh_interval`: below, the refresh would be the load; above, the metrics would be history.
const REFRESH_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// What the main file says beside sub-processes.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) state_dir: PathBuf,
    pub(super) runtime_dir: PathBuf,
    pub(super) cgroup: Cgroup,
    pub(super) include: Vec<Said<String>>,
    pub(super) control: Control,
    /// The groups of sockets, the keys that say them, and the lines: they are looked up only by who may touch the system.
    pub(super) socket_groups: Vec<(String, &'static str, usize)>,
    /// The line of `control.curve.secret_key_file`, which likewise is read only by them.
    pub(super) secret_key_line: Option<usize>,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    pub(super) cgse: Option<Cgse>,
}

/// Takes the six tables out of the main file. Where something is wrong the default stands in, so that the rest can be checked.
pub(super) fn read<'t>(doc: &mut Document<'t, '_>, root: &mut Table<'t>, places: &Places) -> Settings {
    let mut daemon = doc.take_table(root, "daemon");
    let mut control = doc.take_table(root, "control");
    let mut events = doc.take_table(root, "events");
    let mut metrics = doc.take_table(root, "metrics");
    let mut limits = doc.take_table(root, "limits");
    let mut cgse = doc.take_table(root, "cgse");
    for (table, known, later) in [
        (&daemon, DAEMON_KEYS, &[][..]),
        (&control, CONTROL_KEYS, &[]),
        (&events, EVENTS_KEYS, &[]),
        (&metrics, METRICS_KEYS, &[]),
        (&cgse, CGSE_KEYS, &[]),
    ] {
        if let Some(table) = table {
            doc.check_keys(table, known, later);
        }
    }
    let (state_dir, _) = directory(doc, daemon.as_mut(), "state_dir", places.state_dir.as_deref());
    let (runtime_dir, runtime_dir_line) = directory(doc, daemon.as_mut(), "runtime_dir", places.runtime_dir.as_deref());
    let cgroup = daemon.as_mut().map(|daemon| cgroup(doc, daemon)).unwrap_or_default();
    let include = daemon.as_mut().map(|daemon| include(doc, daemon)).unwrap_or_default();
    let Read { control, mut socket_groups, secret_key_line, insecure } =
        read_control(doc, control.as_mut(), &runtime_dir, runtime_dir_line);
    let events = read_events(doc, events.as_mut(), &runtime_dir, &control, insecure, &mut socket_groups);
    let metrics = read_metrics(doc, metrics.as_mut());
    let limits = limits::read(doc, limits.as_mut());
    let cgse = cgse.as_mut().map(|table| read_cgse(doc, table, &control, insecure));
    Settings { state_dir, runtime_dir, cgroup, include, control, socket_groups, secret_key_line, events, metrics, limits, cgse }
}

/// How the daemon is listed in the registry of CGSE, which finds services by host and port.
fn read_cgse<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>, control: &Control, insecure: bool) -> Cgse {
    let mut endpoint = |key: &str, example: &str| {
        let said = doc.take::<String>(table, key)?;
        let is_right = is_tcp_peer(&said.value);
        if !is_right {
            doc.error(said.line, table.key(key), format!("{:?} is no endpoint to connect to; write \"{example}\"", said.value));
        }
        Some(said.value).filter(|_| is_right)
    };
    let registry = endpoint("registry", CGSE_REGISTRY).unwrap_or_else(|| CGSE_REGISTRY.to_owned());
    let heartbeat = endpoint("heartbeat", CGSE_HEARTBEAT).unwrap_or_else(|| CGSE_HEARTBEAT.to_owned());
    let (notify_hub, metrics_hub) = (endpoint("notify_hub", CGSE_NOTIFY_HUB), endpoint("metrics_hub", CGSE_METRICS_HUB));
    let metrics_interval = seconds(doc, table, "metrics_interval", CGSE_METRICS_SECONDS).unwrap_or(CGSE_METRICS_INTERVAL);
    let mut text = |key: &str| {
        let said = doc.take::<String>(table, key)?;
        let is_text = !said.value.is_empty() && said.value.len() <= CGSE_TEXT && said.value.chars().all(|c| c.is_ascii_graphic());
        if !is_text {
            doc.error(said.line, table.key(key), format!("this is 1 to {CGSE_TEXT} printable ASCII characters without blanks"));
        }
        Some(said.value).filter(|_| is_text)
    };
    let service_type = text("service_type").unwrap_or_else(|| CGSE_SERVICE_TYPE.to_owned());
    let advertise_host = text("advertise_host");
    let ttl = match doc.take::<u64>(table, "ttl") {
        Some(said) if !CGSE_TTL_SECONDS.contains(&said.value) => {
            let (least, most) = (CGSE_TTL_SECONDS.start(), CGSE_TTL_SECONDS.end());
            doc.error(said.line, table.key("ttl"), format!("{} is not from {least} to {most} seconds", said.value));
            CGSE_TTL
        }
        Some(said) => said.value,
        None => CGSE_TTL,
    };
    let control_server = control_server(doc, table, control, insecure);
    let doors = control.endpoints.iter().chain(control.guarded.iter().map(|guarded| &guarded.endpoint));
    if control_server.is_none() && !doors.into_iter().any(|endpoint| matches!(endpoint, Endpoint::Tcp { .. })) {
        let message = "CGSE finds services by host and port, and there is none: leave device_endpoint and service_endpoint out, or say a TCP endpoint in \
                       control.endpoints, too, such as \"tcp://127.0.0.1:6150\"";
        doc.error(table.line, table.path.clone(), message);
    }
    Cgse { registry, heartbeat, service_type, advertise_host, ttl, control_server, notify_hub, metrics_hub, metrics_interval }
}

/// The two doors that a control server of CGSE has. They have no keys, which its clients know nothing of.
fn control_server<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>, control: &Control, insecure: bool) -> Option<ControlServer> {
    let has_curve = control.secret_key_file.is_some();
    let said_role = doc.take::<String>(table, "role");
    let role = match &said_role {
        None if has_curve => Role::Read,
        None => Role::Admin,
        Some(said) => Role::of(&said.value).unwrap_or_else(|| {
            let message = format!("{:?} is no role; say \"read\", \"operate\" or \"admin\"", said.value);
            doc.error(said.line, table.key("role"), message);
            Role::Read
        }),
    };
    let by_local_users = match role {
        Role::Read => "can look",
        Role::Operate => "can start and end sub-processes",
        Role::Admin => "can command the daemon",
    };
    let mut is_said = false;
    let mut door = |key: &'static str| {
        let said = doc.take::<String>(table, key);
        is_said |= said.is_some();
        let Some(said) = said else { return Endpoint::any_port_of_loopback().into() };
        if said.value.is_empty() {
            return None;
        }
        match said.value.parse::<Endpoint>() {
            Ok(endpoint @ Endpoint::Tcp { .. }) => {
                let key = if key == "device_endpoint" { "cgse.device_endpoint" } else { "cgse.service_endpoint" };
                let door = Door { key, needed: None, by_local_users, by_network: "use this with its role" };
                // Keys do not help here.
                door.guard(doc, &endpoint, said.line, insecure, role == Role::Read && endpoint.is_local());
                Some(endpoint)
            }
            Ok(Endpoint::Ipc(_)) => {
                doc.error(said.line, table.key(key), "CGSE finds services by host and port: say a TCP endpoint, \"tcp://127.0.0.1:*\"");
                Some(Endpoint::any_port_of_loopback())
            }
            Err(error) => {
                doc.error(said.line, table.key(key), error.to_string());
                Some(Endpoint::any_port_of_loopback())
            }
        }
    };
    match (door("device_endpoint"), door("service_endpoint")) {
        (Some(device), Some(service)) => {
            if !is_said && role > Role::Read {
                let message = format!(
                    "every user of this host {by_local_users} by CGSE's own protocol at two ports of the loopback interface; role = \"read\" lets it \
                     look alone, device_endpoint = service_endpoint = \"\" opens none"
                );
                doc.warning(table.line, table.path.clone(), message);
            }
            if device.collides_with(&service)
                || [&device, &service].iter().any(|door| control.endpoints.iter().any(|other| door.collides_with(other)))
            {
                doc.error(table.line, table.key("service_endpoint"), "each door needs an endpoint of its own");
            }
            Some(ControlServer { device, service, role })
        }
        (None, None) => None,
        (Some(door), None) | (None, Some(door)) => {
            doc.error(table.line, table.path.clone(), "CGSE's clients need both device_endpoint and service_endpoint, or neither");
            Some(ControlServer { device: door.clone(), service: door, role })
        }
    }
}

/// Whether this is `tcp://HOST:PORT`.
fn is_tcp_peer(text: &str) -> bool {
    let Some((host, port)) = text.strip_prefix("tcp://").and_then(|address| address.rsplit_once(':')) else { return false };
    !host.is_empty()
        && host.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ';' | '*'))
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The line of the table's header, or of the file where it has none: where to complain about a default.
fn line_of(table: Option<&Table<'_>>) -> usize {
    table.map_or(1, |table| table.line)
}

fn directory<'t>(doc: &mut Document<'t, '_>, table: Option<&mut Table<'t>>, key: &str, default: Option<&Path>) -> (PathBuf, usize) {
    let line = line_of(table.as_deref());
    let path = format!("daemon.{key}");
    if let Some(table) = table {
        match doc.take_value(table, key) {
            None => {}
            Some((path, line, value)) => {
                if let Some(said) = doc.read::<PathBuf>(value, &path) {
                    match doc.absolute(&said.value) {
                        Ok(dir) => return (dir, line),
                        Err(why) => doc.error(line, path, why),
                    }
                }
                return (default.map(Path::to_owned).unwrap_or_else(|| "/".into()), line);
            }
        }
    }
    match default {
        Some(default) => (default.to_owned(), line),
        None => {
            doc.error(line, path, "you have no home directory to put it in by default; say which directory to use");
            ("/".into(), line)
        }
    }
}

fn cgroup<'t>(doc: &mut Document<'t, '_>, daemon: &mut Table<'t>) -> Cgroup {
    let Some(said) = doc.take::<String>(daemon, "cgroup") else { return Cgroup::Auto };
    match said.value.as_str() {
        "auto" => Cgroup::Auto,
        "off" => Cgroup::Off,
        path if path.starts_with('/') && !path.contains('\0') => Cgroup::At(path.into()),
        _ => {
            let message = "say \"auto\", \"off\", or the absolute path of a group's directory, such as \"/sys/fs/cgroup/procman\"";
            doc.error(said.line, daemon.key("cgroup"), message);
            Cgroup::Auto
        }
    }
}

fn include<'t>(doc: &mut Document<'t, '_>, daemon: &mut Table<'t>) -> Vec<Said<String>> {
    let mut patterns = doc.take_list::<String>(daemon, "include").map(|list| list.value).unwrap_or_default();
    patterns.retain(|pattern| match glob::Pattern::new(&pattern.value) {
        _ if pattern.value.is_empty() || pattern.value.contains('\0') => {
            doc.error(pattern.line, daemon.key("include"), "this is no path");
            false
        }
        Ok(_) => true,
        Err(error) => {
            doc.error(pattern.line, daemon.key("include"), format!("{:?} is no pattern: {}", pattern.value, error.msg));
            false
        }
    });
    patterns
}

/// What `[control]` says, for itself and for others.
struct Read {
    control: Control,
    socket_groups: Vec<(String, &'static str, usize)>,
    secret_key_line: Option<usize>,
    /// TCP endpoints may be open to the network.
    insecure: bool,
}

fn read_control<'t>(doc: &mut Document<'t, '_>, table: Option<&mut Table<'t>>, runtime_dir: &Path, runtime_dir_line: usize) -> Read {
    let mut insecure = false;
    let mut control = Control {
        endpoints: Vec::new(),
        guarded: Vec::new(),
        max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
        socket_mode: SOCKET_MODE,
        socket_group: None,
        secret_key_file: None,
        access: Access::default(),
        allow_programs: None,
    };
    let line = line_of(table.as_deref());
    let mut socket_groups = Vec::new();
    let mut read = ReadAccess::default();
    let mut said_endpoints = None;
    let mut has_endpoints = false;
    if let Some(table) = table {
        insecure = doc.take(table, "allow_insecure_tcp").is_some_and(|said| said.value);
        if let Some(said) = doc.take::<i64>(table, "max_request_bytes") {
            match usize::try_from(said.value).ok().filter(|bytes| REQUEST_BYTES.contains(bytes)) {
                Some(bytes) => control.max_request_bytes = bytes,
                None => doc.error(
                    said.line,
                    table.key("max_request_bytes"),
                    format!("{} is out of range: {} to {} bytes", said.value, REQUEST_BYTES.start(), REQUEST_BYTES.end()),
                ),
            }
        }
        if let Some(mode) = socket_mode(doc, table, true) {
            control.socket_mode = mode;
        }
        if let Some(said) = socket_group(doc, table) {
            socket_groups.push((said.value.clone(), "control.socket_group", said.line));
            control.socket_group = Some(said.value);
        }
        if let Some(said) = doc.take_list::<String>(table, "allow_programs") {
            match Programs::of(said.value.iter().map(|pattern| pattern.value.as_str())) {
                Ok(programs) => control.allow_programs = Some(programs),
                Err(error) => doc.error(said.line, table.key("allow_programs"), error.to_string()),
            }
        }
        read = access::read(doc, table, insecure);
        has_endpoints = table.has("endpoints");
        said_endpoints = doc.take_list::<String>(table, "endpoints");
    }
    let ReadAccess { guarded, guarded_groups, secret_key_file, has_curve, clients } = read;
    if let Some(said) = said_endpoints {
        let door = Door { needed: Door::CONTROL.needed.filter(|_| guarded.is_empty()), ..Door::CONTROL };
        control.endpoints = endpoints(doc, &said, &door, insecure, has_curve);
    } else if !has_endpoints {
        match Endpoint::ipc(runtime_dir.join(CONTROL_SOCKET)) {
            Ok(endpoint) => control.endpoints = vec![endpoint],
            Err(error) => doc.error(
                runtime_dir_line,
                "control.endpoints".into(),
                format!("by default it is in the runtime directory, but {error}; say another daemon.runtime_dir or control.endpoints"),
            ),
        }
    }
    let mut taken = control.endpoints.clone();
    for guarded in &guarded {
        if taken.iter().any(|other| guarded.endpoint.collides_with(other)) {
            let message = format!("{} is said twice; each door needs an endpoint of its own", guarded.endpoint);
            doc.error(line, "control.endpoint".to_owned(), message);
        }
        taken.push(guarded.endpoint.clone());
    }
    if has_curve && clients.is_empty() {
        let message = "no [[control.client]] is known, so nobody gets in by TCP; `procmand keygen` makes a pair for one";
        doc.warning(line, "control.curve".to_owned(), message);
    }
    socket_groups.extend(guarded_groups.into_iter().map(|(group, line)| (group, "control.endpoint.socket_group", line)));
    let (secret_key_file, secret_key_line) = secret_key_file.unzip();
    control = Control { guarded, secret_key_file, access: Access { server: None, clients }, ..control };
    Read { control, socket_groups, secret_key_line, insecure }
}

fn socket_group<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>) -> Option<Said<String>> {
    let said = doc.take::<String>(table, "socket_group")?;
    if !said.value.is_empty() && !said.value.contains('\0') {
        return Some(said);
    }
    doc.error(said.line, table.key("socket_group"), "this is no group's name; leave the key out to keep the daemon's own group");
    None
}

/// Where events are published. The default gives way where it cannot be: events are a convenience, and the commands are there all the same.
fn read_events<'t>(
    doc: &mut Document<'t, '_>,
    mut table: Option<&mut Table<'t>>,
    runtime_dir: &Path,
    control: &Control,
    insecure: bool,
    socket_groups: &mut Vec<(String, &'static str, usize)>,
) -> Events {
    let has_curve = control.secret_key_file.is_some();
    let doors: Vec<_> = control.endpoints.iter().chain(control.guarded.iter().map(|guarded| &guarded.endpoint)).cloned().collect();
    let mut mode_and_group = (control.socket_mode, control.socket_group.clone());
    if let Some(table) = table.as_mut() {
        mode_and_group.0 = socket_mode(doc, table, false).unwrap_or(mode_and_group.0);
        if let Some(said) = socket_group(doc, table) {
            socket_groups.push((said.value.clone(), "events.socket_group", said.line));
            mode_and_group.1 = Some(said.value);
        }
    }
    let (socket_mode, socket_group) = mode_and_group;
    let at = |endpoints: Vec<Endpoint>| Events { endpoints, socket_mode, socket_group: socket_group.clone() };
    let key = || "events.endpoints".to_owned();
    let line = line_of(table.as_deref());
    let has_endpoints = table.as_ref().is_some_and(|table| table.has("endpoints"));
    if let Some(said) = table.as_mut().and_then(|table| doc.take_list::<String>(table, "endpoints")) {
        let endpoints = endpoints(doc, &said, &Door::EVENTS, insecure, has_curve);
        for endpoint in endpoints.iter().filter(|endpoint| doors.iter().any(|other| endpoint.collides_with(other))) {
            doc.error(said.line, key(), format!("{endpoint} is one of control.endpoints already; each door needs an endpoint of its own"));
        }
        return at(endpoints);
    }
    let none = at(Vec::new());
    if has_endpoints {
        return none; // and the reason was told
    }
    match Endpoint::ipc(runtime_dir.join(EVENTS_SOCKET)) {
        Ok(endpoint) if doors.contains(&endpoint) => {
            doc.error(
                line,
                key(),
                format!("by default it is {endpoint}, which is one of control.endpoints; say another one, or [] for none"),
            );
            none
        }
        Ok(endpoint) => at(vec![endpoint]),
        Err(error) => {
            // Where the control socket could not be there either, that was told.
            if !doors.is_empty() {
                doc.warning(line, key(), format!("events are not published: by default that is in the runtime directory, but {error}"));
            }
            none
        }
    }
}

/// What the checks of endpoints say of one kind of them.
pub(super) struct Door {
    pub(super) key: &'static str,
    /// Why the list must not be empty, where it must not.
    pub(super) needed: Option<&'static str>,
    /// What every user of this host can do at a loopback endpoint.
    pub(super) by_local_users: &'static str,
    /// What whoever reaches it over the network can and may do.
    pub(super) by_network: &'static str,
}

impl Door {
    const CONTROL: Self = Self {
        key: "control.endpoints",
        needed: Some("without an endpoint nobody could command the daemon; leave the key out for the default one"),
        by_local_users: "can command the daemon",
        by_network: "run any program as the daemon's user",
    };
    const EVENTS: Self =
        Self { key: "events.endpoints", needed: None, by_local_users: "can read what happens", by_network: "read what happens" };

    /// Says what is wrong with a TCP endpoint without keys.
    pub(super) fn guard(&self, doc: &mut Document<'_, '_>, endpoint: &Endpoint, line: usize, insecure: bool, has_curve: bool) {
        let key = self.key.to_owned();
        if has_curve {
        } else if endpoint.is_local() {
            let message = format!(
                "every user of this host {} at {endpoint}; an ipc endpoint has permissions, and [control.curve] has keys",
                self.by_local_users
            );
            doc.warning(line, key, message);
        } else if insecure {
            doc.warning(line, key, format!("whoever reaches {endpoint} over the network can {}", self.by_network));
        } else {
            let message = format!(
                "{endpoint} is open to the network, unencrypted and without authentication: say [control.curve] (`procmand keygen` makes the keys), or \
                 listen on 127.0.0.1 and go through an SSH tunnel, or say `control.allow_insecure_tcp = true` if whoever reaches it may {}",
                self.by_network
            );
            doc.error(line, key, message);
        }
    }
}

fn endpoints(doc: &mut Document<'_, '_>, said: &Said<Vec<Said<String>>>, door: &Door, insecure: bool, has_curve: bool) -> Vec<Endpoint> {
    let key = || door.key.to_owned();
    if let Some(needed) = door.needed
        && said.value.is_empty()
    {
        doc.error(said.line, key(), needed);
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for Said { value, line } in &said.value {
        let endpoint = match endpoint(doc, value) {
            Ok(endpoint) => endpoint,
            Err(message) => {
                doc.error(*line, key(), message);
                continue;
            }
        };
        if endpoints.iter().any(|other| endpoint.collides_with(other)) {
            doc.error(*line, key(), format!("{endpoint} is said twice"));
            continue;
        }
        if let Endpoint::Tcp { .. } = endpoint {
            door.guard(doc, &endpoint, *line, insecure, has_curve);
        }
        endpoints.push(endpoint);
    }
    endpoints
}

/// A path that begins with a dot is relative to the file like every other; for one that begins with a name a slash was more likely forgotten.
pub(super) fn endpoint(doc: &Document<'_, '_>, text: &str) -> Result<Endpoint, String> {
    match text.strip_prefix("ipc://") {
        Some(path) if path.starts_with("./") || path.starts_with("../") => {
            let path = doc.absolute(Path::new(path))?;
            Endpoint::ipc(path).map_err(|error| error.to_string())
        }
        _ => text.parse().map_err(|error: super::InvalidEndpoint| error.to_string()),
    }
}

/// Permission bits are octal for everybody, and TOML has octal integers: a decimal 660 would silently be 0o1224, 400 would be 0o620. With `commands`, whoever
/// may use the socket changes something.
pub(super) fn socket_mode<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>, commands: bool) -> Option<u32> {
    let (path, line, value) = doc.take_value(table, "socket_mode")?;
    let octal = value.get_ref().as_integer().filter(|number| number.radix() == 8);
    let mode = octal.and_then(|number| u32::from_str_radix(number.as_str(), 8).ok()).filter(|mode| *mode <= 0o777);
    match mode {
        None => doc.error(line, path, "write the permissions as an octal number from 0o000 to 0o777, such as 0o660"),
        Some(mode) if commands && mode & 0o002 != 0 => {
            doc.warning(line, path, format!("with {mode:#05o} every user of this host can command the daemon"));
        }
        Some(_) => {}
    }
    mode
}

fn read_metrics<'t>(doc: &mut Document<'t, '_>, table: Option<&mut Table<'t>>) -> Metrics {
    let mut metrics = Metrics { listen: Some(METRICS_LISTEN), refresh_interval: Duration::from_secs(1), prefix: String::new() };
    let Some(table) = table else { return metrics };
    if let Some(said) = doc.take::<String>(table, "listen") {
        match said.value.parse::<SocketAddr>() {
            Ok(address) => metrics.listen = Some(address),
            Err(_) if said.value.is_empty() => metrics.listen = None,
            Err(_) => doc.error(
                said.line,
                table.key("listen"),
                "say an IP address and a port: \"127.0.0.1:9469\", \"0.0.0.0:9469\" for every IPv4 address, \"[::1]:9469\", or \"\" for no metrics",
            ),
        }
    }
    if let Some(interval) = seconds(doc, table, "refresh_interval", REFRESH_SECONDS) {
        metrics.refresh_interval = interval;
    }
    if let Some(said) = doc.take::<String>(table, "prefix") {
        if is_prefix(&said.value) {
            metrics.prefix = said.value;
        } else {
            doc.error(said.line, table.key("prefix"), "a prefix is letters, digits, `_` and `:`, and does not begin with a digit");
        }
    }
    metrics
}

/// A time within these bounds.
fn seconds<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>, key: &str, bounds: std::ops::RangeInclusive<f64>) -> Option<Duration> {
    let said = doc.take::<Seconds>(table, key)?;
    if bounds.contains(&said.value.get()) {
        return Some(said.value.duration());
    }
    let message = format!("{} is out of range: {} to {} seconds", said.value.get(), bounds.start(), bounds.end());
    doc.error(said.line, table.key(key), message);
    None
}

/// Whether this may begin the name of a metric (`[a-zA-Z_:][a-zA-Z0-9_:]*`, "Data model" in Prometheus' documentation), or is empty.
fn is_prefix(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
        && !text.starts_with(|c: char| c.is_ascii_digit())
}
