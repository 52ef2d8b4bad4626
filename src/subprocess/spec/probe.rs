//! How a sub-process is asked whether it is ready, whether it is well, and to end: with every default filled in and every value checked.

use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::definition::{HealthDefinition, ReadyDefinition, Seconds, StopRequestDefinition};

/// Which question is asked. One without an answer is no good sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A ZeroMQ request.
    Zmq(ZmqRequest),
    /// A connection to `HOST:PORT`.
    Tcp(String),
    /// A connection to a socket.
    Unix(PathBuf),
    /// `GET` of an `http://` address; 200 to 399 is good.
    Http(String),
    /// A program that exits with 0.
    Exec(Vec<String>),
    /// A file that is there.
    File(PathBuf),
    /// A service of this type that is listed as passing in the registry of CGSE.
    Cgse(String),
    /// `terminate`, said to a control server that the registry of CGSE lists.
    CgseTerminate {
        /// Its type.
        service_type: String,
        /// The id of its entry, once that is known.
        id: Option<String>,
    },
}

/// A ZeroMQ request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZmqRequest {
    /// To whom.
    pub endpoint: String,
    /// From what.
    pub socket: ZmqSocket,
    /// Its frames, at least one.
    pub frames: Vec<String>,
    /// What some frame of the reply must hold; any reply will do without.
    pub expect: Option<String>,
}

/// What a ZeroMQ request is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZmqSocket {
    /// The library adds the empty delimiter.
    Req,
    /// The frames are sent as they are.
    Dealer,
}

/// A question that is asked again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Which.
    pub probe: Probe,
    /// From the end of one try to the next.
    pub interval: Duration,
    /// How long one try may take.
    pub try_timeout: Duration,
}

/// How it is known that a sub-process is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Who says so.
    pub source: ReadySource,
    /// Time from its start after which the start has failed; `None` is never.
    pub timeout: Option<Duration>,
}

/// Who says that a sub-process is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadySource {
    /// It does, by sd_notify(3).
    Notify,
    /// So much time has passed.
    Delay(Duration),
    /// It answers.
    Probe(Tries),
}

/// How it is known that a sub-process still does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Who says so.
    pub source: HealthSource,
    /// So many failures in a row end it, at least 1.
    pub failures: u32,
}

/// Who says that a sub-process is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthSource {
    /// It does: `WATCHDOG=1` at least once in each such time (sd_notify(3)).
    Notify(Duration),
    /// It answers.
    Probe(Tries),
}

/// What asks a sub-process to end, instead of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRequest {
    /// How.
    pub probe: Probe,
    /// How long that may take before the signal is sent after all.
    pub timeout: Duration,
}

/// The default of `ready.timeout`.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The default of `ready.interval`: short, because others wait for it.
pub const READY_INTERVAL: Duration = Duration::from_millis(250);
/// The default of `ready.try_timeout`.
pub const READY_TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// The default of `health.interval`.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// The default of `health.timeout`.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// The default of `health.failures`.
pub const HEALTH_FAILURES: u32 = 3;
/// The default of `stop_request.timeout`.
pub const STOP_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest interval between two tries: below, asking would be the load.
const SHORTEST: Duration = Duration::from_millis(10);
/// The most bytes that all frames of a request may have together.
const MAX_FRAMES: usize = 64 * 1024;

/// The keys of one table that say which question.
#[derive(Default)]
struct Keys<'a> {
    zmq: Option<&'a String>,
    socket: Option<&'a String>,
    frames: Option<&'a Vec<String>>,
    expect: Option<&'a String>,
    tcp: Option<&'a String>,
    unix: Option<&'a PathBuf>,
    http: Option<&'a String>,
    exec: Option<&'a Vec<String>>,
    file: Option<&'a PathBuf>,
    cgse: Option<&'a String>,
}

/// The two tables that know all of these keys.
macro_rules! keys_of {
    ($($table:ident),+) => {
        $(impl<'a> From<&'a $table> for Keys<'a> {
            fn from(said: &'a $table) -> Self {
                Self {
                    zmq: said.zmq.as_ref(),
                    socket: said.socket.as_ref(),
                    frames: said.frames.as_ref(),
                    expect: said.expect.as_ref(),
                    tcp: said.tcp.as_ref(),
                    unix: said.unix.as_ref(),
                    http: said.http.as_ref(),
                    exec: said.exec.as_ref(),
                    file: said.file.as_ref(),
                    cgse: said.cgse.as_ref(),
                }
            }
        })+
    };
}

