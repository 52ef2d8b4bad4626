//! Bytes to request, reply to bytes, and for clients the other way round.
//!
//! A request is decoded in two passes over the same bytes: the first finds what is common to all (`command`, `request_id`, `version`) and skips the
//! rest, so that even a request with a wrong argument is answered under its `request_id`; the second hands the remaining keys, and nothing else, to
//! the command's own type, which knows no key that is not documented. Nothing is allocated on the word of an announced length.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use rmp_serde::Deserializer as Rmp;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::envelope::{Reply, RequestId};
use super::error::{Detail, ErrorCode, WireError};
use super::event::Event;
use super::names::{CommandName, Name};
use super::request::{Command, Register};
use super::{MAX_DEPTH, VERSION};

/// Keys of a request that are no argument of its command.
const ENVELOPE_KEYS: &[&str] = &["command", "request_id", "client", "version"];
/// The same for `register`, whose other keys are those of the definition.
const REGISTER_KEYS: &[&str] = &["command", "request_id", "client", "version", "name", "replace"];

/// A request that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the client calls it.
    pub request_id: Option<RequestId>,
    /// What it calls itself, across connections.
    pub client: Option<Name>,
    /// What it asks.
    pub command: Command,
}

/// A request that was not understood, with all that is needed to answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// What the client calls it, where that could be read.
    pub request_id: Option<RequestId>,
    /// The command's word, where it is one of ours.
    pub command: Option<CommandName>,
    /// Why.
    pub error: WireError,
}

/// Reads one request frame.
pub fn decode_request(frame: &[u8]) -> Result<Request, Rejected> {
    let envelope: Envelope = match decode(frame, EnvelopeSeed) {
        Ok(envelope) => envelope,
        Err(message) => {
            return Err(Rejected {
                request_id: None,
                command: None,
                error: WireError::bad_request(format!("cannot read the request: {message}")),
            });
        }
    };
    let Envelope { command, request_id, client, version } = envelope;
    let reject = |request_id: &Option<Result<RequestId, String>>, command, error| Rejected {
        request_id: request_id.as_ref().and_then(|id| id.as_ref().ok()).cloned(),
        command,
        error,
    };
    if let Some(Err(message)) = &request_id {
        return Err(reject(&request_id, None, WireError::bad_request(format!("`request_id`: {message}"))));
    }
    if let Some(Err(message)) = &client {
        return Err(reject(&request_id, None, WireError::bad_request(format!("`client`: {message}"))));
    }
    match version {
        None | Some(Ok(VERSION)) => {}
        Some(Ok(other)) => {
            let error =
                WireError::new(ErrorCode::UnsupportedVersion, format!("protocol version {other} is not spoken here, only {VERSION} is"))
                    .with("supported", Detail::List(vec![Detail::Int(VERSION as i64)]));
            return Err(reject(&request_id, None, error));
        }
        Some(Err(message)) => return Err(reject(&request_id, None, WireError::bad_request(format!("`version`: {message}")))),
    }
    let name = match command {
        None => return Err(reject(&request_id, None, WireError::bad_request("missing argument `command`"))),
        Some(Err(message)) => return Err(reject(&request_id, None, WireError::bad_request(format!("`command`: {message}")))),
        Some(Ok(word)) => match word.parse::<CommandName>() {
            Ok(name) => name,
            Err(unknown) => {
                let hint = unknown.nearest.as_ref().map(|n| format!(", did you mean {n:?}?")).unwrap_or_default();
                let mut error = WireError::new(ErrorCode::UnknownCommand, format!("there is no command {:?}{hint}", unknown.word));
                if let Some(nearest) = unknown.nearest {
                    error = error.with("nearest", nearest);
                }
                return Err(reject(&request_id, None, error));
            }
        },
    };
    match decode_command(name, frame) {
        Ok(command) => Ok(Request { request_id: request_id.and_then(Result::ok), client: client.and_then(Result::ok), command }),
        Err(message) => Err(reject(&request_id, Some(name), WireError::bad_request(format!("{name}: {message}")))),
    }
}

