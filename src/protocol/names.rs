//! Closed lists of words: a new one does not compile until every `match` has decided what it means.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// Declares a closed list of words with one spelling each, used on the wire, in tables and in metrics alike.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vmeta])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every word of the list, in its documented order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(UnknownWord::new(other, Self::ALL.iter().map(|word| word.as_str()))),
                }
            }
        }
    };
}

words! {
    /// Every command of protocol version 1 that this daemon answers.
    CommandName {
        /// Is the daemon there?
        Ping = "ping",
        /// What daemon is it, and what can it do here?
        Info = "info",
        /// Define a sub-process.
        Register = "register",
        /// Forget a sub-process; a running one is quit first.
        Unregister = "unregister",
        /// Start a sub-process.
        Execute = "execute",
        /// End a sub-process and its whole tree.
        Quit = "quit",
        /// End a process tree, or only what is below the process.
        Reap = "reap",
        /// Quit, then execute.
        Restart = "restart",
        /// Send a signal.
        Signal = "signal",
        /// The registered sub-processes.
        List = "list",
        /// The status of the daemon and of sub-processes.
        Status = "status",
        /// Every zombie on the host.
        Zombies = "zombies",
        /// Host processes whose command line matches, with their status.
        Processes = "processes",
        /// Host processes whose command line matches, with their creation time.
        ProcessInfo = "process_info",
        /// The PID of a host process whose command line matches.
        IsProcessRunning = "is_process_running",
        /// Does the sub-process run?
        IsRunning = "is_running",
        /// Does the sub-process exist as a process?
        Exists = "exists",
        /// How did the last run end?
        Returncode = "returncode",
        /// All descendants of the sub-process.
        Children = "children",
        /// What happened lately, from a place in the sequence on.
        Events = "events",
        /// The runs that have ended.
        History = "history",
        /// What was asked that was to change something, and what came of it.
        Audit = "audit",
        /// What the sub-process has written to its standard output or error.
        Logs = "logs",
        /// Read the configuration again, and do what differs.
        Reload = "reload",
        /// Put the program that is installed now in the place of the one that runs.
        Upgrade = "upgrade",
        /// Leave, after the sub-processes have been quit.
        Shutdown = "shutdown",
    }
}

impl CommandName {
    /// Whether it may change something: such a command is logged, kept in the audit trail, and never done twice for one request.
    pub const fn changes_something(self) -> bool {
        match self {
            Self::Register
            | Self::Unregister
            | Self::Execute
            | Self::Quit
            | Self::Reap
            | Self::Restart
            | Self::Signal
            | Self::Reload
            | Self::Upgrade
            | Self::Shutdown => true,
            Self::Ping
            | Self::Info
            | Self::List
            | Self::Status
            | Self::Zombies
            | Self::Processes
            | Self::ProcessInfo
            | Self::IsProcessRunning
            | Self::IsRunning
            | Self::Exists
            | Self::Returncode
            | Self::Children
            | Self::Events
            | Self::History
            | Self::Audit
            | Self::Logs => false,
        }
    }
}

words! {
    /// The state of a sub-process.
    StateName {
        /// Never started, or quit on request.
        Stopped = "stopped",
        /// Started, but not yet counted as running.
        Starting = "starting",
        /// Runs.
        Running = "running",
        /// Is being ended, or what is left of its tree is.
        Stopping = "stopping",
        /// Waits for the next try.
        Backoff = "backoff",
        /// Ended by itself, and no restart is wanted.
        Exited = "exited",
        /// The supervisor gave up.
        Fatal = "fatal",
        /// Could not be found again after the daemon was away.
        Lost = "lost",
    }
}

words! {
    /// Why the last run ended.
    Cause {
        /// It exited by itself.
        Exit = "exit",
        /// A signal that the supervisor did not send ended it.
        Signal = "signal",
        /// A signal ended it and the kernel wrote a core dump.
        CoreDump = "core_dump",
        /// The kernel killed it for lack of memory.
        Oom = "oom",
        /// Somebody asked for it: quit, reap, restart, unregister or shutdown.
        Quit = "quit",
        /// It failed its health check.
        Health = "health",
        /// It was not ready in time.
        StartTimeout = "start_timeout",
        /// It could not be started.
        SpawnFailed = "spawn_failed",
        /// It ended while nobody could see how.
        Lost = "lost",
    }
}

