//! The definition of one sub-process with every default filled in and every value checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::definition::{Definition, Output};
use crate::protocol::{Name, RestartPolicy, Signal};

/// What is to be run under a name, and how. Two equal specifications are the same definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The registered name.
    pub name: Name,
    /// The group it is listed and quit with.
    pub group: Option<Name>,
    /// Program and leading arguments, at least one and the first not empty.
    pub cmd: Vec<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// Hand the joined words to `/bin/sh -c`.
    pub shell: bool,
    /// Added to the inherited environment.
    pub env: BTreeMap<String, String>,
    /// Inherit nothing of the daemon's environment.
    pub clear_env: bool,
    /// Working directory; `None` is the daemon's own.
    pub cwd: Option<PathBuf>,
    /// User to run as; `None` is the daemon's own.
    pub user: Option<String>,
    /// Where standard output goes.
    pub stdout: Output,
    /// Where standard error goes.
    pub stderr: Output,
    /// Start it when the daemon starts.
    pub autostart: bool,
    /// What decides about a new start.
    pub policy: Policy,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// How long it may take to end before SIGKILL.
    pub stop_timeout: Duration,
}

/// What the state machine needs to decide about a new start.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Which ends are followed by a start.
    pub restart: RestartPolicy,
    /// Exit codes that are no failure.
    pub success_codes: Vec<u8>,
    /// How long to wait before it.
    pub backoff: Backoff,
    /// How many starts are too many.
    pub start_limit: StartLimit,
    /// A shorter run is a failed start.
    pub start_seconds: Duration,
}

/// Exponential back-off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// Growth from one wait to the next, at least 1.
    pub factor: f64,
    /// The longest wait, jitter aside.
    pub max: Duration,
    /// Each wait is changed by up to this share of it, 0 to 1.
    pub jitter: f64,
    /// A run of this length makes the next wait the first again.
    pub reset_after: Duration,
}

/// At most `count` starts within `interval`; no limit when `count` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartLimit {
    /// Starts.
    pub count: u32,
    /// Time they are counted over.
    pub interval: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            factor: 2.0,
            max: Duration::from_secs(60),
            jitter: 0.1,
            reset_after: Duration::from_secs(60),
        }
    }
}

impl Default for StartLimit {
    fn default() -> Self {
        Self { count: 5, interval: Duration::from_secs(30) }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: RestartPolicy::Never,
            success_codes: vec![0],
            backoff: Backoff::default(),
            start_limit: StartLimit::default(),
            start_seconds: Duration::ZERO,
        }
    }
}

/// The stop time-out where the definition does not say one.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The most starts that a start limit may count, which bounds the memory that counting takes.
pub const MAX_START_LIMIT: u32 = 1000;

/// A key of a definition that holds something it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
pub struct Problem {
    /// The key of `[[process]]`.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl Spec {
    /// Fills in the built-in defaults and checks everything; all that is wrong is told at once.
    pub fn resolve(name: Name, definition: Definition) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |key: &'static str, message: &str| problems.push(Problem { key, message: message.to_owned() });
        let policy_defaults = Policy::default();

        let cmd = definition.cmd.unwrap_or_default();
        let args = definition.args.unwrap_or_default();
        match cmd.first() {
            None => wrong("cmd", "say which program to run, as a list: [\"program\", \"argument\"]"),
            Some(program) if program.is_empty() => wrong("cmd", "the program's name is empty"),
            Some(_) => {}
        }
        if cmd.iter().any(|word| word.contains('\0')) {
            wrong("cmd", "a word holds a NUL byte, which no argument can");
        }
        if args.iter().any(|word| word.contains('\0')) {
            wrong("args", "a word holds a NUL byte, which no argument can");
        }
        let env = definition.env.unwrap_or_default();
        if let Err(message) = check_env(&env) {
            wrong("env", &message);
        }
        if definition.cwd.as_ref().is_some_and(|cwd| cwd.as_os_str().is_empty() || cwd.as_os_str().as_encoded_bytes().contains(&0)) {
            wrong("cwd", "this is no path");
        }
        if definition.user.as_ref().is_some_and(|user| user.is_empty() || user.contains('\0')) {
            wrong("user", "this is no user's name");
        }
        let stdout = definition.stdout.unwrap_or(Output::Null);
        if stdout == Output::Stdout {
            wrong("stdout", "standard output cannot go to itself; \"stdout\" is for stderr");
        }
        for (key, output) in [("stdout", Some(&stdout)), ("stderr", definition.stderr.as_ref())] {
            if matches!(output, Some(Output::File(path)) if !path.is_absolute()) {
                wrong(key, "the path of a file must be absolute");
            }
        }

