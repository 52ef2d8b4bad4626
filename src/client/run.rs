//! One call of `procmanctl`: arguments in, texts and an exit code out.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{CommandFactory, Parser};
use glob::Pattern;
use jiff::tz::TimeZone;

use super::cli::{Cli, Task, deadline};
use super::connection::{Answer, Client, ClientOptions};
use super::definitions;
use super::endpoint::Endpoint;
use super::error::ClientError;
use super::events::Events;
use super::exit::{Exit, Failure};
use super::follow::Follow;
use super::peer::{KeysError, Peer, Said};
use super::render::{Report, Style, report, report_json, text::escape};
use super::upgrade::upgrade;
use crate::protocol::definition::Seconds;
use crate::protocol::request::{self, Command, IsProcessRunning};

/// What the call finds around it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// `PROCMAN_ENDPOINT`, where it is set and not empty.
    pub endpoint: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// The user's file about the daemon, where there is a place for one.
    pub client_file: Option<PathBuf>,
    /// The effective user is root.
    pub root: bool,
    /// Standard output is a terminal.
    pub terminal: bool,
    /// Its descriptor, where there is one whose reader may leave.
    pub stdout: Option<RawFd>,
    /// How people want their answer there.
    pub style: Style,
}

impl Surroundings {
    /// Those of this process.
    pub fn real() -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: any value but the empty one
        let wants_colour =
            env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        Self {
            endpoint: env::var_os("PROCMAN_ENDPOINT").filter(|value| !value.is_empty()),
            runtime_dir: env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            client_file: Said::file(
                env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).as_deref(),
                env::var_os("HOME").map(PathBuf::from).as_deref(),
            ),
            // The kernel gives a process's directory to its effective user (proc(5)).
            root: std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0),
            terminal,
            stdout: Some(io::stdout().as_raw_fd()),
            style: Style { width: width.filter(|_| terminal), terminal, colour: terminal && wants_colour, zone: TimeZone::system() },
        }
    }
}

/// Does what the arguments say.
///
/// # Errors
/// None: what goes wrong is written to `err` and told by the exit code. Nobody reading `out` any more (`procmanctl list | head -1`) is no error.
pub fn run(args: impl IntoIterator<Item = OsString>, around: &Surroundings, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // clap knows which stream it belongs to and whether it may be coloured. Nobody is left to tell when that fails.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let mut speaker = Speaker { out, err, deaf: false };
    let said = Said { endpoint: cli.endpoint, server_key: cli.server_key, secret_key_file: cli.secret_key_file };
    let call = Call { said, json: cli.json, timeout: cli.timeout, around };
    let outcome = match Task::from(cli.verb) {
        Task::Ask(command) => call.ask(&[command], &mut speaker),
        Task::Register { file, replace } => definitions::read(&file).map_err(Failure::from).and_then(|requests| {
            let commands: Vec<_> =
                requests.into_iter().map(|request| Command::Register(Box::new(request::Register { replace, ..request }))).collect();
            call.ask(&commands, &mut speaker)
        }),
        Task::Events { since, names, follow } => call.events(since, &names, follow, &mut speaker),
        Task::Follow(request) => call.peer().and_then(|peer| {
            let timeout = deadline(&Command::Logs(request.clone()), cli.timeout);
            Follow { peer, timeout, json: cli.json, style: &around.style }.run(request, &mut speaker)
        }),
        Task::Completions(shell) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "procmanctl", &mut script);
            speaker.say(&script).map(|()| Exit::Done)
        }
        Task::Man(directory) => man(directory.as_deref(), &mut speaker),
    };
    outcome.unwrap_or_else(|failure| {
        speaker.complain(&failure.to_string());
        failure.exit()
    })
}

/// Asks. This program has what it looks for on its own command line, so it would always be found: it is left out of the answer.
fn ask_without_me(client: &mut Client, command: &Command) -> Result<Answer, ClientError> {
    match command {
        Command::Processes(_) | Command::ProcessInfo(_) => client.ask(command)?.without(std::process::id(), false),
        Command::IsProcessRunning(request) => {
            let all = Command::IsProcessRunning(IsProcessRunning { as_list: true, ..request.clone() });
            client.ask(&all)?.without(std::process::id(), !request.as_list)
        }
        Command::Ping(_)
        | Command::Info(_)
        | Command::Register(_)
        | Command::Unregister(_)
        | Command::Execute(_)
        | Command::Quit(_)
        | Command::Reap(_)
        | Command::Restart(_)
        | Command::Signal(_)
        | Command::List(_)
        | Command::Status(_)
        | Command::Zombies(_)
        | Command::IsRunning(_)
        | Command::Exists(_)
        | Command::Returncode(_)
        | Command::Children(_)
        | Command::Events(_)
        | Command::History(_)
        | Command::Audit(_)
        | Command::Logs(_)
        | Command::Reload(_)
        | Command::Upgrade(_)
        | Command::Shutdown(_) => client.ask(command),
    }
}

