//! The definition of one sub-process with every default filled in and every value checked.
//!
//! - [`instances`]: one definition for several of them;
//! - [`probe`]: how it is asked whether it is ready, whether it is well, and to end;
//! - [`schedule`]: when it is started by the clock.

pub mod instances;
pub mod probe;
pub mod schedule;
mod start_sum;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::definition::{Definition, EnvFile, LimitsDefinition, LogDefinition, Output};
use crate::protocol::{Name, Overlap, RestartPolicy, Signal};

use probe::{Health, Ready, StopRequest};
use schedule::Schedule;

/// What is to be run under a name, and how. Two equal specifications are the same definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The registered name.
    pub name: Name,
    /// The name of the definition that it stems from: its own, or that which it is an instance of.
    pub definition: Name,
    /// Its type in the registry of CGSE.
    pub cgse_service_type: Option<String>,
    /// A sum of what a process is started with, for a later daemon.
    pub start_sum: u64,
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
    /// More of the environment, read at each start; `env` wins over it.
    pub env_file: Option<EnvFile>,
    /// Working directory; `None` is the daemon's own.
    pub cwd: Option<PathBuf>,
    /// User to run as; `None` is the daemon's own.
    pub user: Option<String>,
    /// Primary group; `None` is the user's.
    pub user_group: Option<String>,
    /// Supplementary groups; `None` are the user's.
    pub supplementary_groups: Option<Vec<String>>,
    /// Permissions that files it makes do not get; `None` is the daemon's own.
    pub umask: Option<u32>,
    /// Niceness; `None` is the daemon's own.
    pub nice: Option<i32>,
    /// How readily the kernel kills it for lack of memory; `None` is the daemon's own.
    pub oom_score_adj: Option<i32>,
    /// Gains no privileges by executing a program.
    pub no_new_privs: bool,
    /// Resource limits.
    pub limits: LimitsDefinition,
    /// Started before it and ended after it, where both are.
    pub after: Vec<Name>,
    /// Started for it, and waited for until they are ready.
    pub requires: Vec<Name>,
    /// Where standard output goes.
    pub stdout: Output,
    /// Where standard error goes.
    pub stderr: Output,
    /// How its log files are rotated.
    pub log: LogPolicy,
    /// Start it when the daemon starts.
    pub autostart: bool,
    /// When to start it by the clock.
    pub schedule: Option<Schedule>,
    /// What happens when such a time comes while it runs.
    pub overlap: Overlap,
    /// What decides about a new start.
    pub policy: Policy,
    /// When it is ready; `None`: as soon as it has lived for `start_seconds`.
    pub ready: Option<Ready>,
    /// How it is known that it is well.
    pub health: Option<Health>,
    /// What asks it to end before the signal does.
    pub stop_request: Option<StopRequest>,
    /// The signal that asks it to end.
    pub stop_signal: Signal,
    /// How long it may take to end before SIGKILL.
    pub stop_timeout: Duration,
}

/// How log files are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// A file of this size in bytes is rotated; 0 means never.
    pub max_size: u64,
    /// How many rotated files are kept.
    pub keep: u32,
    /// Compress rotated files.
    pub compress: bool,
    /// Rotated files older than this are removed.
    pub max_age: Option<Duration>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { max_size: 10 << 20, keep: 5, compress: true, max_age: None }
    }
}

impl LogPolicy {
    fn resolve(said: LogDefinition) -> Self {
        let defaults = Self::default();
        Self {
            max_size: said.max_size.map_or(defaults.max_size, |size| size.get()),
            keep: said.keep.unwrap_or(defaults.keep),
            compress: said.compress.unwrap_or(defaults.compress),
            max_age: said.max_age.map(|age| age.duration()).filter(|age| !age.is_zero()),
        }
    }
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
    /// When it goes from starting to running.
    pub readiness: Readiness,
}

