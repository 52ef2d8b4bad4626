//! How requests and replies are framed at an endpoint: as this protocol has it, or as CGSE's control servers do (`egse.async_control` of CGSE 0.25), whose
//! clients then need no MessagePack. What is asked, and by whom it may be, is the same at both: the second is translated to the first, and back.
//!
//! A request of a control server's client is three frames behind the routing id: a sequence number, a type, and the body. Types are a text, which is the
//! name of a command, and JSON, an object with `command` and its arguments. A third type of CGSE's is a pickled object: it is never read here, nor sent.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::protocol::{CommandName, ErrorCode};

use super::json::read_object;

/// What is said at an endpoint.
#[derive(Clone, Debug, Default)]
pub enum Dialect {
    /// MessagePack behind an empty delimiter.
    #[default]
    Procman,
    /// JSON, as a control server of CGSE.
    ControlServer {
        /// Its type in the registry.
        service_type: Arc<str>,
    },
}

/// A request, apart from its envelope.
#[derive(Debug)]
pub(super) struct Said {
    /// How its reply is to look.
    pub(super) shape: Shape,
    /// MessagePack, or what is wrong with it, for people.
    pub(super) body: Result<Vec<u8>, String>,
}

/// How a reply is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it is.
    Procman,
    /// As that of a control server to this command.
    ControlServer(Asked),
}

/// Commands whose answers clients of CGSE know in a form of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Ping,
    Info,
    Terminate,
    Other,
}

const STRING: &[u8] = b"MESSAGE_TYPE:STRING";
const JSON: &[u8] = b"MESSAGE_TYPE:JSON";
/// What CGSE's clients say to have a server leave.
const TERMINATE: &str = "terminate";
/// What the daemon is called among CGSE's services.
pub const NAME: &str = "procman";
/// The longest sequence number that is repeated.
pub(super) const MAX_SEQUENCE: usize = 64;

/// Reads the frames behind routing id and sequence number.
pub(super) fn read(frames: &[&[u8]], max_bytes: usize) -> Said {
    let wrong = |what: String| Said { shape: Shape::ControlServer(Asked::Other), body: Err(what) };
    let [kind, data] = frames else {
        return wrong(format!(
            "{} frames: a request is a sequence number, MESSAGE_TYPE:STRING or MESSAGE_TYPE:JSON, and the body",
            frames.len() + 1
        ));
    };
    if data.len() > max_bytes {
        return wrong(format!("the request has {} bytes, at most {max_bytes} are taken", data.len()));
    }
    let request = match *kind {
        STRING => std::str::from_utf8(data)
            .map(|word| Map::from_iter([("command".to_owned(), word.into())]))
            .map_err(|_| "the command is not UTF-8".to_owned()),
        JSON => read_object(data),
        other => {
            let shown: String = String::from_utf8_lossy(other).chars().filter(|c| !c.is_control()).take(40).collect();
            Err(format!("a message of the type {shown:?} is not read here: send MESSAGE_TYPE:STRING or MESSAGE_TYPE:JSON"))
        }
    };
    match request.and_then(translate) {
        Ok((asked, body)) => Said { shape: Shape::ControlServer(asked), body: Ok(body) },
        Err(what) => wrong(what),
    }
}

/// The request that these frames of a control server's client hold, type and body, in MessagePack.
///
/// # Errors
/// They hold none; why, for people.
pub fn understood(frames: &[&[u8]]) -> Result<Vec<u8>, String> {
    read(frames, usize::MAX).body
}

/// The same request in MessagePack.
fn translate(mut request: Map<String, Value>) -> Result<(Asked, Vec<u8>), String> {
    // CGSE's clients may say arguments in a map of their own.
    match request.remove("kwargs") {
        None => {}
        Some(Value::Object(arguments)) => {
            for (key, value) in arguments {
                if request.contains_key(&key) {
                    return Err(format!("`{key}` is said twice, beside `kwargs` and in it"));
                }
                request.insert(key, value);
            }
        }
        Some(_) => return Err("`kwargs`: an object is expected".to_owned()),
    }
    let mut asked = Asked::Other;
    if let Some(Value::String(command)) = request.get_mut("command") {
        if command == TERMINATE {
            asked = Asked::Terminate;
            *command = CommandName::Shutdown.to_string();
        } else {
            // Words of CGSE have hyphens where ours have underscores.
            *command = command.replace('-', "_");
            asked = match command.parse() {
                Ok(CommandName::Ping) => Asked::Ping,
                Ok(CommandName::Info) => Asked::Info,
                Ok(_) | Err(_) => Asked::Other,
            };
        }
    }
    let body = rmp_serde::to_vec_named(&Value::Object(request)).map_err(|error| error.to_string())?;
    Ok((asked, body))
}