words! {
    /// What an event tells of that is no change of state.
    EventName {
        /// A sub-process could not be started.
        SpawnFailed = "spawn_failed",
        /// The restart policy will start a sub-process again.
        RestartScheduled = "restart_scheduled",
        /// The supervisor will not start a sub-process again until somebody asks for it.
        GaveUp = "gave_up",
        /// Scheduled times of a sub-process passed without a start.
        ScheduleMissed = "schedule_missed",
        /// Something is wrong with a log.
        LogProblem = "log_problem",
        /// Nothing is wrong with it any more.
        LogRecovered = "log_recovered",
        /// The disk of the logs is full.
        LogDiskFull = "log_disk_full",
        /// There is room on it again.
        LogDiskRoom = "log_disk_room",
        /// What an earlier daemon left is taken over.
        Recovered = "recovered",
        /// What must outlive the daemon cannot be written.
        StoreTrouble = "store_trouble",
        /// It can again, and all of it is.
        StoreHealed = "store_healed",
        /// The database was damaged.
        StoreSetAside = "store_set_aside",
        /// The daemon is not in the registry of CGSE.
        RegistryMissing = "registry_missing",
        /// It is in it.
        RegistryEntered = "registry_entered",
        /// A sub-process is listed there otherwise than before.
        RegistryHealth = "registry_health",
        /// A hub of CGSE is away, or takes nothing.
        HubMissing = "hub_missing",
        /// It is there.
        HubReached = "hub_reached",
    }
}

words! {
    /// How a service is listed in the registry of CGSE.
    RegistryHealth {
        /// Its signs of life come in time.
        Passing = "passing",
        /// They do not.
        Critical = "critical",
        /// It is not listed.
        Missing = "missing",
        /// Nobody can tell.
        Unknown = "unknown",
    }
}

words! {
    /// What happens when a scheduled time comes while the run before still goes on.
    Overlap {
        /// That time is left out, and reported.
        Skip = "skip",
    }
}

words! {
    /// Who had a run started.
    Origin {
        /// A client, by `execute`.
        Execute = "execute",
        /// A client, by `restart`, or by a `reload` that changed it.
        Restart = "restart",
        /// The daemon, at its own start, or at a `reload` that brought it.
        Autostart = "autostart",
        /// The restart policy.
        Policy = "policy",
        /// Its schedule.
        Schedule = "schedule",
        /// The start of another one that requires it.
        Required = "required",
    }
}

words! {
    /// Who had a run ended.
    EndedBy {
        /// Nobody: it ended by itself, or by something outside of the supervisor.
        Itself = "itself",
        /// A client, by `quit`.
        Quit = "quit",
        /// A client, by `reap`.
        Reap = "reap",
        /// A client, by `restart`, or by a `reload` that changed it.
        Restart = "restart",
        /// A client, by `unregister`, or by a `reload` of a file that has it no more.
        Unregister = "unregister",
        /// Its health check.
        Health = "health",
        /// It was not ready in time.
        StartTimeout = "start_timeout",
        /// The end for good of another one that it requires.
        Required = "required",
        /// The daemon, when it left.
        Shutdown = "shutdown",
    }
}

words! {
    /// What the supervisor tries to bring about, apart from what is.
    Wanted {
        /// It is to run.
        Up = "up",
        /// It is not to run.
        Down = "down",
    }
}

words! {
    /// When an end that nobody asked for is followed by a new start.
    RestartPolicy {
        /// Never.
        Never = "never",
        /// After a failure: a code outside `success_codes`, a signal, an end before `start_seconds`, or a start that failed.
        OnFailure = "on-failure",
        /// After every end that nobody asked for.
        Always = "always",
    }
}

/// A word that is not on its list, with the nearest one that is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {word:?}{}", nearest.as_ref().map(|n| format!(", did you mean {n:?}?")).unwrap_or_default())]
pub struct UnknownWord {
    /// What was said.
    pub word: String,
    /// The nearest word of the list, if one is near.
    pub nearest: Option<String>,
}

impl UnknownWord {
    fn new<'a>(word: &str, list: impl Iterator<Item = &'a str>) -> Self {
        let shown: String = word.chars().take(64).collect();
        Self { nearest: nearest(&shown, list).map(str::to_owned), word: shown }
    }
}

