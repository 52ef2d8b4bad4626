//! Answers as people read them, or as JSON for programs. Pure: answer in, text and exit code out.
//!
//! - [`report`] decides, command by command, which of the others says it;
//! - `subprocess` shows registered sub-processes, [`events`] what happened to them, `answers` all the rest;
//! - [`table`] aligns, [`human`] shortens numbers, [`text`] makes the host's texts harmless: a [`table::Cell`] takes no text past it.

mod answers;
pub mod events;
pub mod human;
mod subprocess;
pub mod table;
pub mod text;

use jiff::tz::TimeZone;

use super::connection::Answer;
use super::error::ClientError;
use super::exit::Exit;
use crate::protocol::request::{Command, Target};
use crate::protocol::{StateName, WireError, reply};

/// How the place where the answer goes wants it.
#[derive(Clone, Debug)]
pub struct Style {
    /// The columns of the terminal; `None` where it is none, and nothing is cut.
    pub width: Option<usize>,
    /// It is a terminal, which acts on some characters.
    pub terminal: bool,
    /// Whether states are coloured.
    pub colour: bool,
    /// The zone that instants are told in.
    pub zone: TimeZone,
}

impl Style {
    /// For a pipe or a file, in UTC.
    pub fn plain() -> Self {
        Self { width: None, terminal: false, colour: false, zone: TimeZone::UTC }
    }
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For standard output, with its line feeds.
    pub out: String,
    /// For standard error, one line each.
    pub complaints: Vec<String>,
    /// For the caller.
    pub exit: Exit,
}

impl Report {
    /// A text, and all is well.
    fn done(out: impl Into<String>) -> Self {
        Self { out: out.into(), complaints: Vec::new(), exit: Exit::Done }
    }

    /// A text that answers yes or no.
    fn verdict(out: impl Into<String>, yes: bool) -> Self {
        Self { exit: if yes { Exit::Done } else { Exit::No }, ..Self::done(out) }
    }

    /// Something was not done.
    fn complain(&mut self, about: &dyn std::fmt::Display) {
        self.complaints.push(text::escape(&about.to_string()).into_owned());
        self.exit = self.exit.or(Exit::No);
    }
}

/// Whether `status NAME` says that it runs: it has a process which is not being ended.
pub const fn runs(state: StateName) -> bool {
    match state {
        StateName::Starting | StateName::Running => true,
        StateName::Stopped | StateName::Stopping | StateName::Backoff | StateName::Exited | StateName::Fatal | StateName::Lost => false,
    }
}

/// The answer to a command, for people.
///
/// # Errors
/// [`ClientError::Refused`], or [`ClientError::Protocol`] where the result is of another kind.
pub fn report(command: &Command, answer: &Answer, style: &Style) -> Result<Report, ClientError> {
    Ok(match command {
        Command::Ping(_) => answers::pong(&answer.result()?, answer.endpoint(), style),
        Command::Info(_) => answers::info(&answer.result()?, style),
        Command::Register(register) if register.definition.instances.is_some() => answers::registered(&answer.result::<Vec<_>>()?),
        Command::Register(_) => answers::registered(&[answer.result()?]),
        Command::Unregister(_) => answers::unregistered(&answer.result()?),
        Command::Execute(_) => answers::executed(&[reply::Each::Done(answer.result()?)]),
        Command::Restart(restart) => answers::executed(&several(answer, is_one(&restart.target()))?),
        Command::Quit(quit) => answers::ended(&several(answer, is_one(&quit.target()))?),
        Command::Reap(_) => answers::ended(&[reply::Each::Done(answer.result()?)]),
        Command::Signal(signal) => answers::signalled(&answer.result()?, signal.signal),
        Command::List(list) if list.items.is_some() => answers::processes(&answer.result::<Vec<_>>()?, style),
        Command::List(_) => subprocess::list(&answer.result::<Vec<_>>()?, style),
        Command::Status(status) if status.name.is_some() => subprocess::status(&answer.result()?, style),
        Command::Status(_) => subprocess::status_of_all(&answer.result()?, style),
        Command::Zombies(_) | Command::Children(_) => answers::named_processes(&answer.result::<Vec<_>>()?, style),
        Command::Processes(_) => answers::processes(&answer.result::<Vec<_>>()?, style),
        Command::ProcessInfo(_) => answers::process_info(&answer.result::<Vec<_>>()?, style),
        Command::IsProcessRunning(_) => answers::running_pids(&answer.result()?),
        Command::IsRunning(_) | Command::Exists(_) => answers::yes_or_no(answer.result()?),
        Command::Returncode(_) => answers::returncode(answer.result()?),
        Command::Events(_) => events::events(&answer.result()?, style),
        Command::History(_) => events::history(&answer.result::<Vec<_>>()?, style),
        Command::Audit(_) => events::audit(&answer.result::<Vec<_>>()?, style),
        Command::Reload(reload) => answers::reloaded(answer.result(), reload.dry_run)?,
        Command::Logs(_) => answers::log_lines(&answer.result()?, style),
        Command::Upgrade(_) => {
            let reply::Nothing {} = answer.result()?;
            Report::done(format!("the daemon at {} goes on with its new program\n", answer.endpoint()))
        }
        Command::Shutdown(_) => {
            let reply::Nothing {} = answer.result()?;
            Report::done(format!("the daemon at {} leaves\n", answer.endpoint()))
        }
    })
}

/// The whole reply as JSON, on one line or indented, with the complaints and the exit code that people would get.
///
/// # Errors
/// [`ClientError::Protocol`].
pub fn report_json(command: &Command, answer: &Answer, pretty: bool) -> Result<Report, ClientError> {
    let value = answer.json()?;
    // `{:#}` indents; both forms are valid JSON.
    let mut out = text::escape_json(&if pretty { format!("{value:#}") } else { value.to_string() }).into_owned();
    out.push('\n');
    match report(command, answer, &Style::plain()) {
        Ok(report) => Ok(Report { out, ..report }),
        Err(ClientError::Refused(error)) => {
            let mut report = Report::done(out);
            report.complain(&error);
            Ok(report)
        }
        Err(
            other @ (ClientError::Unreachable { .. }
            | ClientError::KeyRefused { .. }
            | ClientError::Disconnected { .. }
            | ClientError::Timeout { .. }
            | ClientError::Protocol { .. }
            | ClientError::Socket { .. }),
        ) => Err(other),
    }
}

/// Whether a command is about one sub-process, so that its result is one entry and not a list.
fn is_one<E>(target: &Result<Target<'_>, E>) -> bool {
    match target {
        Ok(Target::Name(_)) => true,
        Ok(Target::Group(_) | Target::All) | Err(_) => false,
    }
}

/// The entries of an answer about one or several sub-processes.
fn several<T: serde::de::DeserializeOwned>(answer: &Answer, one: bool) -> Result<Vec<reply::Each<T>>, ClientError> {
    if one { Ok(vec![reply::Each::Done(answer.result()?)]) } else { answer.result() }
}

/// One entry that was refused.
fn refused(report: &mut Report, name: &crate::protocol::Name, error: &WireError) {
    report.complain(&format_args!("{name}: {error}"));
}
