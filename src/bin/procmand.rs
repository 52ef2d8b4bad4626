//! `procmand`: arguments → daemon → exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use procman::access::keys::{self, Generated, KeyFileError};
use procman::config::{Config, Loaded};
use procman::daemon::unit::{self, UnitError};
use procman::daemon::{ExitReason, Prepared, StartError, kept, prepare};
use procman::telemetry::{LogFormat, Telemetry, logging};

/// Supervises processes on this host.
///
/// Takes commands over ZeroMQ (see procmanctl), keeps the status of each sub-process and serves it to Prometheus.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Configuration file; without it /etc/procman/procmand.toml for root and ~/.config/procman/procmand.toml for others, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say all that is wrong with the configuration, and where; start nothing
    #[arg(long)]
    check: bool,
    /// For ExecStop= of systemd: where UNIT is being restarted, have the daemon leave, and everything run on for the next one
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["config", "check"])]
    exec_stop: Option<String>,
    /// For ExecStopPost= of systemd: clear up behind a daemon that was killed; where UNIT is being stopped, end what it left
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["config", "check", "exec_stop"])]
    exec_stop_post: Option<String>,
    /// Soft limit on open descriptors that sub-processes get, unless their definition says another; without it the one that the daemon was started with
    #[arg(long, value_name = "NUMBER")]
    nofile: Option<u64>,
    /// How log lines look, on standard error: text or json
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

/// What it does instead of supervising.
#[derive(Debug, Subcommand)]
enum Task {
    /// Make a pair of CURVE keys, BASE.secret (mode 0600) and BASE.public: one for the daemon, one for each client that comes by TCP
    ///
    /// The daemon's secret key is named in control.curve.secret_key_file, and clients need to know its public one. Of a client, the public key is
    /// entered in a [[control.client]] of the daemon's configuration, and the secret one stays with it. Files that are there are kept.
    Keygen {
        /// Path and name of the two files, without the endings
        #[arg(value_name = "BASE")]
        base: PathBuf,
    },
}

const AFTER_HELP: &str = "\
Environment:
  PROCMAN_LOG  what is logged: off, error, warn, info (default), debug, trace, or target=level pairs

Signals:
  SIGTERM, SIGINT  quit all sub-processes in the reverse of their order, then leave; a second one kills what is left
  SIGUSR1          leave, and let all sub-processes run on for the next daemon
  SIGUSR2          have the program that is installed now take over in the same process, as procmanctl upgrade
  SIGHUP           read the configuration again and do what differs, as procmanctl reload

Exit codes:
   0  asked to leave, or --check found nothing wrong
   1  a fault of the daemon or of the operating system
   2  the command line is wrong
  69  a control or events endpoint cannot be bound
  73  the state or runtime directory, or the control group of daemon.cgroup, cannot be written
  74  the disk of the state directory is out of order, and what is on it cannot be read
  75  another daemon holds the state directory
  76  the metrics address cannot be bound
  78  the configuration is wrong";

/// Threads that read `/proc`. Each process that is stuck in the kernel may hold one of them; more than a few at a time are no faster on any host.
const BLOCKING_THREADS: usize = 64;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitReason::Done.into(),
        Err(Failure::Logging(error)) => fail(&error.to_string(), ExitReason::Usage),
        Err(Failure::Keys(error)) => fail(&error.to_string(), ExitReason::Failure),
        Err(Failure::Unit(error)) => fail(&error.to_string(), ExitReason::Failure),
        Err(Failure::Start(error)) => fail(&error.to_string(), error.reason()),
    }
}

enum Failure {
    Logging(logging::LoggingError),
    Start(StartError),
    Unit(UnitError),
    Keys(KeyFileError),
}

impl<E: Into<StartError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Start(error.into())
    }
}

/// A line for people. Where standard error is broken, the exit code still tells.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "procmand: {line}"));
}

fn fail(message: &str, reason: ExitReason) -> ExitCode {
    for line in message.lines() {
        say(line);
    }
    reason.into()
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(Task::Keygen { base }) = &arguments.task {
        let Generated { secret_file, public_file, public } = keys::generate(base).map_err(Failure::Keys)?;
        let said = format!("{public}\n");
        drop(std::io::stdout().write_all(said.as_bytes()));
        say(&format!("the secret key is in {}, this public one in {}, too", secret_file.display(), public_file.display()));
        return Ok(());
    }
    if let Some(unit) = &arguments.exec_stop {
        return unit::exec_stop(unit).map_err(Failure::Unit);
    }
    if let Some(unit) = &arguments.exec_stop_post {
        return unit::exec_stop_post(unit).map_err(Failure::Unit);
    }
    let Loaded { config, warnings } = match &arguments.config {
        Some(file) => Config::load(file),
        None => Config::load_default(),
    }?;
    if arguments.check {
        for warning in &warnings {
            say(&format!("warning: {warning}"));
        }
        prepare::check(&config)?;
        say(&format!("{}{}{} sub-processes", config.source.display(), prepare::NOTHING_IS_WRONG, config.processes.len()));
        return Ok(());
    }
    let kept = kept::take();
    prepare::first_of_all()?;
    let log = logging::init(arguments.log_format).map_err(Failure::Logging)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let prepared = Prepared::take(config, kept, arguments.nofile)?;
    let telemetry = Telemetry::new()?;
    // Two workers: one endpoint's task never has to wait for another's, and the daemon stays small. What blocks runs on threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(512 * 1024)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "cannot start the runtime", source })?;
    match runtime.block_on(prepared.run(telemetry)) {
        Ok(after) => Ok(after.conclude(runtime, log)?),
        Err(error) => {
            // A thread that reads of a stuck process may never end; the daemon does.
            runtime.shutdown_background();
            Err(error.into())
        }
    }
}
