//! What a verb stands for: a request and its deadline, or something that needs no daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap_complete::Shell;
use glob::Pattern;

use super::verbs::{Extra, Items, StopTimeout, Target, Verb};
use crate::protocol::definition::Seconds;
use crate::protocol::request::{
    self, Audit, ByName, Command, DEFAULT_AUDIT_LIMIT, DEFAULT_HISTORY_LIMIT, Execute, History, IsProcessRunning, List, Match, NoArgs,
    Quit, Reap, Reload, Restart, SendSignal, Shutdown, Status,
};

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// One request.
    Ask(Command),
    /// One request for each `[[process]]` of a file, `-` for standard input.
    Register {
        /// The file.
        file: PathBuf,
        /// As in the request.
        replace: bool,
    },
    /// Show events.
    Events {
        /// The first that is wanted.
        since: Option<u64>,
        /// Of which sub-processes; of all where there is none.
        names: Vec<Pattern>,
        /// Go on with those that are to come.
        follow: bool,
    },
    /// Print lines, and go on.
    Follow(request::Logs),
    /// Print a completion script.
    Completions(Shell),
    /// Print the man page, or write all of them into a directory.
    Man(Option<PathBuf>),
}

impl From<Verb> for Task {
    fn from(verb: Verb) -> Self {
        Self::Ask(match verb {
            Verb::List { group, state } => Command::List(List { group, state, ..List::default() }),
            Verb::Status { name } => Command::Status(Status { name }),
            Verb::Execute { name, wait, start_timeout: timeout, extra: Extra { env, args } } => {
                Command::Execute(Execute { name, args, env: env.into_iter().collect(), wait, timeout })
            }
            Verb::Quit { target: Target { name, group, all }, stop: StopTimeout { stop_timeout: timeout } } => {
                Command::Quit(Quit { name, group, all, timeout })
            }
            Verb::Reap { name, stop: StopTimeout { stop_timeout: timeout }, children_only } => {
                Command::Reap(Reap { name, timeout, children_only })
            }
            Verb::Restart { target: Target { name, group, all }, stop: StopTimeout { stop_timeout: timeout }, env, args } => {
                Command::Restart(Restart { name, group, all, timeout, args, env: env.into_iter().collect() })
            }
            Verb::Signal { name, signal, tree } => Command::Signal(SendSignal { name, signal, tree }),
            Verb::Register { file, replace } => return Self::Register { file, replace },
            Verb::Unregister { name } => Command::Unregister(ByName { name }),
            Verb::IsRunning { name } => Command::IsRunning(ByName { name }),
            Verb::Exists { name } => Command::Exists(ByName { name }),
            Verb::Returncode { name } => Command::Returncode(ByName { name }),
            Verb::Children { name } => Command::Children(ByName { name }),
            Verb::Logs { name, follow, lines, stream } => {
                // As much as one answer may be: what limits the lines is their number.
                let max_bytes = Some(request::Logs::MOST_BYTES);
                let request = request::Logs { name, stream, lines: Some(lines), offset: None, max_bytes };
                if follow {
                    return Self::Follow(request);
                }
                Command::Logs(request)
            }
            Verb::Processes(items) => Command::Processes(matching(items)),
            Verb::ProcessInfo(items) => Command::ProcessInfo(matching(items)),
            Verb::IsProcessRunning { items, list } => {
                let Match { items, contains, case_sensitive } = matching(items);
                Command::IsProcessRunning(IsProcessRunning { items, contains, case_sensitive, as_list: list })
            }
            Verb::Zombies => Command::Zombies(NoArgs {}),
            Verb::Ping => Command::Ping(NoArgs {}),
            Verb::Info => Command::Info(NoArgs {}),
            Verb::Events { follow, since, names } => return Self::Events { since, names, follow },
            Verb::History { name, limit } => Command::History(History { name, limit: (limit != DEFAULT_HISTORY_LIMIT).then_some(limit) }),
            Verb::Audit { name, limit } => Command::Audit(Audit { name, limit: (limit != DEFAULT_AUDIT_LIMIT).then_some(limit) }),
            Verb::Reload { dry_run } => Command::Reload(Reload { dry_run }),
            Verb::Upgrade => Command::Upgrade(NoArgs {}),
            Verb::Shutdown { children } => Command::Shutdown(Shutdown { children }),
            Verb::Completions { shell } => return Self::Completions(shell),
            Verb::Man { output_dir } => return Self::Man(output_dir),
        })
    }
}

