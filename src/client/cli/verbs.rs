//! One variant for each verb. The doc comments are the help texts: their first line is the short one.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Subcommand, ValueHint};
use clap_complete::Shell;
use glob::Pattern;

use super::parse;
use crate::protocol::definition::Seconds;
use crate::protocol::request::{self, ChildrenAtShutdown, DEFAULT_AUDIT_LIMIT, DEFAULT_HISTORY_LIMIT, LogStream};
use crate::protocol::{Name, Signal, StateName};

/// What `procmanctl` can be told to do.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Verb {
    /// List the registered sub-processes
    ///
    /// One line for each, in the order of their names: its group, state, PID, how long it has been running, how often it was started again by itself,
    /// how its last run ended, and what it runs. States: stopped, starting, running, stopping, backoff (waits for the next try), exited (ended by
    /// itself), fatal (given up), lost.
    #[command(
        after_help = "Examples:\n  procmanctl list\n  procmanctl list --group core\n  procmanctl list --state fatal\n  procmanctl list --json | jq -r '.result[].name'"
    )]
    List {
        /// Only those of this group
        #[arg(long)]
        group: Option<Name>,
        /// Only those in this state
        #[arg(long, value_parser = states())]
        state: Option<StateName>,
    },

    /// Show what sub-processes use, or everything about one
    ///
    /// Without NAME: one line for the daemon and one for each sub-process with its memory, processor, threads, open files and process tree. With NAME:
    /// everything about that one. The numbers are brought up to date before they are answered. With NAME the exit code is 0 when it runs (its state is
    /// starting or running) and 1 when it does not (every other state, also when it is being ended).
    #[command(
        after_help = "Examples:\n  procmanctl status\n  procmanctl status registry\n  procmanctl status registry >/dev/null || echo 'it is down'"
    )]
    Status {
        /// Which sub-process
        name: Option<Name>,
    },

    /// Start a sub-process
    ///
    /// Starts what is registered under NAME and tells its PID. What it requires is started first where it does not run, and waited for until it is
    /// ready. One that runs already is an error (already_running). Words after -- are added to its arguments, and --env to its environment, for this
    /// run only. With --wait the answer comes once it is ready, or has exited with success; a start that fails before is an error that says why.
    #[command(
        after_help = "Examples:\n  procmanctl execute registry\n  procmanctl execute --wait registry\n  procmanctl execute camera --env LOG_LEVEL=debug -- --simulator",
        visible_alias = "start"
    )]
    Execute {
        /// Which sub-process
        name: Name,
        /// Answer only once it is ready, or its start has failed
        #[arg(long)]
        wait: bool,
        /// Seconds that the start may take before the daemon answers that it is not done (code timeout); it goes on
        #[arg(long, value_name = "SECONDS", value_parser = parse::seconds)]
        start_timeout: Option<Seconds>,
        /// What this run gets beyond the definition
        #[command(flatten)]
        extra: Extra,
    },

    /// End a sub-process and everything it has started
    ///
    /// Asks the whole process tree to end, waits up to the stop time-out, kills what is left, and tells what it took. One that does not run is no
    /// error. It is not started again, whatever its restart policy. What requires it is ended before it; with --group and --all everything is ended
    /// in the reverse of the order in which it depends on each other. The exit code is 1 when a process outlives even SIGKILL.
    #[command(
        after_help = "Examples:\n  procmanctl quit registry\n  procmanctl quit --group core --stop-timeout 10\n  procmanctl quit --all",
        visible_alias = "stop"
    )]
    Quit {
        /// Which sub-processes
        #[command(flatten)]
        target: Target,
        /// How long they may take
        #[command(flatten)]
        stop: StopTimeout,
    },

    /// End a process tree the hard way
    ///
    /// SIGTERM to the process and every descendant, wait, SIGKILL to what is left. Unlike quit it sends SIGTERM whatever stop signal is configured, and
    /// waits 3 seconds where --stop-timeout is not given. The exit code is 1 when a process outlives even SIGKILL.
    #[command(after_help = "Examples:\n  procmanctl reap registry\n  procmanctl reap registry --children-only --stop-timeout 1")]
    Reap {
        /// Which sub-process
        name: Name,
        /// How long they may take
        #[command(flatten)]
        stop: StopTimeout,
        /// Leave the process itself alone, end only what is below it
        #[arg(long)]
        children_only: bool,
    },

    /// End a sub-process and start it again
    ///
    /// A quit and then an execute. One that does not run is started. What requires it is left alone; with --group and --all everything is ended in
    /// order, and then started in order. Words after -- and --env are for the new run only, and only with NAME.
    #[command(
        after_help = "Examples:\n  procmanctl restart registry\n  procmanctl restart camera --stop-timeout 10 -- --simulator\n  procmanctl restart --group core"
    )]
    Restart {
        /// Which sub-processes
        #[command(flatten)]
        target: Target,
        /// How long they may take
        #[command(flatten)]
        stop: StopTimeout,
        /// A variable for this run only; may be given several times
        #[arg(long = "env", value_name = "KEY=VALUE", value_parser = parse::variable, conflicts_with_all = ["group", "all"])]
        env: Vec<(String, String)>,
        /// Arguments for this run only
        #[arg(last = true, value_name = "ARGS", conflicts_with_all = ["group", "all"])]
        args: Vec<String>,
    },

    /// Send a signal to a sub-process
    ///
    /// The signal is said by name, with or without SIG, or by number. One that ends the process is an end nobody asked for, so that the restart policy
    /// applies: use quit to end it for good.
    #[command(after_help = "Examples:\n  procmanctl signal web HUP\n  procmanctl signal web SIGUSR1 --tree")]
    Signal {
        /// Which sub-process
        name: Name,
        /// HUP, SIGHUP, 1 …
        #[arg(value_name = "SIG")]
        signal: Signal,
        /// To every descendant too
        #[arg(long)]
        tree: bool,
    },

    /// Register the sub-processes of a file
    ///
    /// The file holds `[[process]]` tables as the daemon's configuration does: a name and the keys of that sub-process, with the same `[defaults]` table.
    /// A mistake is told with its line and key, and then nothing is registered. To register the same definition again is no error; another one under a
    /// known name needs --replace. Relative paths are relative to the file. Whom an entry names in `after` and `requires` must be known to the daemon,
    /// or stand in the same file.
    #[command(
        after_help = "Examples:\n  procmanctl register camera.toml\n  procmanctl register --replace camera.toml\n  printf '[[process]]\\nname = \"nap\"\\ncmd = [\"sleep\", \"60\"]\\n' | procmanctl register -"
    )]
    Register {
        /// A TOML file, - for standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Put it in the place of another definition under the same name
        #[arg(long)]
        replace: bool,
    },

    /// Forget a sub-process
    ///
    /// The name is free again afterwards. One that runs is ended first, with its whole tree. One that others require is not forgotten.
    #[command(after_help = "Examples:\n  procmanctl unregister nap", visible_alias = "remove")]
    Unregister {
        /// Which sub-process
        name: Name,
    },

    /// Tell whether a sub-process runs
    ///
    /// Prints yes or no; the exit code is 0 for yes and 1 for no. A zombie does not run.
    #[command(after_help = "Examples:\n  procmanctl is-running registry && echo up")]
    IsRunning {
        /// Which sub-process
        name: Name,
    },

    /// Tell whether the process of a sub-process exists
    ///
    /// Prints yes or no; the exit code is 0 for yes and 1 for no. A zombie still exists.
    #[command(after_help = "Examples:\n  procmanctl exists registry")]
    Exists {
        /// Which sub-process
        name: Name,
    },

    /// Print how the last run of a sub-process ended
    ///
    /// Prints its exit code, -N when signal N ended it, or none while it runs and when it never ran. The exit code of procmanctl itself is 0 all the
    /// same.
    #[command(after_help = "Examples:\n  procmanctl returncode registry")]
    Returncode {
        /// Which sub-process
        name: Name,
    },

    /// List the descendants of a sub-process
    ///
    /// Every process below it, also one that has put itself into a session of its own or has lost its parent.
    #[command(after_help = "Examples:\n  procmanctl children registry")]
    Children {
        /// Which sub-process
        name: Name,
    },

    /// Show what a sub-process has written
    ///
    /// The last lines of its standard output, or with --stream stderr of its standard error; of an output that goes to "log", or to a file. With -f it
    /// goes on with what is written from then on, until it is interrupted (Ctrl-C, exit code 0): across rotations, and when the daemon is restarted or
    /// does not answer for a while, which is told on standard error; no line is left out or shown twice. A line is shown once it is whole. On a
    /// terminal, characters that would act on it are shown as escapes; a pipe gets them as they are, but for bytes that are no UTF-8.
    #[command(
        after_help = "Examples:\n  procmanctl logs registry\n  procmanctl logs registry -f -n 20\n  procmanctl logs registry --stream stderr -n 1000 | grep -i error"
    )]
    Logs {
        /// Which sub-process
        name: Name,
        /// Go on with what is written from now on
        #[arg(short, long)]
        follow: bool,
        /// So many of the last lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = request::Logs::LINES)]
        lines: u32,
        /// Which output: stdout or stderr
        #[arg(long, default_value = "stdout", value_parser = streams())]
        stream: LogStream,
    },

    /// Find processes of the host by their command line, with their status
    ///
    /// Finds those in whose command line every ITEM occurs, each within some argument. The processes need not be sub-processes of the daemon.
    #[command(
        after_help = "Examples:\n  procmanctl processes python egse\n  procmanctl processes --exact --case-sensitive -- -m egse.registry.server"
    )]
    Processes(Items),

    /// Find processes of the host by their command line, with their creation time
    ///
    /// As processes, with the time each was created instead of its status.
    #[command(after_help = "Examples:\n  procmanctl process-info egse\n  procmanctl --json process-info egse | jq '.result[].cmdline'")]
    ProcessInfo(Items),

    /// Tell whether a process of the host runs
    ///
    /// Prints the lowest PID whose command line matches as for processes, or 0; the exit code is 0 when there is one and 1 when there is none. Zombies
    /// never match.
    #[command(
        after_help = "Examples:\n  procmanctl is-process-running egse.registry.server\n  procmanctl is-process-running --list python"
    )]
    IsProcessRunning {
        /// What to look for
        #[command(flatten)]
        items: Items,
        /// Print every PID, one a line, instead of the lowest
        #[arg(long)]
        list: bool,
    },

    /// List every zombie of the host
    ///
    /// A zombie has ended and waits for its parent to take note; the daemon leaves none of its own.
    #[command(after_help = "Examples:\n  procmanctl zombies")]
    Zombies,

    /// Ask whether the daemon is there
    ///
    /// The exit code is 0 when it answers, 3 when nobody listens there and 4 when somebody does but does not answer in time.
    #[command(after_help = "Examples:\n  procmanctl ping\n  procmanctl ping --timeout 1 --endpoint tcp://127.0.0.1:6200")]
    Ping,

    /// Tell what daemon it is and what it can do
    ///
    /// Its version, since when it runs, where it listens, what it can do on this host, and how many sub-processes are in which state.
    #[command(after_help = "Examples:\n  procmanctl info")]
    Info,

    /// Show what happened, and with -f what happens
    ///
    /// One line for each event: when, its number, which sub-process, and what: a change of state, a start that failed, a restart that is to come. The
    /// daemon keeps the last 4096. With -f further ones follow as they come, until Ctrl-C; none is missed that the daemon still has, also when the
    /// connection breaks or the daemon is started anew, and what is lost for good is told on standard error. A daemon that goes away is waited for; one
    /// that is not there at the start is an error. With --json each event is one JSON object on a line of its own.
    #[command(
        after_help = "Examples:\n  procmanctl events\n  procmanctl events -f --name 'camera-*'\n  procmanctl --json events -f | jq -r 'select(.to == \"fatal\").name'"
    )]
    Events {
        /// Go on with what happens from now on
        #[arg(short, long)]
        follow: bool,
        /// Begin with the event of this number instead of the first that is kept
        #[arg(long, value_name = "NUMBER")]
        since: Option<u64>,
        /// Only those about sub-processes with such a name, * ? and [ as in a shell; may be given several times
        #[arg(long = "name", value_name = "PATTERN", value_parser = parse::pattern)]
        names: Vec<Pattern>,
    },

    /// Show how past runs began and ended
    ///
    /// The runs that have ended, newest first: when each began and by whose wish, how long it lived, how it ended and by whose wish. A start that failed is
    /// one, too, without a PID. The last hundred of each sub-process are kept, also over the daemon's own end.
    #[command(
        after_help = "Examples:\n  procmanctl history\n  procmanctl history camera -n 5\n  procmanctl --json history camera | jq '.result[0].cause'"
    )]
    History {
        /// Which sub-process; without it, all
        name: Option<Name>,
        /// At most so many
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = DEFAULT_HISTORY_LIMIT)]
        limit: u64,
    },

    /// Show who had what changed, and what came of it
    ///
    /// The commands that were to change something, newest first: when each was answered, who gave it and from where, what it was about, and its outcome,
    /// refusals included. What was asked again under the same id is told once, and a reload with --dry-run not at all. Signals that the daemon was sent
    /// have the endpoint signal. With NAME only what named that sub-process itself, not what was about its group or all.
    #[command(
        after_help = "Examples:\n  procmanctl audit\n  procmanctl audit camera -n 5\n  procmanctl --json audit | jq -r '.result[] | select(.outcome != \"ok\")'"
    )]
    Audit {
        /// About which sub-process; without it, all
        name: Option<Name>,
        /// At most so many, up to 10000
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = DEFAULT_AUDIT_LIMIT)]
        limit: u64,
    },

    /// Read the configuration again, and do what differs
    ///
    /// The daemon reads its file and all that it includes. What is new is registered, and started where it says autostart; what is gone is quit and
    /// forgotten; what has changed is taken over as it runs where that can be (restart policy, stop settings, order, logs, health), and is else started
    /// anew if it runs; the rest is not touched, nor is what was registered at run time. A file with a mistake changes nothing: every mistake is told, and the exit code is 1. The answer says what is
    /// done, and comes before the starts and ends are over: list shows them. Settings of the daemon itself that differ are named as ignored: they need a restart of the
    /// daemon. With --dry-run it only says what it would do.
    #[command(
        after_help = "Examples:\n  procmanctl reload --dry-run\n  procmanctl reload\n  procmanctl --json reload --dry-run | jq '.result.restarted'"
    )]
    Reload {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },

    /// Put the daemon's newly installed program in its place
    ///
    /// The daemon executes the program that is installed now, in the same process: the sub-processes stay as they are, and clients notice no more than that they
    /// connect anew. A new program that cannot work with the configuration is refused before anything is given up. A daemon that cannot do this says so, and goes on.
    /// This returns once the new program answers.
    #[command(after_help = "Examples:\n  procmanctl upgrade && procmanctl info")]
    Upgrade,

    /// Have the daemon leave
    ///
    /// The sub-processes are quit first, in the reverse of the order in which they depend on each other. With --children keep they go on running for the
    /// next daemon to take over; a daemon that cannot do that says so, and stays.
    #[command(after_help = "Examples:\n  procmanctl shutdown\n  procmanctl shutdown --children keep")]
    Shutdown {
        /// What becomes of the sub-processes: quit or keep
        #[arg(long, default_value = "quit", value_name = "WHAT", value_parser = children())]
        children: ChildrenAtShutdown,
    },

    /// Print a completion script for a shell
    ///
    /// It completes verbs, options and the words that some options take. No daemon is asked.
    #[command(
        after_help = "Examples:\n  procmanctl completions bash > /etc/bash_completion.d/procmanctl\n  procmanctl completions zsh > ~/.zfunc/_procmanctl"
    )]
    Completions {
        /// For which shell
        shell: Shell,
    },

    /// Print the man page, or write one for each verb
    ///
    /// Without --output-dir the page of procmanctl itself goes to standard output. No daemon is asked.
    #[command(after_help = "Examples:\n  procmanctl man | man -l -\n  procmanctl man --output-dir /usr/local/share/man/man1")]
    Man {
        /// Write procmanctl.1 and a page for each verb into this directory, which must exist
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        output_dir: Option<PathBuf>,
    },
}

