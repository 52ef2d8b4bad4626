//! The words of the registry of CGSE 0.25: JSON over ZeroMQ, as its own client and server exchange them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The first frame of a request that is answered.
pub const REQUEST: &[u8] = b"REQ";
/// The first frame of its answer.
pub const RESPONSE: &[u8] = b"RESPONSE";

/// What is registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// What people call it.
    pub name: String,
    /// The host that clients connect to.
    pub host: String,
    /// The port that clients connect to.
    pub port: u16,
    /// Its type, which is unique.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Further ports. Never null: that is not answered.
    pub metadata: Map<String, Value>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Its id; registered again under the same one, the entry is updated in place.
    pub id: String,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action<'a> {
    /// Enter this, for so many seconds.
    Register {
        /// What.
        service_info: &'a ServiceInfo,
        /// For how many seconds without a sign of life.
        ttl: u64,
    },
    /// It lives.
    Renew {
        /// Who.
        service_id: &'a str,
    },
    /// It is no more.
    Deregister {
        /// Who.
        service_id: &'a str,
    },
    /// Who is entered with this type?
    List {
        /// Which; `None` is any.
        service_type: Option<&'a str>,
    },
    /// What is entered under this id?
    Get {
        /// Whose.
        service_id: &'a str,
    },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Answer {
    /// It was done.
    pub success: bool,
    /// Why not, in a word or a sentence.
    #[serde(default)]
    pub error: Option<String>,
    /// The same for people, where `error` is a word.
    #[serde(default)]
    pub message: Option<String>,
    /// Of `register`.
    #[serde(default)]
    pub service_id: Option<String>,
    /// Of `register` that was refused: who has the type.
    #[serde(default)]
    pub existing_service_id: Option<String>,
    /// Of `get`.
    #[serde(default)]
    pub service: Option<Entry>,
    /// Of `list`.
    #[serde(default)]
    pub services: Vec<Entry>,
}

/// What is entered.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// The host that clients connect to.
    pub host: String,
    /// The port; some services register it as a text.
    pub port: Value,
    /// `passing`, or `critical` where no sign of life has come for a while.
    #[serde(default)]
    pub health: Option<String>,
    /// For how many seconds it counts without a sign of life.
    #[serde(default)]
    pub ttl: Value,
    /// Words to find it by; its type is one of them.
    #[serde(default)]
    pub tags: Value,
    /// What else its service says; its type is there, too.
    #[serde(default)]
    pub metadata: Value,
}

impl Entry {
    /// Where a control server takes commands to itself.
    pub fn service_port(&self) -> Option<u16> {
        port(self.metadata.get("service_port")?)
    }

    /// Whether it is that of somebody who was where this one is.
    pub fn is_in_place_of(&self, info: &ServiceInfo) -> bool {
        self.host == info.host && self.port() == Some(info.port)
    }

    /// Whether it is of this type, as the registry itself tells it when it is asked for one.
    pub fn is_of(&self, service_type: &str) -> bool {
        let tagged = self.tags.as_array().is_some_and(|tags| tags.iter().any(|tag| tag.as_str() == Some(service_type)));
        tagged || self.metadata.get("type").and_then(Value::as_str) == Some(service_type)
    }

    /// Whether signs of life come in time.
    pub fn is_passing(&self) -> bool {
        self.health.as_deref() == Some("passing")
    }

    /// Its port, where it is one.
    pub fn port(&self) -> Option<u16> {
        port(&self.port)
    }
}

/// A port, which may be a text.
fn port(value: &Value) -> Option<u16> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).and_then(|port| port.try_into().ok())
}

impl Answer {
    /// Why it was not done, for people.
    pub fn refusal(&self) -> String {
        let words = [self.message.as_deref(), self.error.as_deref()];
        words.into_iter().flatten().next().unwrap_or("it does not say why").chars().filter(|c| !c.is_control()).take(200).collect()
    }
}

/// A request in JSON.
pub fn encode(action: &Action<'_>) -> Vec<u8> {
    // Texts and numbers always encode.
    serde_json::to_vec(action).unwrap_or_default()
}

/// An answer, or what is wrong with it.
///
/// # Errors
/// It is not what the registry answers.
pub fn decode(body: &[u8]) -> Result<Answer, String> {
    serde_json::from_slice(body).map_err(|error| format!("what it answers is not the registry's: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> ServiceInfo {
        ServiceInfo {
            name: "procman".into(),
            host: "127.0.0.1".into(),
            port: 6140,
            service_type: "PROCMAN".into(),
            metadata: Map::from_iter([("service_port".to_owned(), 6142.into())]),
            tags: vec!["PROCMAN".into()],
            id: "procman-1".into(),
        }
    }

    #[test]
    fn requests_are_as_its_own_client_writes_them() {
        let said = |action: &Action<'_>| serde_json::from_slice::<Value>(&encode(action)).unwrap();
        assert_eq!(
            said(&Action::Register { service_info: &info(), ttl: 30 }),
            serde_json::json!({"action": "register", "ttl": 30, "service_info": {"name": "procman", "host": "127.0.0.1", "port": 6140,
                "type": "PROCMAN", "metadata": {"service_port": 6142}, "tags": ["PROCMAN"], "id": "procman-1"}})
        );
        assert_eq!(said(&Action::List { service_type: Some("A") }), serde_json::json!({"action": "list", "service_type": "A"}));
        assert_eq!(said(&Action::List { service_type: None }), serde_json::json!({"action": "list", "service_type": null}));
        assert_eq!(said(&Action::Renew { service_id: "x" }), serde_json::json!({"action": "renew", "service_id": "x"}));
        assert_eq!(said(&Action::Deregister { service_id: "x" }), serde_json::json!({"action": "deregister", "service_id": "x"}));
    }

    #[test]
    fn answers_are_read_as_they_were_recorded() {
        let done = decode(br#"{"success": true, "service_id": "procman-f4", "message": "Service registered successfully"}"#).unwrap();
        assert_eq!((done.success, done.service_id.as_deref()), (true, Some("procman-f4")));
        let refused = decode(
            br#"{"success": false, "error": "duplicate_service_type", "message": "Service type 'PROCMAN' is already registered by service_id 'p-1'.", "service_type": "PROCMAN", "existing_service_id": "p-1"}"#,
        );
        let refused = refused.unwrap();
        assert_eq!((refused.success, refused.existing_service_id.as_deref()), (false, Some("p-1")));
        assert!(refused.refusal().contains("already registered"));
        let found = decode(br#"{"success": true, "service": {"id": "p", "name": "procman", "host": "127.0.0.1", "port": "6140", "metadata": {"type": "PROCMAN"}, "ttl": 30, "last_heartbeat": 1, "tags": [], "health": "critical"}}"#);
        assert!(found.unwrap().service.unwrap().is_in_place_of(&info()), "a port may be a text");
        for garbage in [&b""[..], b"[]", b"{}", b"\xff", b"{\"success\": 1}"] {
            assert!(decode(garbage).is_err());
        }
    }
}
