//! Where outputs go.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// Where an output of a sub-process goes. It never passes through the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// `"null"`: to `/dev/null`.
    Null,
    /// `"inherit"`: where the daemon's own goes.
    Inherit,
    /// `"stdout"`, for standard error only: where its standard output goes.
    Stdout,
    /// `"log"`: to a file of its own below the state directory, rotated by the daemon.
    Log,
    /// `"journal"`: to journald (sd_journal_stream_fd(3)).
    Journal,
    /// `"file:/path"`: appended to that file, which is created with mode 0640 where it is missing.
    File(PathBuf),
}

/// A text that is no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not an output: say \"null\", \"log\", \"journal\", \"inherit\", \"file:/path\", or for stderr \"stdout\"")]
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
            "log" => Ok(Self::Log),
            "journal" => Ok(Self::Journal),
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
            Self::Log => f.write_str("log"),
            Self::Journal => f.write_str("journal"),
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
    fn outputs_say_themselves() {
        for text in ["null", "log", "journal", "inherit", "stdout", "file:/var/log/x y.log"] {
            assert_eq!(text.parse::<Output>().unwrap().to_string(), text);
        }
        for bad in ["", "file:", "Log", "syslog", "/tmp/x", "file:a\0b"] {
            assert!(bad.parse::<Output>().is_err(), "{bad:?}");
        }
    }
}