/// Which sub-processes: exactly one of the three.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(group = ArgGroup::new("target").required(true).multiple(false).args(["name", "group", "all"]))]
pub struct Target {
    /// Which sub-process
    pub name: Option<Name>,
    /// Every sub-process of this group
    #[arg(long)]
    pub group: Option<Name>,
    /// Every sub-process
    #[arg(long)]
    pub all: bool,
}

/// How long a process may take to end.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct StopTimeout {
    /// Seconds that a process gets to end before it is killed
    ///
    /// The daemon waits this long between the stop signal and SIGKILL. Where it is not given, quit and restart take the definition's stop_timeout (5 s
    /// unless configured) and reap takes 3 s. How long procmanctl itself waits for the answer is --timeout.
    #[arg(long = "stop-timeout", value_name = "SECONDS", value_parser = parse::seconds)]
    pub stop_timeout: Option<Seconds>,
}

/// What one run gets beyond the definition.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Extra {
    /// A variable for this run only; may be given several times
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = parse::variable)]
    pub env: Vec<(String, String)>,
    /// Arguments for this run only
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// What to look for in the command lines of the host.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Items {
    /// Texts that must all occur in the command line
    #[arg(required = true, value_name = "ITEM")]
    pub items: Vec<String>,
    /// An item must equal a whole argument instead of occurring in it
    #[arg(long)]
    pub exact: bool,
    /// Tell upper and lower case apart
    #[arg(long)]
    pub case_sensitive: bool,
}

/// The outputs, as words that completion and errors can list.
fn streams() -> impl TypedValueParser<Value = LogStream> {
    PossibleValuesParser::new(["stdout", "stderr"]).map(|word| if word == "stderr" { LogStream::Stderr } else { LogStream::Stdout })
}

/// What becomes of the sub-processes, as words that completion and errors can list.
fn children() -> impl TypedValueParser<Value = ChildrenAtShutdown> {
    PossibleValuesParser::new(["quit", "keep"]).map(|word| if word == "keep" { ChildrenAtShutdown::Keep } else { ChildrenAtShutdown::Quit })
}

/// The states, as words that completion and errors can list.
fn states() -> impl TypedValueParser<Value = StateName> {
    PossibleValuesParser::new(StateName::ALL.iter().map(|state| state.as_str())).try_map(|word| word.parse::<StateName>())
}