/// When a sub-process goes from starting to running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readiness {
    /// Once it has lived for `start_seconds`.
    #[default]
    Lived,
    /// Once somebody says so, within this time; `None` is for ever.
    Told {
        /// Else the start has failed.
        within: Option<Duration>,
    },
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
            readiness: Readiness::Lived,
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
        let start_sum = start_sum::start_sum(&definition);
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
        let no_group = |group: &String| group.is_empty() || group.contains('\0');
        if definition.user_group.as_ref().is_some_and(no_group) {
            wrong("user_group", "this is no group's name");
        }
        if definition.supplementary_groups.as_ref().is_some_and(|groups| groups.iter().any(no_group)) {
            wrong("supplementary_groups", "one of them is no group's name");
        }
        if definition.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
            wrong("nice", "niceness is from -20 to 19");
        }
        if definition.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            wrong("oom_score_adj", "it is from -1000 (never killed) to 1000 (killed first)");
        }
        let limits = definition.limits.unwrap_or_default();
        if limits.cpu_weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
            wrong("limits", "`cpu_weight` is from 1 to 10000");
        }
        if limits.pids_max == Some(0) {
            wrong("limits", "with a `pids_max` of 0 it could not even start");
        }
        if definition
            .env_file
            .as_ref()
            .is_some_and(|file| !file.path.is_absolute() || file.path.as_os_str().as_encoded_bytes().contains(&0))
        {
            wrong("env_file", "the path must be absolute");
        }
        if definition.instances.is_some() {
            wrong("instances", "the instances of a definition are told apart before it is looked at on its own");
        }
        let after = definition.after.unwrap_or_default();
        let requires = definition.requires.unwrap_or_default();
        for (key, names) in [("after", &after), ("requires", &requires)] {
            if names.contains(&name) {
                wrong(key, &format!("{name} cannot wait for itself"));
            }
        }
        let mut resolved = |key, result: Result<(), String>| {
            if let Err(message) = result {
                wrong(key, &message);
            }
        };
        let ready = definition.ready.as_ref().map(Ready::resolve).transpose();
        let health = definition.health.as_ref().map(Health::resolve).transpose();
        let stop_request = definition.stop_request.as_ref().map(StopRequest::resolve).transpose();
        let schedule = definition.schedule.as_deref().map(Schedule::parse).transpose();
        resolved("schedule", schedule.as_ref().map(drop).map_err(Clone::clone));
        resolved("ready", ready.as_ref().map(drop).map_err(Clone::clone));
        resolved("health", health.as_ref().map(drop).map_err(Clone::clone));
        resolved("stop_request", stop_request.as_ref().map(drop).map_err(Clone::clone));
        let cgse_service_type = definition.cgse_service_type.as_deref().map(|text| probe::cgse_type("cgse_service_type", text)).transpose();
        resolved("cgse_service_type", cgse_service_type.as_ref().map(drop).map_err(Clone::clone));
        let cgse_service_type = cgse_service_type.ok().flatten();
        if let Ok(Some(StopRequest { probe: probe::Probe::CgseTerminate { service_type, .. }, .. })) = &stop_request
            && cgse_service_type.as_ref() != Some(service_type)
        {
            resolved("stop_request", Err(format!("`cgse` asks the sub-process itself: say `cgse_service_type = {service_type:?}`, too")));
        }
        let ready = match (ready, &cgse_service_type) {
            (Ok(None), Some(service_type)) => Ok(Some(Ready::listed(service_type))),
            (ready, _) => ready,
        };
        let (ready, health, stop_request) = (ready.ok().flatten(), health.ok().flatten(), stop_request.ok().flatten());
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
            definition: name.clone(),
            cgse_service_type,
            start_sum,
            name,
            group: definition.group,
            cmd,
            args,
            shell: definition.shell.unwrap_or(false),
            env,
            clear_env: definition.clear_env.unwrap_or(false),
            env_file: definition.env_file,
            cwd: definition.cwd,
            user: definition.user,
            user_group: definition.user_group,
            supplementary_groups: definition.supplementary_groups,
            umask: definition.umask.map(|umask| umask.bits()),
            nice: definition.nice,
            oom_score_adj: definition.oom_score_adj,
            no_new_privs: definition.no_new_privs.unwrap_or(false),
            limits,
            after,
            requires,
            stdout,
            stderr: definition.stderr.unwrap_or(Output::Null),
            log: LogPolicy::resolve(definition.log.unwrap_or_default()),
            autostart: definition.autostart.unwrap_or(false),
            schedule: schedule.ok().flatten(),
            overlap: definition.overlap.unwrap_or(Overlap::Skip),
            policy: Policy {
                restart: definition.restart.unwrap_or(policy_defaults.restart),
                success_codes: definition.success_codes.unwrap_or(policy_defaults.success_codes),
                backoff,
                start_limit,
                start_seconds: definition.start_seconds.map_or(policy_defaults.start_seconds, |s| s.duration()),
                readiness: ready.as_ref().map_or(Readiness::Lived, |ready| Readiness::Told { within: ready.timeout }),
            },
            ready,
            health,
            stop_request,
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