impl Shape {
    /// The frames of a reply behind its envelope, at an endpoint where this is said.
    pub(super) fn reply(self, reply: Vec<u8>, dialect: &Dialect) -> Vec<Vec<u8>> {
        let (Self::ControlServer(asked), Dialect::ControlServer { service_type }) = (self, dialect) else { return vec![reply] };
        let (kind, body) = answer(asked, &reply, service_type);
        vec![kind.to_vec(), body]
    }
}

/// A reply in MessagePack as a control server would give it.
fn answer(asked: Asked, reply: &[u8], service_type: &str) -> (&'static [u8], Vec<u8>) {
    let mut reply: Map<String, Value> = match rmp_serde::from_slice(reply) {
        Ok(Value::Object(reply)) => reply,
        // Ours are always maps of what JSON has, too; numbers that it has not are null.
        Ok(_) | Err(_) => {
            let message = "the reply could not be put into JSON; this is a fault of the daemon";
            let refusal = json!({"success": false, "message": message, "error": {"code": ErrorCode::Internal, "message": message}});
            return (JSON, refusal.to_string().into_bytes());
        }
    };
    let succeeded = reply.get("success") == Some(&Value::Bool(true));
    if succeeded && asked == Asked::Ping {
        return (STRING, b"pong".to_vec());
    }
    let result = reply.remove("result").unwrap_or_default();
    let message = match asked {
        _ if !succeeded => reply.get("error").and_then(|error| error.get("message")).cloned().unwrap_or_default(),
        Asked::Terminate => json!({"status": "terminating"}),
        Asked::Info => introduced(result, service_type),
        Asked::Ping | Asked::Other => result,
    };
    reply.insert("message".to_owned(), message);
    (JSON, Value::Object(reply).to_string().into_bytes())
}