/// What all requests of one call have in common.
struct Call<'a> {
    /// On the command line.
    said: Said,
    json: bool,
    timeout: Option<Seconds>,
    around: &'a Surroundings,
}

impl Call<'_> {
    /// Asks one after the other. A refusal does not keep the next one from being asked; a daemon that does not answer does.
    fn ask(&self, commands: &[Command], speaker: &mut Speaker<'_>) -> Result<Exit, Failure> {
        let peer = self.peer()?;
        let mut client: Option<Client> = None;
        let mut exit = Exit::Done;
        for command in commands {
            let (start, timeout) = (Instant::now(), deadline(command, self.timeout));
            let client = match &mut client {
                Some(client) => client,
                none => none.insert(Client::connect_to(&peer, ClientOptions { timeout })?),
            };
            // Connecting counts, too.
            client.set_timeout(timeout.saturating_sub(start.elapsed()));
            let answer = if let Command::Upgrade(_) = command { upgrade(client, timeout)? } else { ask_without_me(client, command)? };
            let report =
                if self.json { report_json(command, &answer, self.around.terminal) } else { report(command, &answer, &self.around.style) };
            match report {
                Ok(Report { out, complaints, exit: its }) => {
                    speaker.say(out.as_bytes())?;
                    complaints.iter().for_each(|complaint| speaker.complain(complaint));
                    exit = exit.or(its);
                }
                Err(refusal @ ClientError::Refused(_)) if commands.len() > 1 => {
                    let failure = Failure::from(refusal);
                    exit = exit.or(failure.exit());
                    // Only `register` asks more than once, and its answers are told apart by their names.
                    let subject = if let Command::Register(register) = command { format!("{}: ", register.name) } else { String::new() };
                    speaker.complain(&format!("{subject}{failure}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(exit)
    }

    /// Prints events, and with `follow` goes on with it.
    fn events(&self, since: Option<u64>, names: &[Pattern], follow: bool, speaker: &mut Speaker<'_>) -> Result<Exit, Failure> {
        let timeout = deadline(&Command::Events(request::Events::default()), self.timeout);
        let (peer, style) = (self.peer()?, &self.around.style);
        let events = Events { peer, timeout, since, names, json: self.json, style, reader: self.around.stdout };
        if follow { events.follow(speaker) } else { events.print(speaker) }
    }

    /// Where the daemon is, and its keys, by what the user says: on the command line, in the environment, in the user's file, in this order.
    fn peer(&self) -> Result<Peer, Failure> {
        let Self { said, around, .. } = self;
        let file = around.client_file.as_deref();
        let of_file = file.map(Said::of_file).transpose()?.unwrap_or_default();
        let of_file_endpoint = || -> Option<Result<Endpoint, KeysError>> {
            let text = of_file.endpoint.as_deref()?;
            Some(text.parse().map_err(|source| KeysError::Endpoint { file: file.map(Path::to_owned).unwrap_or_default(), source }))
        };
        let endpoint = match (&said.endpoint, &around.endpoint) {
            (Some(flag), _) => flag.parse()?,
            (None, Some(variable)) => variable.to_string_lossy().parse()?,
            (None, None) => match of_file_endpoint() {
                Some(endpoint) => endpoint?,
                None => Endpoint::default_for(around.root, around.runtime_dir.clone())?,
            },
        };
        let keys = Said {
            endpoint: None,
            server_key: said.server_key.clone().or_else(|| of_file.server_key.clone()),
            secret_key_file: said.secret_key_file.clone().or_else(|| of_file.secret_key_file.clone()),
        };
        // At a Unix socket they are not used, and need not be in order.
        let keys = if let Endpoint::Tcp { .. } = endpoint { keys.keys()? } else { None };
        Ok(Peer { endpoint, keys })
    }
}

/// Prints the man page, or writes all of them.
fn man(directory: Option<&Path>, speaker: &mut Speaker<'_>) -> Result<Exit, Failure> {
    let failed = |what: String| move |source| Failure::Output { what, source };
    match directory {
        Some(directory) => {
            clap_mangen::generate_to(Cli::command(), directory).map_err(failed(format!("man pages to {}", directory.display())))?
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed("the man page".to_owned()))?;
            speaker.say(&page)?;
        }
    }
    Ok(Exit::Done)
}

/// The two streams of a call.
pub(super) struct Speaker<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Nobody reads `out` any more.
    pub(super) deaf: bool,
}

impl Speaker<'_> {
    /// Whether nobody reads standard output any more.
    pub(super) const fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Writes to standard output, at once.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.deaf {
            return Ok(());
        }
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(()),
            // The reader has seen enough (`| head -1`); what was asked for goes on.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.deaf = true;
                Ok(())
            }
            Err(source) => Err(Failure::Output { what: "the answer".to_owned(), source }),
        }
    }

    /// Writes to standard error. What the daemon says may hold what the host's processes say, so it is made harmless.
    pub(super) fn complain(&mut self, message: &str) {
        for line in message.lines() {
            // There is no other place to tell that this one is closed.
            let _ = writeln!(self.err, "procmanctl: {}", escape(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses every byte with this kind of error.
    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn around() -> Surroundings {
        Surroundings {
            endpoint: None,
            runtime_dir: None,
            client_file: None,
            root: false,
            terminal: false,
            stdout: None,
            style: Style::plain(),
        }
    }

    fn call(line: &str, around: &Surroundings, out: &mut dyn Write) -> (Exit, String) {
        let mut err = Vec::new();
        let exit = run(["procmanctl"].into_iter().chain(line.split(' ')).map(OsString::from), around, out, &mut err);
        (exit, String::from_utf8(err).unwrap())
    }

    #[test]
    fn an_endpoint_comes_from_the_flag_the_environment_or_the_user() {
        let endpoint = |flag: Option<&str>, around: &Surroundings| {
            let said = Said { endpoint: flag.map(str::to_owned), ..Said::default() };
            Call { said, json: false, timeout: None, around }.peer().map(|peer| peer.endpoint.to_string())
        };
        let mut around = Surroundings { root: true, ..around() };
        assert_eq!(endpoint(None, &around).unwrap(), "ipc:///run/procman/control.sock");
        let dir = tempfile::tempdir().unwrap();
        around.client_file = Some(dir.path().join("client.toml"));
        assert_eq!(endpoint(None, &around).unwrap(), "ipc:///run/procman/control.sock", "there need not be a file");
        std::fs::write(dir.path().join("client.toml"), "endpoint = 'tcp://f:1'").unwrap();
        assert_eq!(endpoint(None, &around).unwrap(), "tcp://f:1");
        around.endpoint = Some("tcp://h:1".into());
        assert_eq!(endpoint(None, &around).unwrap(), "tcp://h:1");
        assert_eq!(endpoint(Some("ipc:///x"), &around).unwrap(), "ipc:///x");
        around.endpoint = Some("nonsense".into());
        assert_eq!(endpoint(None, &around).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn without_any_endpoint_it_is_a_usage_error() {
        let (exit, err) = call("ping", &around(), &mut Vec::new());
        assert_eq!(exit, Exit::Usage);
        assert!(err.starts_with("procmanctl: cannot tell where the daemon is, XDG_RUNTIME_DIR is not set"), "{err}");
    }

    #[test]
    fn completions_and_man_pages_need_no_daemon() {
        for line in ["completions bash", "completions zsh", "completions fish", "man"] {
            let mut out = Vec::new();
            let (exit, err) = call(line, &around(), &mut out);
            assert_eq!((exit, err.as_str()), (Exit::Done, ""));
            assert!(String::from_utf8(out).unwrap().contains("is-process-running") || line == "man");
        }
        let dir = tempfile::tempdir().unwrap();
        let (exit, _) = call(&format!("man --output-dir {}", dir.path().display()), &around(), &mut Vec::new());
        assert_eq!(exit, Exit::Done);
        for page in ["procmanctl.1", "procmanctl-quit.1"] {
            assert!(std::fs::read_to_string(dir.path().join(page)).unwrap().contains(".TH procmanctl"), "{page}");
        }
        let (exit, err) = call("man --output-dir /nonexistent", &around(), &mut Vec::new());
        assert_eq!(exit, Exit::No);
        assert!(err.contains("failed to write man pages to /nonexistent: "), "{err}");
    }

    #[test]
    fn a_reader_that_leaves_is_no_error_but_a_full_disk_is() {
        assert_eq!(call("completions bash", &around(), &mut Closed(io::ErrorKind::BrokenPipe)), (Exit::Done, String::new()));
        let (exit, err) = call("completions bash", &around(), &mut Closed(io::ErrorKind::StorageFull));
        assert_eq!(exit, Exit::No);
        assert!(err.starts_with("procmanctl: failed to write the answer: "), "{err}");
    }

    #[test]
    fn a_wrong_file_is_a_usage_error_before_anything_is_asked() {
        let (exit, err) = call("register /nonexistent.toml --endpoint ipc:///nonexistent", &around(), &mut Vec::new());
        assert_eq!(exit, Exit::Usage);
        assert!(err.contains("/nonexistent.toml"), "{err}");
    }
}