fn matching(Items { items, exact, case_sensitive }: Items) -> Match {
    Match { items: request::Items::Many(items), contains: !exact, case_sensitive }
}

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(5);

/// How long work may take beyond the stop time-out that the request names: configured stop time-outs, dependants and a loaded host have their time.
const WORK: Duration = Duration::from_secs(60);

/// How long to wait for one to get ready where nobody says how long that may take: its definition does, and those of what it requires.
const READINESS: Duration = Duration::from_secs(600);

/// How long to wait for the answer: what the user said, else what the command may need.
pub fn deadline(command: &Command, said: Option<Seconds>) -> Duration {
    if let Some(seconds) = said {
        return seconds.duration();
    }
    let work = |stop: Option<Seconds>| WORK + stop.map_or(Duration::ZERO, Seconds::duration);
    match command {
        Command::Quit(Quit { timeout, .. }) | Command::Reap(Reap { timeout, .. }) | Command::Restart(Restart { timeout, .. }) => {
            work(*timeout)
        }
        Command::Execute(Execute { timeout: Some(timeout), .. }) => work(Some(*timeout)),
        Command::Execute(Execute { wait: true, timeout: None, .. }) => READINESS,
        Command::Register(_)
        | Command::Unregister(_)
        | Command::Execute(_)
        | Command::Reload(_)
        | Command::Upgrade(_)
        | Command::Shutdown(_) => work(None),
        Command::Ping(_)
        | Command::Info(_)
        | Command::Signal(_)
        | Command::List(_)
        | Command::Status(_)
        | Command::Zombies(_)
        | Command::Processes(_)
        | Command::ProcessInfo(_)
        | Command::IsProcessRunning(_)
        | Command::IsRunning(_)
        | Command::Exists(_)
        | Command::Returncode(_)
        | Command::Children(_)
        | Command::Events(_)
        | Command::History(_)
        | Command::Audit(_)
        | Command::Logs(_) => QUESTION,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use crate::protocol::CommandName;
    use crate::protocol::codec::{decode_request, encode_request};
    use clap::Parser;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn task(line: &str) -> Task {
        Cli::try_parse_from(["procmanctl"].into_iter().chain(line.split(' '))).unwrap().verb.into()
    }

    fn command(line: &str) -> Command {
        match task(line) {
            Task::Ask(command) => command,
            other @ (Task::Register { .. } | Task::Events { .. } | Task::Follow(_) | Task::Completions(_) | Task::Man(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// The request of each command line, as it stands on the wire.
    #[test]
    fn each_verb_is_its_request() {
        let mut asked = BTreeSet::from([CommandName::Register, CommandName::Events]); // they are more than one request
        for (line, wire) in [
            ("ping", json!({"command": "ping"})),
            ("info", json!({"command": "info"})),
            ("zombies", json!({"command": "zombies"})),
            ("shutdown", json!({"command": "shutdown", "children": "quit"})),
            ("upgrade", json!({"command": "upgrade"})),
            ("shutdown --children keep", json!({"command": "shutdown", "children": "keep"})),
            ("list", json!({"command": "list"})),
            ("list --group g --state fatal", json!({"command": "list", "group": "g", "state": "fatal"})),
            ("status", json!({"command": "status"})),
            ("status web", json!({"command": "status", "name": "web"})),
            ("execute web", json!({"command": "execute", "name": "web"})),
            ("execute --wait web --start-timeout 9.5", json!({"command": "execute", "name": "web", "wait": true, "timeout": 9.5})),
            (
                "execute web --env A=b --env C= -- -x --all",
                json!({"command": "execute", "name": "web", "env": {"A": "b", "C": ""}, "args": ["-x", "--all"]}),
            ),
            ("quit web", json!({"command": "quit", "name": "web"})),
            ("quit --group g --stop-timeout 0.5", json!({"command": "quit", "group": "g", "timeout": 0.5})),
            ("quit --all", json!({"command": "quit", "all": true})),
            ("reap web", json!({"command": "reap", "name": "web"})),
            ("reap web --children-only --stop-timeout 1", json!({"command": "reap", "name": "web", "children_only": true, "timeout": 1.0})),
            ("restart --all", json!({"command": "restart", "all": true})),
            (
                "restart web --env A=b --stop-timeout 1 -- -v",
                json!({"command": "restart", "name": "web", "env": {"A": "b"}, "timeout": 1.0, "args": ["-v"]}),
            ),
            ("signal web sigusr1", json!({"command": "signal", "name": "web", "signal": "USR1"})),
            ("signal web 9 --tree", json!({"command": "signal", "name": "web", "signal": "KILL", "tree": true})),
            ("processes a b", json!({"command": "processes", "items": ["a", "b"]})),
            (
                "processes --exact --case-sensitive -- -m",
                json!({"command": "processes", "items": ["-m"], "contains": false, "case_sensitive": true}),
            ),
            ("process-info a", json!({"command": "process_info", "items": ["a"]})),
            ("is-process-running a", json!({"command": "is_process_running", "items": ["a"]})),
            ("is-process-running a --list", json!({"command": "is_process_running", "items": ["a"], "as_list": true})),
            ("is-running web", json!({"command": "is_running", "name": "web"})),
            ("exists web", json!({"command": "exists", "name": "web"})),
            ("returncode web", json!({"command": "returncode", "name": "web"})),
            ("children web", json!({"command": "children", "name": "web"})),
            ("history", json!({"command": "history"})),
            ("history web -n 7", json!({"command": "history", "name": "web", "limit": 7})),
            ("audit", json!({"command": "audit"})),
            ("audit web -n 7", json!({"command": "audit", "name": "web", "limit": 7})),
            ("reload", json!({"command": "reload"})),
            ("reload --dry-run", json!({"command": "reload", "dry_run": true})),
            (
                "logs web -n 5 --stream stderr",
                json!({"command": "logs", "name": "web", "stream": "stderr", "lines": 5, "max_bytes": 1 << 20}),
            ),
            ("unregister web", json!({"command": "unregister", "name": "web"})),
        ] {
            let command = command(line);
            let frame = encode_request(&command, None).unwrap();
            assert_eq!(rmp_serde::from_slice::<serde_json::Value>(&frame).unwrap(), wire, "{line}");
            asked.insert(command.name());
            assert_eq!(decode_request(&frame).unwrap().command, command, "{line}");
        }
        assert_eq!(asked.len(), CommandName::ALL.len(), "a command without its verb");
    }

    #[test]
    fn some_verbs_ask_nothing_or_much() {
        assert_eq!(task("register --replace -"), Task::Register { file: "-".into(), replace: true });
        let names = vec![Pattern::new("a*").unwrap()];
        assert_eq!(task("events -f --since 7 --name a*"), Task::Events { since: Some(7), names, follow: true });
        let followed = request::Logs {
            name: "web".parse().unwrap(),
            stream: request::LogStream::Stdout,
            lines: Some(100),
            offset: None,
            max_bytes: Some(1 << 20),
        };
        assert_eq!(task("logs web -f"), Task::Follow(followed));
        assert_eq!(task("completions zsh"), Task::Completions(Shell::Zsh));
        assert_eq!(task("man"), Task::Man(None));
        assert_eq!(task("man --output-dir /x"), Task::Man(Some("/x".into())));
    }

    #[test]
    fn work_gets_more_time_than_a_question() {
        for (line, seconds) in [("ping", 5), ("status web", 5), ("execute web", 60), ("shutdown", 60), ("quit web --stop-timeout 100", 160)]
        {
            assert_eq!(deadline(&command(line), None), Duration::from_secs(seconds), "{line}");
        }
        assert_eq!(deadline(&command("quit web --stop-timeout 100"), Seconds::new(1.0)), Duration::from_secs(1));
    }
}