/// Reads the arguments of a command whose name is known.
fn decode_command(name: CommandName, frame: &[u8]) -> Result<Command, String> {
    Ok(match name {
        CommandName::Ping => Command::Ping(arguments(frame)?),
        CommandName::Info => Command::Info(arguments(frame)?),
        CommandName::Register => Command::Register(Box::new(decode_register(frame)?)),
        CommandName::Unregister => Command::Unregister(arguments(frame)?),
        CommandName::Execute => Command::Execute(arguments(frame)?),
        CommandName::Quit => Command::Quit(arguments(frame)?),
        CommandName::Reap => Command::Reap(arguments(frame)?),
        CommandName::Restart => Command::Restart(arguments(frame)?),
        CommandName::Signal => Command::Signal(arguments(frame)?),
        CommandName::List => Command::List(arguments(frame)?),
        CommandName::Status => Command::Status(arguments(frame)?),
        CommandName::Zombies => Command::Zombies(arguments(frame)?),
        CommandName::Processes => Command::Processes(arguments(frame)?),
        CommandName::ProcessInfo => Command::ProcessInfo(arguments(frame)?),
        CommandName::IsProcessRunning => Command::IsProcessRunning(arguments(frame)?),
        CommandName::IsRunning => Command::IsRunning(arguments(frame)?),
        CommandName::Exists => Command::Exists(arguments(frame)?),
        CommandName::Returncode => Command::Returncode(arguments(frame)?),
        CommandName::Children => Command::Children(arguments(frame)?),
        CommandName::Events => Command::Events(arguments(frame)?),
        CommandName::History => Command::History(arguments(frame)?),
        CommandName::Audit => Command::Audit(arguments(frame)?),
        CommandName::Logs => Command::Logs(arguments(frame)?),
        CommandName::Reload => Command::Reload(arguments(frame)?),
        CommandName::Upgrade => Command::Upgrade(arguments(frame)?),
        CommandName::Shutdown => Command::Shutdown(arguments(frame)?),
    })
}

/// `register` has two kinds of keys side by side: its own two, and those of the definition.
fn decode_register(frame: &[u8]) -> Result<Register, String> {
    #[derive(Deserialize)]
    struct Own {
        name: Name,
        #[serde(default)]
        replace: bool,
    }
    let definition: Definition = decode(frame, ArgumentsSeed { skip: REGISTER_KEYS, only: None, of: PhantomData })?;
    let own: Own = decode(frame, ArgumentsSeed { skip: &[], only: Some(&["name", "replace"]), of: PhantomData })?;
    Ok(Register { name: own.name, replace: own.replace, definition })
}

/// Reads the arguments of a command from the whole request.
fn arguments<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    decode(frame, ArgumentsSeed { skip: ENVELOPE_KEYS, only: None, of: PhantomData })
}

/// Runs one pass over the frame, which must be one value and nothing behind it.
fn decode<'de, S: DeserializeSeed<'de>>(frame: &'de [u8], seed: S) -> Result<S::Value, String> {
    if frame.is_empty() {
        return Err("the frame is empty, a MessagePack map is expected".to_owned());
    }
    let mut rmp = Rmp::from_read_ref(frame);
    rmp.set_max_depth(MAX_DEPTH);
    let value = seed.deserialize(&mut rmp).map_err(|error| explain(&error))?;
    match IgnoredAny::deserialize(&mut rmp) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(value),
        Ok(_) | Err(_) => Err("there are bytes behind the map".to_owned()),
    }
}

/// Says a decoding error in our words: what MessagePack calls a field is an argument here.
fn explain(error: &rmp_serde::decode::Error) -> String {
    use rmp_serde::decode::Error;
    match error {
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) => "the frame ends in the middle of a value".to_owned(),
        Error::DepthLimitExceeded => format!("it is nested more than {MAX_DEPTH} levels deep"),
        Error::TypeMismatch(_) | Error::OutOfRange | Error::LengthMismatch(_) | Error::Utf8Error(_) => {
            format!("it is not valid MessagePack ({error})")
        }
        Error::Uncategorized(message) | Error::Syntax(message) => {
            let mut message: String = message.chars().take(1000).collect();
            for (from, to) in [
                ("unknown field", "unknown argument"),
                ("missing field", "missing argument"),
                ("duplicate field", "argument said twice:"),
                ("wrong msgpack marker", "another type is expected, this is"),
            ] {
                message = message.replace(from, to);
            }
            message
        }
    }
}

/// What the first pass finds. Each part is judged later, so that an error can be answered under the request's id.
struct Envelope<'de> {
    command: Option<Result<Cow<'de, str>, String>>,
    request_id: Option<Result<RequestId, String>>,
    client: Option<Result<Name, String>>,
    version: Option<Result<u64, String>>,
}

struct EnvelopeSeed;

