//! What a client (`register`) or the configuration file (`[[process]]`, `[defaults]`) says of one sub-process.
//!
//! Every key is optional here, so that a definition can be laid over defaults; [`crate::subprocess::spec`] fills in the rest and checks it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::MAX_SECONDS;
use super::names::{Name, RestartPolicy, Signal};

/// Declares [`Definition`] and the list of its keys in one place.
macro_rules! definition {
    ($($(#[$meta:meta])* $key:ident: $type:ty,)+) => {
        /// The keys of one sub-process; one that is `None` was not said.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Definition {
            $($(#[$meta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $key: Option<$type>,)+
        }

        impl Definition {
            /// The name of every key.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)+];

            /// This definition, and where it is silent, `defaults`.
            #[must_use]
            pub fn or(self, defaults: &Self) -> Self {
                Self { $($key: self.$key.or_else(|| defaults.$key.clone()),)+ }
            }
        }
    };
}

definition! {
    /// The group it is listed and quit with.
    group: Name,
    /// Program and leading arguments; the program is looked up in `PATH` when it holds no slash.
    cmd: Vec<String>,
    /// Further arguments.
    args: Vec<String>,
    /// Join `cmd` and `args` with spaces and hand them to `/bin/sh -c`.
    shell: bool,
    /// Environment variables, added to the daemon's own.
    env: BTreeMap<String, String>,
    /// Start with an empty environment instead of the daemon's own.
    clear_env: bool,
    /// Working directory; the daemon's own where not said.
    cwd: PathBuf,
    /// User to run as, with that user's primary and supplementary groups; only root may say another than its own.
    user: String,
    /// Where standard output goes.
    stdout: Output,
    /// Where standard error goes.
    stderr: Output,
    /// Start it when the daemon starts.
    autostart: bool,
    /// What follows an end that nobody asked for.
    restart: RestartPolicy,
    /// Exit codes that are no failure.
    success_codes: Vec<u8>,
    /// How long to wait before a start that follows a failure.
    backoff: BackoffDefinition,
    /// How many starts in how long are too many.
    start_limit: StartLimitDefinition,
    /// An end before this many seconds is a failed start, whatever the exit code.
    start_seconds: Seconds,
    /// The signal that asks it to end.
    stop_signal: Signal,
    /// Seconds between that signal and SIGKILL.
    stop_timeout: Seconds,
}

/// The keys of `backoff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffDefinition {
    /// Seconds before the first new try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Seconds>,
    /// Each further wait is this many times the one before, 1 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The longest wait in seconds, jitter aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Seconds>,
    /// Each wait is changed at random by up to this share of it, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// A run of this many seconds makes the next wait the first again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<Seconds>,
}

/// The keys of `start_limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartLimitDefinition {
    /// Starts that may be made within `interval`; 0 means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Seconds>,
}

/// A time in seconds: finite, not negative, at most [`MAX_SECONDS`]. A float or an integer on the wire.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Seconds(f64);

impl Seconds {
    /// The time, if it is one.
    pub fn new(seconds: f64) -> Option<Self> {
        (0.0..=MAX_SECONDS).contains(&seconds).then_some(Self(seconds))
    }

    /// As a duration, exact to a nanosecond.
    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0)
    }

    /// As seconds.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self(duration.as_secs_f64().min(MAX_SECONDS))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Self::new(seconds).ok_or_else(|| D::Error::custom(format!("{seconds} is not a time: 0 to {MAX_SECONDS:e} seconds are allowed")))
    }
}

/// Where an output of a sub-process goes. It never passes through the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// `"null"`: to `/dev/null`.
    Null,
    /// `"inherit"`: where the daemon's own goes.
    Inherit,
    /// `"stdout"`, for standard error only: where its standard output goes.
    Stdout,
    /// `"file:/path"`: appended to that file, which is created with mode 0640 where it is missing.
    File(PathBuf),
}

/// A text that is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not an output: say \"null\", \"inherit\", \"file:/path\", or for stderr \"stdout\"")]
pub struct InvalidOutput {
    shown: String,
}

impl FromStr for Output {
    type Err = InvalidOutput;

    fn from_str(text: &str) -> Result<Self, InvalidOutput> {
        match text {
            "null" => Ok(Self::Null),
            "inherit" => Ok(Self::Inherit),
            "stdout" => Ok(Self::Stdout),
            other => match other.strip_prefix("file:") {
                Some(path) if !path.is_empty() && !path.contains('\0') => Ok(Self::File(path.into())),
                _ => Err(InvalidOutput { shown: other.chars().take(80).collect() }),
            },
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Inherit => f.write_str("inherit"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_is_refused() {
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Seconds::new(bad), None);
        }
        assert_eq!(serde_json::from_str::<Seconds>("5").unwrap().duration(), Duration::from_secs(5));
        assert!(serde_json::from_str::<Seconds>("-0.5").is_err());
    }

    #[test]
    fn what_is_said_wins_over_the_defaults() {
        let defaults = Definition { shell: Some(true), user: Some("a".into()), ..Definition::default() };
        let said = Definition { user: Some("b".into()), ..Definition::default() };
        let merged = said.or(&defaults);
        assert_eq!((merged.shell, merged.user.as_deref()), (Some(true), Some("b")));
    }

    #[test]
    fn outputs_say_themselves() {
        for text in ["null", "inherit", "stdout", "file:/var/log/x y.log"] {
            assert_eq!(text.parse::<Output>().unwrap().to_string(), text);
        }
        for bad in ["", "file:", "log", "journal", "/tmp/x", "file:a\0b"] {
            assert!(bad.parse::<Output>().is_err(), "{bad:?}");
        }
    }
}