keys_of!(ReadyDefinition, HealthDefinition);

impl Keys<'_> {
    /// Which of them are said.
    fn said(&self) -> Vec<&'static str> {
        let all = [
            ("zmq", self.zmq.is_some()),
            ("tcp", self.tcp.is_some()),
            ("unix", self.unix.is_some()),
            ("http", self.http.is_some()),
            ("exec", self.exec.is_some()),
            ("file", self.file.is_some()),
            ("cgse", self.cgse.is_some()),
        ];
        all.into_iter().filter(|(_, said)| *said).map(|(key, _)| key).collect()
    }

    fn probe(&self) -> Result<Option<Probe>, String> {
        if self.zmq.is_none() && (self.socket.is_some() || self.frames.is_some() || self.expect.is_some()) {
            return Err("`socket`, `frames` and `expect` go with `zmq` only".to_owned());
        }
        let path = |key: &str, path: &PathBuf| match path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0) {
            true => Ok(path.clone()),
            false => Err(format!("`{key}` must be an absolute path")),
        };
        Ok(if let Some(endpoint) = self.zmq {
            Some(Probe::Zmq(self.zmq_request(endpoint)?))
        } else if let Some(address) = self.tcp {
            Some(Probe::Tcp(tcp_address(address)?))
        } else if let Some(socket) = self.unix {
            Some(Probe::Unix(path("unix", socket)?))
        } else if let Some(url) = self.http {
            Some(Probe::Http(http_address(url)?))
        } else if let Some(words) = self.exec {
            Some(Probe::Exec(command(words)?))
        } else if let Some(file) = self.file {
            Some(Probe::File(path("file", file)?))
        } else if let Some(service_type) = self.cgse {
            Some(Probe::Cgse(cgse_type("cgse", service_type)?))
        } else {
            None
        })
    }

    fn zmq_request(&self, endpoint: &str) -> Result<ZmqRequest, String> {
        let known = endpoint.strip_prefix("tcp://").or_else(|| endpoint.strip_prefix("ipc://"));
        if known.is_none_or(str::is_empty) || endpoint.contains('\0') || endpoint.len() > 1024 {
            return Err(format!("{endpoint:?} is no endpoint to connect to: say \"tcp://HOST:PORT\" or \"ipc:///path\""));
        }
        let socket = match self.socket.map(String::as_str) {
            None | Some("REQ") => ZmqSocket::Req,
            Some("DEALER") => ZmqSocket::Dealer,
            Some(other) => return Err(format!("`socket` is \"REQ\" or \"DEALER\", not {other:?}")),
        };
        let frames = self.frames.cloned().unwrap_or_else(|| vec![String::new()]);
        if frames.is_empty() || frames.iter().map(String::len).sum::<usize>() > MAX_FRAMES {
            return Err(format!("`frames` must be at least one frame, and at most {MAX_FRAMES} bytes together"));
        }
        Ok(ZmqRequest { endpoint: endpoint.to_owned(), socket, frames, expect: self.expect.cloned() })
    }
}