impl<'de> DeserializeSeed<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with string keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope { command: None, request_id: None, client: None, version: None };
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let twice = match key.as_ref() {
                "command" => envelope
                    .command
                    .replace(tolerant(map.next_value::<Loose<'de>>()?, |loose| match loose {
                        Loose::Text(text) => Ok(text),
                        Loose::Unsigned(_) | Loose::Signed(_) | Loose::Other => Err("a string is expected"),
                    }))
                    .is_some(),
                "version" => envelope
                    .version
                    .replace(tolerant(map.next_value::<Loose<'de>>()?, |loose| match loose {
                        Loose::Unsigned(number) => Ok(number),
                        Loose::Text(_) | Loose::Signed(_) | Loose::Other => Err("a number is expected"),
                    }))
                    .is_some(),
                "client" => envelope
                    .client
                    .replace(match map.next_value::<Loose<'de>>()? {
                        Loose::Text(text) => text.parse::<Name>().map_err(|error| error.to_string()),
                        Loose::Unsigned(_) | Loose::Signed(_) | Loose::Other => Err("a string is expected".to_owned()),
                    })
                    .is_some(),
                "request_id" => envelope
                    .request_id
                    .replace(match map.next_value::<Loose<'de>>()? {
                        Loose::Unsigned(number) => Ok(RequestId::Unsigned(number)),
                        Loose::Signed(number) => Ok(RequestId::Signed(number)),
                        Loose::Text(text) if text.len() <= super::MAX_REQUEST_ID => Ok(RequestId::Text(text.into_owned())),
                        Loose::Text(text) => {
                            Err(format!("{} bytes are too long, at most {} are allowed", text.len(), super::MAX_REQUEST_ID))
                        }
                        Loose::Other => Err("a string or an integer is expected".to_owned()),
                    })
                    .is_some(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
            };
            if twice {
                return Err(A::Error::custom(format!("argument said twice: `{key}`")));
            }
        }
        Ok(envelope)
    }
}

fn tolerant<'de, T>(loose: Loose<'de>, read: impl FnOnce(Loose<'de>) -> Result<T, &'static str>) -> Result<T, String> {
    read(loose).map_err(str::to_owned)
}

/// A value that may be anything, of which only numbers and texts are kept.
enum Loose<'de> {
    Unsigned(u64),
    Signed(i64),
    Text(Cow<'de, str>),
    Other,
}

impl<'de> Deserialize<'de> for Loose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LooseVisitor;
        impl<'de> Visitor<'de> for LooseVisitor {
            type Value = Loose<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Loose<'de>, E> {
                Ok(Loose::Unsigned(number))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Loose<'de>, E> {
                Ok(u64::try_from(number).map_or(Loose::Signed(number), Loose::Unsigned))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Loose<'de>, E> {
                Ok(Loose::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Loose<'de>, E> {
                Ok(Loose::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Loose<'de>, E> {
                Ok(Loose::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Loose<'de>, E> {
                Ok(Loose::Other)
            }
            fn visit_bytes<E>(self, _: &[u8]) -> Result<Loose<'de>, E> {
                Ok(Loose::Other)
            }
            fn visit_unit<E>(self) -> Result<Loose<'de>, E> {
                Ok(Loose::Other)
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Loose<'de>, D::Error> {
                IgnoredAny::deserialize(deserializer).map(|_| Loose::Other)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Loose<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Loose::Other)
            }
        }
        deserializer.deserialize_any(LooseVisitor)
    }
}

/// A key of the request's map: a string, borrowed from the frame.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        match Loose::deserialize(deserializer)? {
            Loose::Text(text) => Ok(text),
            Loose::Unsigned(_) | Loose::Signed(_) | Loose::Other => Err(D::Error::custom("the keys of the map must be strings")),
        }
    }
}

/// Deserialises a `T` from the request's map without the keys in `skip`, or from only the keys in `only`.
struct ArgumentsSeed<T> {
    skip: &'static [&'static str],
    only: Option<&'static [&'static str]>,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for ArgumentsSeed<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ArgumentsSeed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with string keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(FilteredMap { map, skip: self.skip, only: self.only, key: None }))
    }
}

/// A map of which some keys are not shown; an error in a value names its key.
struct FilteredMap<'de, A> {
    map: A,
    skip: &'static [&'static str],
    only: Option<&'static [&'static str]>,
    key: Option<Cow<'de, str>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for FilteredMap<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key_seed(KeySeed)? {
            if self.skip.contains(&key.as_ref()) || self.only.is_some_and(|only| !only.contains(&key.as_ref())) {
                self.map.next_value::<IgnoredAny>()?;
                continue;
            }
            let shown = match &key {
                Cow::Borrowed(text) => seed.deserialize(BorrowedStrDeserializer::new(text)),
                Cow::Owned(text) => seed.deserialize(StrDeserializer::new(text)),
            };
            self.key = Some(key);
            return shown.map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        let key = self.key.take().unwrap_or_default();
        self.map.next_value_seed(seed).map_err(|error| A::Error::custom(format!("`{key}`: {error}")))
    }
}