/// `info` with what every control server of CGSE tells of itself, under the keys that it has there. `hostname` and `uptime` are ours.
fn introduced(mut info: Value, service_type: &str) -> Value {
    let port = |endpoint: &Value| endpoint.as_str()?.strip_prefix("tcp://")?.rsplit_once(':')?.1.parse::<u16>().ok();
    let monitoring = info["events_endpoints"].as_array().into_iter().flatten().find_map(port);
    let commands: Vec<&str> = CommandName::ALL.iter().map(|command| command.as_str()).chain([TERMINATE]).collect();
    let told = [
        ("name", json!(NAME)),
        ("service type", json!(service_type)),
        ("device commanding port", json!(port(&info["cgse_endpoints"][0]))),
        ("service commanding port", json!(port(&info["cgse_endpoints"][1]))),
        ("monitoring port", json!(monitoring)),
        ("device commands", json!(commands)),
        ("service commands", json!(commands)),
    ];
    if let Value::Object(info) = &mut info {
        info.extend(told.map(|(key, value)| (key.to_owned(), value)));
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WireError;
    use crate::protocol::codec::{decode_request, encode_error, encode_result};
    use crate::protocol::envelope::RequestId;
    use proptest::prelude::*;

    fn dialect() -> Dialect {
        Dialect::ControlServer { service_type: "PROCMAN".into() }
    }

    fn said(kind: &[u8], data: &[u8]) -> Result<(Shape, String), String> {
        let Said { shape, body } = read(&[kind, data], 1000);
        Ok((shape, format!("{:?}", decode_request(&body?).map(|request| request.command).map_err(|rejected| rejected.error.message))))
    }

    #[test]
    fn commands_are_read_in_both_forms() {
        let other = Shape::ControlServer(Asked::Other);
        assert_eq!(said(STRING, b"ping").unwrap(), (Shape::ControlServer(Asked::Ping), "Ok(Ping(NoArgs))".into()));
        assert_eq!(said(STRING, b"terminate").unwrap().0, Shape::ControlServer(Asked::Terminate));
        let (shape, command) = said(JSON, br#"{"command": "process-info", "items": ["x"]}"#).unwrap();
        assert!(shape == other && command.starts_with("Ok(ProcessInfo("), "{command}");
        let (_, command) = said(JSON, br#"{"command": "execute", "args": ["-v"], "kwargs": {"name": "web"}}"#).unwrap();
        assert!(command.contains("\"web\"") && command.contains("\"-v\""), "{command}");
        assert!(said(STRING, b"say").unwrap().1.contains("no command"), "{:?}", said(STRING, b"say"));
        assert!(said(JSON, b"{}").unwrap().1.contains("command"));
    }

    #[test]
    fn what_is_no_request_is_told() {
        for (kind, data, words) in [
            (JSON, &b"[]"[..], "an object"),
            (JSON, b"{\"command\": \"ping\", \"command\": \"quit\"}", "said twice"),
            (JSON, b"{\"command\": ", "not JSON"),
            (JSON, &[b'['; 900], "32 levels"),
            (JSON, b"{\"command\": \"ping\", \"kwargs\": [1]}", "an object"),
            (JSON, b"{\"command\": \"quit\", \"name\": \"a\", \"kwargs\": {\"name\": \"b\"}}", "said twice"),
            (JSON, &[b' '; 1001], "at most 1000"),
            (STRING, b"\xff", "UTF-8"),
            (b"MESSAGE_TYPE:ERROR", b"\x80\x04K\x01.", "is not read here"),
            (b"\x00\xff", b"", "is not read here"),
        ] {
            let error = said(kind, data).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(read(&[], 10).body.unwrap_err().contains("1 frames"));
        assert!(read(&[JSON, b"{}", b""], 10).body.unwrap_err().contains("4 frames"));
    }

    #[test]
    fn replies_are_as_clients_of_cgse_know_them() {
        let shape = |asked| Shape::ControlServer(asked);
        let result = encode_result(&json!({"pong": true, "time": 1.5}), None).unwrap();
        assert_eq!(shape(Asked::Ping).reply(result.clone(), &dialect()), [STRING.to_vec(), b"pong".to_vec()]);
        assert_eq!(Shape::Procman.reply(result.clone(), &dialect()).concat(), result);
        let json_of = |frames: Vec<Vec<u8>>| {
            assert_eq!(frames[0], JSON);
            serde_json::from_slice::<Value>(&frames[1]).unwrap()
        };
        assert_eq!(
            json_of(shape(Asked::Other).reply(result.clone(), &dialect())),
            json!({"success": true, "message": {"pong": true, "time": 1.5}})
        );
        assert_eq!(
            json_of(shape(Asked::Terminate).reply(result, &dialect())),
            json!({"success": true, "message": {"status": "terminating"}})
        );
        let id = RequestId::Unsigned(u64::MAX);
        let refusal = encode_error(&WireError::new(ErrorCode::NotFound, "there is none"), Some(&id)).unwrap();
        assert_eq!(
            json_of(shape(Asked::Ping).reply(refusal, &dialect())),
            json!({"success": false, "message": "there is none", "error": {"code": "not_found", "message": "there is none"}, "request_id": u64::MAX})
        );
        let nan = encode_result(&vec![f64::NAN, 1.0], None).unwrap();
        assert_eq!(json_of(shape(Asked::Other).reply(nan, &dialect())), json!({"success": true, "message": [null, 1.0]}));
        assert_eq!(json_of(shape(Asked::Other).reply(vec![0xc1], &dialect()))["success"], false);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_lost_on_the_way(value in values()) {
            let request = json!({"command": "x", "value": value}).to_string();
            let body = read(&[JSON, request.as_bytes()], 1 << 20).body.unwrap();
            let back: Value = rmp_serde::from_slice(&body).unwrap();
            prop_assert_eq!(&back["value"], &value);
            let reply = Shape::ControlServer(Asked::Other).reply(encode_result(&value, None).unwrap(), &dialect());
            prop_assert_eq!(&serde_json::from_slice::<Value>(&reply[1]).unwrap()["message"], &value);
        }

        #[test]
        fn any_frames_are_read_or_refused(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4), json in any::<bool>()) {
            let mut frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            if json && !frames.is_empty() {
                frames[0] = JSON;
            }
            match read(&frames, 30).body {
                // What the codec makes of it is its own affair.
                Ok(body) => prop_assert!(rmp_serde::from_slice::<Value>(&body).is_ok()),
                Err(message) => prop_assert!(!message.is_empty()),
            }
        }
    }
}
