//! Resource limits of a definition.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::Bytes;

/// A resource limit (getrlimit(2)): `4096`, `"2G"`, `"unlimited"`, or soft and hard one `"1024:4096"`. `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What the process is held to.
    pub soft: Option<u64>,
    /// How far it may raise that itself.
    pub hard: Option<u64>,
}

/// A text that is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not a limit: say a number, a size such as \"2G\", \"unlimited\", or the soft and the hard one, \"1024:4096\"")]
pub struct InvalidLimit {
    shown: String,
}

impl Limit {
    /// The same for soft and hard.
    pub const fn both(value: Option<u64>) -> Self {
        Self { soft: value, hard: value }
    }
}

fn one(text: &str) -> Option<Option<u64>> {
    if text == "unlimited" || text == "infinity" { Some(None) } else { text.parse::<Bytes>().ok().map(|bytes| Some(bytes.get())) }
}

impl FromStr for Limit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let parts = || match text.split_once(':') {
            None => one(text).map(Self::both),
            Some((soft, hard)) => Some(Self { soft: one(soft)?, hard: one(hard)? }),
        };
        let possible = |limit: &Self| match (limit.soft, limit.hard) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(soft), Some(hard)) => soft <= hard,
        };
        parts().filter(possible).ok_or_else(|| InvalidLimit { shown: text.chars().take(40).collect() })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
        if self.soft == self.hard { f.write_str(&text(self.soft)) } else { write!(f, "{}:{}", text(self.soft), text(self.hard)) }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a size such as \"2G\", or \"unlimited\"")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Limit, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Limit, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Limit, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumberOrText).map_err(D::Error::custom)
    }
}

/// Declares [`LimitsDefinition`] and the list of its keys in one place.
macro_rules! limits {
    ($($(#[$meta:meta])* $key:ident $(= $text:literal)?: $type:ty,)+) => {
        /// The keys of `limits`.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct LimitsDefinition {
            $($(#[$meta])* $(#[serde(rename = $text)])? #[serde(default, skip_serializing_if = "Option::is_none")] pub $key: Option<$type>,)+
        }

        impl LimitsDefinition {
            /// The name of every key.
            pub const KEYS: &'static [&'static str] = &[$(limits!(@name $key $($text)?),)+];
        }
    };
    (@name $key:ident) => { stringify!($key) };
    (@name $key:ident $text:literal) => { $text };
}

limits! {
    /// Open descriptors (`RLIMIT_NOFILE`).
    nofile: Limit,
    /// Size of a core dump in bytes (`RLIMIT_CORE`).
    core: Limit,
    /// Processes of its user (`RLIMIT_NPROC`).
    nproc: Limit,
    /// Locked memory in bytes (`RLIMIT_MEMLOCK`).
    memlock: Limit,
    /// Stack in bytes (`RLIMIT_STACK`).
    stack: Limit,
    /// Size of a file that it writes, in bytes (`RLIMIT_FSIZE`).
    fsize: Limit,
    /// Data segment in bytes (`RLIMIT_DATA`).
    data: Limit,
    /// Address space in bytes (`RLIMIT_AS`).
    address_space = "as": Limit,
    /// Processor time in seconds (`RLIMIT_CPU`).
    cpu: Limit,
    /// Real-time priority (`RLIMIT_RTPRIO`).
    rtprio: Limit,
    /// Signals that wait (`RLIMIT_SIGPENDING`).
    sigpending: Limit,
    /// POSIX message queues in bytes (`RLIMIT_MSGQUEUE`).
    msgqueue: Limit,
    /// Memory of the whole tree in bytes (cgroup v2, `memory.max`).
    memory_max: Bytes,
    /// Processes and threads of the whole tree (cgroup v2, `pids.max`).
    pids_max: u64,
    /// Share of the processor against others, 1 to 10000 (cgroup v2, `cpu.weight`; 100 is usual).
    cpu_weight: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_say_themselves() {
        for (text, soft, hard) in [
            ("4096", Some(4096), Some(4096)),
            ("unlimited", None, None),
            ("1024:4096", Some(1024), Some(4096)),
            ("5:unlimited", Some(5), None),
        ] {
            let limit: Limit = text.parse().unwrap();
            assert_eq!((limit.soft, limit.hard, limit.to_string()), (soft, hard, text.to_owned()));
        }
        for bad in ["", "-1", "x", "unlimited:5", "6:5", "1:2:3"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad:?}");
        }
        let read: LimitsDefinition = serde_json::from_str(r#"{"nofile": 4096, "as": "2G", "memory_max": "2G"}"#).unwrap();
        assert_eq!(read.address_space, Some(Limit::both(Some(2 << 30))));
        assert!(LimitsDefinition::KEYS.contains(&"as"));
    }
}