/// Why something could not be written as MessagePack or read from it.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value could not be written.
    #[error("failed to encode a message")]
    Encode(#[from] rmp_serde::encode::Error),
    /// A reply could not be read.
    #[error("failed to decode a reply")]
    Decode(#[from] rmp_serde::decode::Error),
}

/// Writes the reply to a command that was done.
pub fn encode_result<T: Serialize>(result: &T, request_id: Option<&RequestId>) -> Result<Vec<u8>, CodecError> {
    #[derive(Serialize)]
    struct Success<'a, T> {
        success: bool,
        result: &'a T,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a RequestId>,
    }
    Ok(rmp_serde::to_vec_named(&Success { success: true, result, request_id })?)
}

/// Writes the reply to a command that was refused.
pub fn encode_error(error: &WireError, request_id: Option<&RequestId>) -> Result<Vec<u8>, CodecError> {
    #[derive(Serialize)]
    struct Failure<'a> {
        success: bool,
        error: &'a WireError,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a RequestId>,
    }
    Ok(rmp_serde::to_vec_named(&Failure { success: false, error, request_id })?)
}

/// Writes a request, for a client that does not name itself.
pub fn encode_request(command: &Command, request_id: Option<&RequestId>) -> Result<Vec<u8>, CodecError> {
    encode_request_of(command, request_id, None)
}

/// Writes a request, for a client.
pub fn encode_request_of(command: &Command, request_id: Option<&RequestId>, client: Option<&Name>) -> Result<Vec<u8>, CodecError> {
    #[derive(Serialize)]
    struct Frame<'a, T> {
        command: CommandName,
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<&'a RequestId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a Name>,
        #[serde(flatten)]
        arguments: &'a T,
    }
    /// What is common to all requests, and the command.
    type Common<'a> = (CommandName, Option<&'a RequestId>, Option<&'a Name>);
    fn frame<T: Serialize>((command, request_id, client): Common<'_>, arguments: &T) -> Result<Vec<u8>, CodecError> {
        Ok(rmp_serde::to_vec_named(&Frame { command, request_id, client, arguments })?)
    }
    let common = (command.name(), request_id, client);
    match command {
        Command::Ping(a) | Command::Info(a) | Command::Zombies(a) | Command::Upgrade(a) => frame(common, a),
        Command::Register(a) => frame(common, a),
        Command::Unregister(a) | Command::IsRunning(a) | Command::Exists(a) | Command::Returncode(a) | Command::Children(a) => {
            frame(common, a)
        }
        Command::Execute(a) => frame(common, a),
        Command::Quit(a) => frame(common, a),
        Command::Reap(a) => frame(common, a),
        Command::Restart(a) => frame(common, a),
        Command::Signal(a) => frame(common, a),
        Command::List(a) => frame(common, a),
        Command::Status(a) => frame(common, a),
        Command::Processes(a) | Command::ProcessInfo(a) => frame(common, a),
        Command::IsProcessRunning(a) => frame(common, a),
        Command::Events(a) => frame(common, a),
        Command::History(a) => frame(common, a),
        Command::Audit(a) => frame(common, a),
        Command::Logs(a) => frame(common, a),
        Command::Reload(a) => frame(common, a),
        Command::Shutdown(a) => frame(common, a),
    }
}

/// Writes an event as the second frame of a published message.
pub fn encode_event(event: &Event) -> Result<Vec<u8>, CodecError> {
    Ok(rmp_serde::to_vec_named(event)?)
}

