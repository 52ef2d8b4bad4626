//! Who gets in: `[control.curve]`, `[[control.client]]` and `[[control.endpoint]]`.

use std::path::PathBuf;

use super::document::{Document, Said, Table};
use super::endpoint::Endpoint;
use super::settings::{Door, MOST_NAME, endpoint, socket_mode};
use crate::access::{Client, Clients, PublicKey, Role, Scope};

/// The keys of `[control.curve]`.
pub(super) const CURVE_KEYS: &[&str] = &["secret_key_file"];
/// The keys of `[[control.client]]`.
pub(super) const CLIENT_KEYS: &[&str] = &["name", "public_key", "role", "allow"];
/// The keys of `[[control.endpoint]]`.
pub(super) const ENDPOINT_KEYS: &[&str] = &["endpoint", "role", "allow", "socket_mode", "socket_group"];

/// One of `[[control.endpoint]]`: a door for those who may not do everything.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardedEndpoint {
    /// Where.
    pub endpoint: Endpoint,
    /// The most that may be done there.
    pub role: Role,
    /// To which sub-processes.
    pub scope: Scope,
    /// Permission bits of an ipc socket; `None` is `control.socket_mode`.
    pub socket_mode: Option<u32>,
    /// Group of an ipc socket; `None` is `control.socket_group`.
    pub socket_group: Option<String>,
}

/// What these tables say.
#[derive(Debug, Default)]
pub(super) struct ReadAccess {
    pub(super) guarded: Vec<GuardedEndpoint>,
    /// The lines of their groups, which are looked up only by who may touch the system.
    pub(super) guarded_groups: Vec<(String, usize)>,
    /// `control.curve.secret_key_file`, and its line; read only by who may touch the system.
    pub(super) secret_key_file: Option<(PathBuf, usize)>,
    /// Whether TCP is under CURVE, also where its file was not said as it should.
    pub(super) has_curve: bool,
    pub(super) clients: Clients,
}

/// Takes the three out of `[control]`.
pub(super) fn read<'t>(doc: &mut Document<'t, '_>, control: &mut Table<'t>, insecure: bool) -> ReadAccess {
    let mut read = ReadAccess::default();
    if let Some(mut curve) = doc.take_table(control, "curve") {
        doc.check_keys(&curve, CURVE_KEYS, &[]);
        read.has_curve = true;
        read.secret_key_file = secret_key_file(doc, &mut curve);
    }
    let clients = doc.take_tables(control, "client");
    if let (Some(first), false) = (clients.first(), read.has_curve) {
        doc.error(first.line, first.path.clone(), "clients are known by their keys, which takes CURVE: say [control.curve], too");
    }
    read.clients = read_clients(doc, clients);
    for table in doc.take_tables(control, "endpoint") {
        read_guarded(doc, table, insecure, &mut read);
    }
    read
}

fn secret_key_file<'t>(doc: &mut Document<'t, '_>, curve: &mut Table<'t>) -> Option<(PathBuf, usize)> {
    let Some(said) = doc.take::<PathBuf>(curve, "secret_key_file") else {
        if !curve.has("secret_key_file") {
            let message = "say where the daemon's secret key is: secret_key_file = \"server.secret\"; `procmand keygen server` makes it";
            doc.error(curve.line, curve.key("secret_key_file"), message);
        }
        return None;
    };
    match doc.absolute(&said.value) {
        Ok(path) => Some((path, said.line)),
        Err(why) => {
            doc.error(said.line, curve.key("secret_key_file"), why);
            None
        }
    }
}