/// The word of `list` that `word` was most likely meant to be, if any is near enough to be a help.
pub fn nearest<'a>(word: &str, list: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    list.into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The registered name of a sub-process: 1 to 64 of `[A-Za-z0-9._@:-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(std::sync::Arc<str>);

/// A text that cannot be the name of a sub-process or of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not a name: 1 to 64 characters of A-Z a-z 0-9 . _ @ : - are allowed")]
pub struct InvalidName {
    shown: String,
}

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'@' | b':' | b'-');
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName { shown: text.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A signal by its Linux number, 1 to 64. Said as `"HUP"`, `"SIGHUP"`, `"RTMIN+1"` or a number; written as its short name (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

/// Names of the standard signals, at index number − 1, as on x86 and ARM (signal(7)).
const SIGNAL_NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
    "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal that programs may use: the C library keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
/// The last signal number of Linux.
const RTMAX: i32 = 64;

/// A text or number that is no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is not a signal: say a name such as \"TERM\" or \"SIGHUP\", or a number from 1 to 64")]
pub struct InvalidSignal {
    shown: String,
}

impl Signal {
    /// `SIGTERM`
    pub const TERM: Self = Self(15);
    /// `SIGKILL`
    pub const KILL: Self = Self(9);
    /// `SIGCONT`
    pub const CONT: Self = Self(18);

    /// The signal with this number.
    pub fn from_number(number: i64) -> Result<Self, InvalidSignal> {
        match i32::try_from(number) {
            Ok(number @ 1..=RTMAX) => Ok(Self(number)),
            _ => Err(InvalidSignal { shown: number.to_string() }),
        }
    }

    /// The Linux number, 1 to 64.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal { shown: text.chars().take(32).collect() };
        if let Ok(number) = text.parse::<i64>() {
            return Self::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = SIGNAL_NAMES.iter().position(|name| *name == short) {
            return i32::try_from(index + 1).map(Self).map_err(|_| invalid());
        }
        let real_time = match short.strip_prefix("RTMIN") {
            Some("") => Some(RTMIN),
            Some(rest) => rest.strip_prefix('+').and_then(|n| n.parse::<i32>().ok()).and_then(|n| RTMIN.checked_add(n)),
            None => None,
        };
        real_time.filter(|number| (RTMIN..=RTMAX).contains(number)).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0 - 1).unwrap_or(usize::MAX);
        match SIGNAL_NAMES.get(index) {
            Some(name) => f.pad(name),
            None if self.0 == RTMIN => f.pad("RTMIN"),
            None if self.0 > RTMIN => f.pad(&format!("RTMIN+{}", self.0 - RTMIN)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Signal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a signal's name or its number")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Signal, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Signal, E> {
                Signal::from_number(number).map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Signal, E> {
                Signal::from_number(i64::try_from(number).unwrap_or(i64::MAX)).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_signal_says_its_name_and_is_understood(number in 1i64..=64) {
            let signal = Signal::from_number(number).unwrap();
            prop_assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
            prop_assert_eq!(format!("SIG{signal}").parse::<Signal>().is_ok(), number != 32 && number != 33);
        }

        #[test]
        fn no_text_breaks_a_parser(text in ".{0,80}") {
            let _ = text.parse::<Signal>();
            let _ = text.parse::<CommandName>();
            if let Ok(name) = text.parse::<Name>() {
                prop_assert!(name.as_str().len() <= Name::MAX_LEN && !name.as_str().is_empty());
                prop_assert!(!name.as_str().contains(['/', ' ', '\n', '\0', '"']));
            }
        }
    }

    #[test]
    fn signals_are_the_ones_of_this_host() {
        for (name, number) in [("TERM", libc::SIGTERM), ("KILL", libc::SIGKILL), ("CONT", libc::SIGCONT), ("SYS", libc::SIGSYS)] {
            assert_eq!(name.parse::<Signal>().unwrap().number(), number);
        }
        assert_eq!("RTMIN+1".parse::<Signal>().unwrap().number(), libc::SIGRTMIN() + 1);
    }

    #[test]
    fn a_near_miss_is_named() {
        let error = "exceute".parse::<CommandName>().unwrap_err();
        assert_eq!(error.nearest.as_deref(), Some("execute"));
        assert_eq!("xyzzy".parse::<CommandName>().unwrap_err().nearest, None);
    }
}