/// Reads a reply, for a client. Keys that a newer daemon adds are passed over.
pub fn decode_reply<T: DeserializeOwned>(frame: &[u8]) -> Result<Reply<T>, CodecError> {
    Ok(rmp_serde::from_slice(frame)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn pack(value: &Value) -> Vec<u8> {
        rmp_serde::to_vec_named(value).unwrap()
    }

    fn message(value: &Value) -> String {
        decode_request(&pack(value)).unwrap_err().error.message
    }

    #[test]
    fn an_unknown_argument_is_named() {
        assert!(message(&json!({"command": "quit", "name": "a", "timout": 3})).contains("unknown argument `timout`"));
        assert!(message(&json!({"command": "ping", "x": 1})).contains("unknown argument `x`"));
        assert!(message(&json!({"command": "register", "name": "a", "cmd": ["x"], "comand": 1})).contains("unknown argument `comand`"));
        assert!(message(&json!({"command": "register", "name": "a", "cmd": ["x"], "backoff": {"jiter": 1}})).contains("`backoff`"));
    }

    #[test]
    fn a_wrong_value_names_its_argument() {
        assert!(message(&json!({"command": "quit", "name": "a", "timeout": "soon"})).contains("`timeout`"));
        assert!(message(&json!({"command": "quit", "name": "a", "timeout": -1})).contains("`timeout`"));
        assert!(message(&json!({"command": "execute"})).contains("missing argument `name`"));
        assert!(message(&json!({"command": "execute", "name": "a b"})).contains("`name`"));
        assert!(message(&json!({"command": 7})).contains("`command`"));
        assert!(message(&json!([1, 2])).contains("a map"));
        assert!(message(&json!({"command": "processes", "items": 3})).contains("a string or a list of strings"));
    }

    #[test]
    fn a_refused_request_keeps_its_id() {
        let rejected = decode_request(&pack(&json!({"command": "quit", "request_id": "r1", "nme": "a"}))).unwrap_err();
        assert_eq!((rejected.request_id, rejected.command), (Some(RequestId::Text("r1".into())), Some(CommandName::Quit)));
        let rejected = decode_request(&pack(&json!({"command": "exceute", "request_id": -5}))).unwrap_err();
        assert_eq!(rejected.request_id, Some(RequestId::Signed(-5)));
        assert_eq!(rejected.error.code, ErrorCode::UnknownCommand);
        assert_eq!(rejected.error.details["nearest"], Detail::Text("execute".into()));
    }

    #[test]
    fn limits_hold() {
        assert!(message(&json!({"command": "ping", "request_id": "x".repeat(65)})).contains("65 bytes are too long"));
        assert_eq!(decode_request(&pack(&json!({"command": "ping", "version": 2}))).unwrap_err().error.code, ErrorCode::UnsupportedVersion);
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert!(message(&json!({"command": "ping", "x": deep})).contains("nested more than 32"));
        let mut trailing = pack(&json!({"command": "ping"}));
        trailing.push(0xc0);
        assert!(decode_request(&trailing).unwrap_err().error.message.contains("bytes behind the map"));
        assert!(decode_request(&[]).is_err());
        // An array of 4 Gi elements that are not there.
        let bomb = [&[0x82, 0xa7][..], b"command", &[0xa4], b"ping", &[0xa1, b'x', 0xdd, 0xff, 0xff, 0xff, 0xff]].concat();
        assert!(decode_request(&bomb).unwrap_err().error.message.contains("ends in the middle"));
    }

    #[test]
    fn a_key_said_twice_is_refused() {
        let twice =
            [&[0x83, 0xa7][..], b"command", &[0xa4], b"quit", &[0xa4], b"name", &[0xa1, b'a', 0xa4], b"name", &[0xa1, b'b']].concat();
        assert!(decode_request(&twice).unwrap_err().error.message.contains("said twice"));
        let twice = [&[0x82, 0xa7][..], b"command", &[0xa4], b"ping", &[0xa7], b"command", &[0xa4], b"info"].concat();
        assert!(decode_request(&twice).unwrap_err().error.message.contains("said twice"));
    }

    #[test]
    fn a_register_request_is_read_whole() {
        let request = decode_request(&pack(&json!({"command": "register", "version": 1, "name": "web", "replace": true, "cmd": ["sleep"], "args": ["9"], "stop_timeout": 2}))).unwrap();
        let Command::Register(register) = &request.command else { panic!("{request:?}") };
        assert!(register.replace);
        assert_eq!(register.definition.cmd.as_deref(), Some(&["sleep".to_owned()][..]));
        assert_eq!(decode_request(&encode_request(&request.command, None).unwrap()).unwrap(), request);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_frame_breaks_the_decoder(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(rejected) = decode_request(&frame) {
                prop_assert!(!encode_error(&rejected.error, rejected.request_id.as_ref()).unwrap().is_empty());
                prop_assert!(rejected.error.message.len() < 4096);
            }
        }

        #[test]
        fn no_mutation_breaks_the_decoder(at in 0usize..60, byte in any::<u8>(), cut in 0usize..60) {
            let mut frame = pack(&json!({"command": "execute", "request_id": 7, "name": "abc", "args": ["1", "2"], "env": {"A": "b"}}));
            let index = at % frame.len();
            frame[index] = byte;
            let _ = decode_request(&frame);
            frame.truncate(cut);
            let _ = decode_request(&frame);
        }
    }
}