/// A type of services in the registry of CGSE.
pub(super) fn cgse_type(key: &str, text: &str) -> Result<String, String> {
    match !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{key}` is 1 to 64 printable ASCII characters without blanks, such as \"LOG_CS\"")),
    }
}

fn tcp_address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() && !text.contains(['\0', '/']) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no address: say \"HOST:PORT\", such as \"127.0.0.1:4242\"")),
    }
}

fn http_address(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{text:?} {why}: say \"http://HOST[:PORT][/PATH]\""));
    if text.starts_with("https://") {
        return wrong("is encrypted, which this probe does not speak");
    }
    match text.strip_prefix("http://") {
        Some(rest) if !rest.is_empty() && !rest.starts_with(['/', ':', '?', '#']) && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(text.to_owned())
        }
        _ => wrong("is no address"),
    }
}

fn command(words: &[String]) -> Result<Vec<String>, String> {
    match words.first() {
        Some(program) if !program.is_empty() && !words.iter().any(|word| word.contains('\0')) => Ok(words.to_vec()),
        _ => Err("`exec` must be a list of words, the program first: [\"program\", \"argument\"]".to_owned()),
    }
}

fn exactly_one(mut said: Vec<&'static str>, others: &[(&'static str, bool)], known: &str) -> Result<(), String> {
    said.extend(others.iter().filter(|(_, said)| *said).map(|(key, _)| *key));
    match said[..] {
        [_] => Ok(()),
        [] => Err(format!("say one of {known}")),
        _ => Err(format!("say only one of {known}; here are {}", said.join(", "))),
    }
}

fn time(key: &str, said: Option<Seconds>, default: Duration) -> Result<Duration, String> {
    match said.map(Seconds::duration) {
        None => Ok(default),
        Some(time) if time >= SHORTEST => Ok(time),
        Some(_) => Err(format!("`{key}` must be at least {} seconds", SHORTEST.as_secs_f64())),
    }
}

impl Ready {
    /// It is listed in the registry of CGSE.
    pub(super) fn listed(service_type: &str) -> Self {
        let tries = Tries { probe: Probe::Cgse(service_type.to_owned()), interval: READY_INTERVAL, try_timeout: READY_TRY_TIMEOUT };
        Self { source: ReadySource::Probe(tries), timeout: Some(READY_TIMEOUT) }
    }

    /// Fills in the defaults and checks everything.
    pub fn resolve(said: &ReadyDefinition) -> Result<Self, String> {
        let keys = Keys::from(said);
        let notify = said.notify == Some(true);
        exactly_one(
            keys.said(),
            &[("notify", notify), ("delay", said.delay.is_some())],
            "`notify = true`, `zmq`, `tcp`, `unix`, `http`, `exec`, `file`, `cgse` and `delay`",
        )?;
        let probe = keys.probe()?;
        if probe.is_none() && (said.interval.is_some() || said.try_timeout.is_some()) {
            return Err("`interval` and `try_timeout` go with what is asked again and again only".to_owned());
        }
        let source = match (probe, said.delay) {
            (Some(probe), _) => ReadySource::Probe(Tries {
                probe,
                interval: time("interval", said.interval, READY_INTERVAL)?,
                try_timeout: time("try_timeout", said.try_timeout, READY_TRY_TIMEOUT)?,
            }),
            (None, Some(delay)) => ReadySource::Delay(delay.duration()),
            (None, None) => ReadySource::Notify,
        };
        let timeout = match said.timeout.map(Seconds::duration) {
            None => Some(READY_TIMEOUT),
            Some(Duration::ZERO) => None,
            Some(timeout) => Some(timeout),
        };
        if let (ReadySource::Delay(delay), Some(timeout)) = (&source, said.timeout)
            && *delay >= timeout.duration()
            && timeout.duration() > Duration::ZERO
        {
            return Err("`delay` must be less than `timeout`".to_owned());
        }
        let timeout = if matches!(source, ReadySource::Delay(_)) { None } else { timeout };
        Ok(Self { source, timeout })
    }
}

impl Health {
    /// Fills in the defaults and checks everything.
    pub fn resolve(said: &HealthDefinition) -> Result<Self, String> {
        let keys = Keys::from(said);
        let notify = said.notify == Some(true);
        exactly_one(keys.said(), &[("notify", notify)], "`notify = true`, `zmq`, `tcp`, `unix`, `http`, `exec`, `file` and `cgse`")?;
        let interval = time("interval", said.interval, HEALTH_INTERVAL)?;
        let source = match keys.probe()? {
            Some(probe) => HealthSource::Probe(Tries { probe, interval, try_timeout: time("timeout", said.timeout, HEALTH_TIMEOUT)? }),
            None if said.timeout.is_some() || said.failures.is_some() => {
                return Err("`timeout` and `failures` do not go with `notify`: one missed `interval` is enough".to_owned());
            }
            None => HealthSource::Notify(interval),
        };
        let failures = said.failures.unwrap_or(if notify { 1 } else { HEALTH_FAILURES });
        if failures == 0 {
            return Err("`failures` must be at least 1".to_owned());
        }
        Ok(Self { source, failures })
    }
}

impl StopRequest {
    /// Fills in the defaults and checks everything.
    pub fn resolve(said: &StopRequestDefinition) -> Result<Self, String> {
        let keys = Keys {
            zmq: said.zmq.as_ref(),
            socket: said.socket.as_ref(),
            frames: said.frames.as_ref(),
            exec: said.exec.as_ref(),
            ..Keys::default()
        };
        exactly_one(keys.said(), &[("cgse", said.cgse.is_some())], "`zmq`, `exec` and `cgse`")?;
        if said.zmq.is_some() && said.frames.is_none() {
            return Err("`frames` must say what to send".to_owned());
        }
        let timeout = time("timeout", said.timeout, STOP_REQUEST_TIMEOUT)?;
        let probe = match &said.cgse {
            Some(service_type) => Some(Probe::CgseTerminate { service_type: cgse_type("cgse", service_type)?, id: None }),
            None => keys.probe()?,
        };
        probe.map(|probe| Self { probe, timeout }).ok_or_else(|| "say one of `zmq`, `exec` and `cgse`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(json: &str) -> Result<Ready, String> {
        Ready::resolve(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn exactly_one_source_of_readiness() {
        assert_eq!(ready(r#"{"notify": true}"#).unwrap(), Ready { source: ReadySource::Notify, timeout: Some(READY_TIMEOUT) });
        assert_eq!(ready(r#"{"notify": true, "timeout": 0}"#).unwrap().timeout, None);
        assert_eq!(ready(r#"{"delay": 2}"#).unwrap().source, ReadySource::Delay(Duration::from_secs(2)));
        for (bad, why) in [
            ("{}", "say one of"),
            (r#"{"notify": false}"#, "say one of"),
            (r#"{"notify": true, "tcp": "a:1"}"#, "say only one of"),
            (r#"{"tcp": "127.0.0.1"}"#, "is no address"),
            (r#"{"tcp": "127.0.0.1:0"}"#, "is no address"),
            (r#"{"http": "https://a/"}"#, "is encrypted"),
            (r#"{"http": "http:///x"}"#, "is no address"),
            (r#"{"file": "relative"}"#, "absolute"),
            (r#"{"exec": []}"#, "the program first"),
            (r#"{"zmq": "inproc://x"}"#, "is no endpoint"),
            (r#"{"zmq": "tcp://a:1", "socket": "PUB"}"#, "\"REQ\" or \"DEALER\""),
            (r#"{"zmq": "tcp://a:1", "frames": []}"#, "at least one frame"),
            (r#"{"tcp": "a:1", "frames": ["x"]}"#, "go with `zmq` only"),
            (r#"{"tcp": "a:1", "interval": 0}"#, "at least 0.01"),
            (r#"{"delay": 2, "interval": 1}"#, "again and again"),
            (r#"{"delay": 2, "timeout": 1}"#, "less than"),
        ] {
            let error = ready(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn health_and_stop_requests_have_defaults() {
        let health = Health::resolve(&serde_json::from_str(r#"{"tcp": "127.0.0.1:4242", "interval": 5.0}"#).unwrap()).unwrap();
        let HealthSource::Probe(tries) = health.source else { panic!("{health:?}") };
        assert_eq!((tries.interval, tries.try_timeout, health.failures), (Duration::from_secs(5), HEALTH_TIMEOUT, 3));
        let health = Health::resolve(&serde_json::from_str(r#"{"notify": true, "interval": 2}"#).unwrap()).unwrap();
        assert_eq!(health, Health { source: HealthSource::Notify(Duration::from_secs(2)), failures: 1 });
        let stop =
            StopRequest::resolve(&serde_json::from_str(r#"{"zmq": "tcp://127.0.0.1:1", "frames": ["REQ", "{}"]}"#).unwrap()).unwrap();
        assert_eq!(stop.timeout, STOP_REQUEST_TIMEOUT);
        let stop = |json: &str| StopRequest::resolve(&serde_json::from_str(json).unwrap());
        assert_eq!(stop(r#"{"cgse": "DAQ"}"#).unwrap().probe, Probe::CgseTerminate { service_type: "DAQ".into(), id: None });
        assert!(stop(r#"{"cgse": "DAQ", "exec": ["x"]}"#).unwrap_err().contains("only one"));
        assert!(stop(r#"{"cgse": "D Q"}"#).unwrap_err().contains("blanks"));
        assert!(StopRequest::resolve(&serde_json::from_str(r#"{"zmq": "tcp://127.0.0.1:1"}"#).unwrap()).unwrap_err().contains("frames"));
    }
}