fn read_clients<'t>(doc: &mut Document<'t, '_>, tables: Vec<Table<'t>>) -> Clients {
    let mut clients: Vec<Client> = Vec::new();
    for mut table in tables {
        doc.check_keys(&table, CLIENT_KEYS, &[]);
        let name = needed(doc, &mut table, "name", "\"operator\"", |text| {
            let is_name = !text.is_empty() && text.len() <= MOST_NAME && text.chars().all(|c| c.is_ascii_graphic());
            is_name
                .then(|| text.to_owned())
                .ok_or_else(|| format!("a client's name is 1 to {MOST_NAME} printable ASCII characters without blanks"))
        });
        let public_key = needed(doc, &mut table, "public_key", "the text of the client's .public file", |text| {
            text.parse::<PublicKey>().map_err(|error| error.to_string())
        });
        let role = needed(doc, &mut table, "role", "\"read\", \"operate\" or \"admin\"", role);
        let scope = scope(doc, &mut table);
        let (Some((name, line)), Some((public_key, key_line)), Some((role, _)), Some(scope)) = (name, public_key, role, scope) else {
            continue;
        };
        if clients.iter().any(|other| *other.name == *name) {
            doc.error(line, table.key("name"), format!("there is a client {name:?} already"));
        } else if let Some(other) = clients.iter().find(|other| other.public_key == public_key) {
            doc.error(
                key_line,
                table.key("public_key"),
                format!("this is the key of {:?}, too: each client has a key of its own", other.name),
            );
        } else {
            clients.push(Client { name: name.into(), public_key, role, scope });
        }
    }
    Clients::of(clients)
}

fn read_guarded<'t>(doc: &mut Document<'t, '_>, mut table: Table<'t>, insecure: bool, read: &mut ReadAccess) {
    doc.check_keys(&table, ENDPOINT_KEYS, &[]);
    let where_ = doc.take::<String>(&mut table, "endpoint");
    if where_.is_none() && !table.has("endpoint") {
        doc.error(table.line, table.key("endpoint"), "say where: endpoint = \"ipc:///run/procman/read.sock\"");
    }
    let role = needed(doc, &mut table, "role", "\"read\", \"operate\" or \"admin\"", role);
    let scope = scope(doc, &mut table);
    let mode_line = table.has("socket_mode");
    let socket_mode = socket_mode(doc, &mut table, role.is_none_or(|(role, _)| role > Role::Read));
    let group = doc.take::<String>(&mut table, "socket_group");
    let Some(Said { value, line }) = where_ else { return };
    let endpoint = match endpoint(doc, &value) {
        Ok(endpoint) => endpoint,
        Err(message) => return doc.error(line, table.key("endpoint"), message),
    };
    if matches!(endpoint, Endpoint::Tcp { .. }) {
        if mode_line || group.is_some() {
            doc.error(line, table.key("endpoint"), "socket_mode and socket_group are about Unix sockets, which TCP has not");
        }
        let door =
            Door { key: "control.endpoint.endpoint", needed: None, by_local_users: "can use this", by_network: "use this with its role" };
        door.guard(doc, &endpoint, line, insecure, read.has_curve);
    }
    let (Some((role, _)), Some(scope)) = (role, scope) else { return };
    read.guarded_groups.extend(group.as_ref().map(|group| (group.value.clone(), group.line)));
    read.guarded.push(GuardedEndpoint { endpoint, role, scope, socket_mode, socket_group: group.map(|group| group.value) });
}

fn role(text: &str) -> Result<Role, String> {
    Role::of(text).ok_or_else(|| format!("{text:?} is no role; say \"read\", \"operate\" or \"admin\""))
}

/// `allow`; everything where it is not said, `None` where it is not said as it should.
fn scope<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>) -> Option<Scope> {
    if !table.has("allow") {
        return Some(Scope::ALL);
    }
    let said = doc.take_list::<String>(table, "allow")?;
    if said.value.is_empty() {
        doc.error(
            said.line,
            table.key("allow"),
            "this would allow nothing; leave it out for everything, or say patterns: [\"device-*\", \"group:core\"]",
        );
        return None;
    }
    match Scope::of(said.value.iter().map(|pattern| pattern.value.as_str())) {
        Ok(scope) => Some(scope),
        Err(error) => {
            doc.error(said.line, table.key("allow"), error.to_string());
            None
        }
    }
}

/// A text that must be said, made something of, and its line.
fn needed<'t, T>(
    doc: &mut Document<'t, '_>,
    table: &mut Table<'t>,
    key: &str,
    such: &str,
    make: impl Fn(&str) -> Result<T, String>,
) -> Option<(T, usize)> {
    if !table.has(key) {
        doc.error(table.line, table.key(key), format!("this is missing: {key} = {such}"));
        return None;
    }
    let said = doc.take::<String>(table, key)?;
    make(&said.value).map(|made| (made, said.line)).map_err(|message| doc.error(said.line, table.key(key), message)).ok()
}
