//! Where the three standard streams of a run go. The daemon opens them as itself, before any change of user, and keeps none of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::output::{Health, Lease, OpenError, Outputs, Policy, StreamName, journal};
use crate::protocol::definition::Output;
use crate::sys::clone::Stdio;

use super::spawn::Operation;
use super::spec::{LogPolicy, Spec};

/// What a run is started with.
pub(super) struct Streams {
    /// Standard input, output and error.
    pub(super) stdio: [Stdio; 3],
    /// The value of `JOURNAL_STREAM`, where one of them goes to the journal.
    pub(super) journal: Option<String>,
    /// Its log files are looked after for as long as these are kept.
    pub(super) leases: Vec<Lease>,
}

impl Streams {
    /// Both outputs go here, whatever the definition says.
    pub(super) fn piped(output: OwnedFd) -> Result<Self, (Operation, i32)> {
        Ok(Self { stdio: [open_null(false)?, Stdio::Owned(output), Stdio::LikeStdout], journal: None, leases: Vec::new() })
    }

    /// Opens them.
    pub(super) fn open(spec: &Spec, outputs: &Outputs) -> Result<Self, (Operation, i32)> {
        let mut streams = Self { stdio: [open_null(false)?, Stdio::Inherit, Stdio::Inherit], journal: None, leases: Vec::new() };
        for (which, output) in [(StreamName::Stdout, &spec.stdout), (StreamName::Stderr, &spec.stderr)] {
            let stdio = match output {
                Output::Null => open_null(true)?,
                Output::Inherit => Stdio::Inherit,
                Output::Stdout => Stdio::LikeStdout,
                Output::File(path) => Stdio::Owned(open_file(path)?),
                Output::Log => {
                    let (fd, lease) = outputs.open(&spec.name, which, &policy(&spec.log)).map_err(refused(Operation::OpenOutput))?;
                    streams.leases.push(lease);
                    Stdio::Owned(fd)
                }
                Output::Journal => {
                    let fd = outputs.open_journal(&spec.name).map_err(refused(Operation::OpenJournal))?;
                    // Where both go there, standard error is the one that a program logs to (sd-daemon(3)).
                    streams.journal = journal::variable(&fd).ok();
                    Stdio::Owned(fd)
                }
            };
            streams.stdio[match which {
                StreamName::Stdout => 1,
                StreamName::Stderr => 2,
            }] = stdio;
        }
        Ok(streams)
    }
}

/// Says which logs a definition has, so that they are looked after; what is wrong with them is known from the answer.
pub(super) fn define(outputs: &Outputs, spec: &Spec) -> Option<Health> {
    let streams = [(StreamName::Stdout, &spec.stdout), (StreamName::Stderr, &spec.stderr)];
    let logs: Vec<_> = streams.into_iter().filter(|(_, output)| **output == Output::Log).map(|(which, _)| which).collect();
    outputs.define(&spec.name, &logs, &policy(&spec.log))
}

/// The logs that a run writes to which an earlier daemon started.
pub(super) fn leases(outputs: &Outputs, spec: &Spec) -> Vec<Lease> {
    let streams = [(StreamName::Stdout, &spec.stdout), (StreamName::Stderr, &spec.stderr)];
    streams.into_iter().filter(|(_, output)| **output == Output::Log).filter_map(|(which, _)| outputs.lease(&spec.name, which)).collect()
}

fn policy(log: &LogPolicy) -> Policy {
    let LogPolicy { max_size, keep, compress, max_age } = *log;
    Policy { max_size, keep, compress, max_age }
}

fn refused(operation: impl FnOnce(PathBuf) -> Operation) -> impl FnOnce(OpenError) -> (Operation, i32) {
    |OpenError { path, errno }| (operation(path), errno)
}

fn open_null(write: bool) -> Result<Stdio, (Operation, i32)> {
    let path = Path::new("/dev/null");
    let file = OpenOptions::new().read(!write).write(write).open(path).map_err(cannot_open(path))?;
    Ok(Stdio::Owned(file.into()))
}

fn open_file(path: &Path) -> Result<OwnedFd, (Operation, i32)> {
    let open = || -> io::Result<OwnedFd> {
        // Not blocking: a named pipe without a reader is an error (ENXIO), not a hang. The program gets it back blocking.
        let file: File =
            OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_APPEND))?;
        Ok(file.into())
    };
    open().map_err(cannot_open(path))
}

fn cannot_open(path: &Path) -> impl FnOnce(io::Error) -> (Operation, i32) {
    let path = path.to_owned();
    move |error| (Operation::OpenOutput(path), error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_pipe_without_a_reader_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(open_file(&path).unwrap_err(), (Operation::OpenOutput(path), libc::ENXIO));
    }
}