        let said = definition.backoff.unwrap_or_default();
        let backoff = Backoff {
            initial: said.initial.map_or(policy_defaults.backoff.initial, |s| s.duration()),
            factor: said.factor.unwrap_or(policy_defaults.backoff.factor),
            max: said.max.map_or(policy_defaults.backoff.max, |s| s.duration()),
            jitter: said.jitter.unwrap_or(policy_defaults.backoff.jitter),
            reset_after: said.reset_after.map_or(policy_defaults.backoff.reset_after, |s| s.duration()),
        };
        if !(1.0..=1000.0).contains(&backoff.factor) {
            wrong("backoff", "`factor` must be from 1 to 1000");
        }
        if !(0.0..=1.0).contains(&backoff.jitter) {
            wrong("backoff", "`jitter` must be from 0 to 1");
        }
        if backoff.max < backoff.initial {
            wrong("backoff", "`max` must not be less than `initial`");
        }
        let said = definition.start_limit.unwrap_or_default();
        let start_limit = StartLimit {
            count: said.count.unwrap_or(policy_defaults.start_limit.count),
            interval: said.interval.map_or(policy_defaults.start_limit.interval, |s| s.duration()),
        };
        if start_limit.count > MAX_START_LIMIT {
            wrong("start_limit", "`count` must be at most 1000");
        }

        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name,
            group: definition.group,
            cmd,
            args,
            shell: definition.shell.unwrap_or(false),
            env,
            clear_env: definition.clear_env.unwrap_or(false),
            cwd: definition.cwd,
            user: definition.user,
            stdout,
            stderr: definition.stderr.unwrap_or(Output::Null),
            autostart: definition.autostart.unwrap_or(false),
            policy: Policy {
                restart: definition.restart.unwrap_or(policy_defaults.restart),
                success_codes: definition.success_codes.unwrap_or(policy_defaults.success_codes),
                backoff,
                start_limit,
                start_seconds: definition.start_seconds.map_or(policy_defaults.start_seconds, |s| s.duration()),
            },
            stop_signal: definition.stop_signal.unwrap_or(Signal::TERM),
            stop_timeout: definition.stop_timeout.map_or(DEFAULT_STOP_TIMEOUT, |s| s.duration()),
        })
    }
}

/// Checks what `execve(2)` and every program that reads its environment take for granted.
pub fn check_env(env: &BTreeMap<String, String>) -> Result<(), String> {
    for (key, value) in env {
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(format!("{key:?} is not the name of a variable"));
        }
        if value.contains('\0') {
            return Err(format!("the value of {key} holds a NUL byte"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::definition::{BackoffDefinition, StartLimitDefinition};

    fn name() -> Name {
        "web".parse().unwrap()
    }

    fn minimal() -> Definition {
        Definition { cmd: Some(vec!["sleep".into()]), ..Definition::default() }
    }

    #[test]
    fn the_built_in_defaults_are_those_of_the_contract() {
        let spec = Spec::resolve(name(), minimal()).unwrap();
        assert_eq!(spec.policy, Policy::default());
        assert_eq!((spec.policy.restart, spec.autostart), (RestartPolicy::Never, false));
        assert_eq!((spec.stdout, spec.stderr), (Output::Null, Output::Null));
        assert_eq!((spec.stop_signal, spec.stop_timeout), (Signal::TERM, Duration::from_secs(5)));
        assert_eq!(spec.policy.start_limit, StartLimit { count: 5, interval: Duration::from_secs(30) });
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let definition = Definition {
            cmd: Some(vec![]),
            args: Some(vec!["a\0b".into()]),
            env: Some([("A=B".to_owned(), "x".to_owned())].into()),
            stdout: Some(Output::Stdout),
            stderr: Some(Output::File("relative".into())),
            backoff: Some(BackoffDefinition { factor: Some(f64::NAN), jitter: Some(2.0), ..Default::default() }),
            start_limit: Some(StartLimitDefinition { count: Some(1_000_000), interval: None }),
            ..Definition::default()
        };
        let keys: Vec<_> = Spec::resolve(name(), definition).unwrap_err().into_iter().map(|p| p.key).collect();
        assert_eq!(keys, ["cmd", "args", "env", "stdout", "stderr", "backoff", "backoff", "start_limit"]);
    }
}
