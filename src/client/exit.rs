//! How `procmanctl` ends: the one table from what happened to an exit code.

use std::io;
use std::process::ExitCode;

use super::definitions::DefinitionsError;
use super::endpoint::{InvalidEndpoint, NoDefaultEndpoint};
use super::error::ClientError;
use super::peer::KeysError;

/// The exit codes of `procmanctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the answer is yes.
    Done = 0,
    /// The daemon said no, or the answer is no.
    No = 1,
    /// The arguments, or the file they name, are wrong; nothing was asked.
    Usage = 2,
    /// No daemon was reached, or the connection to it broke.
    Unreachable = 3,
    /// No answer within the deadline.
    Timeout = 4,
}

impl Exit {
    /// The worse of two, for a call that does several things: the first thing that went wrong counts.
    #[must_use]
    pub const fn or(self, later: Self) -> Self {
        match self {
            Self::Done => later,
            Self::No | Self::Usage | Self::Unreachable | Self::Timeout => self,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a call of `procmanctl` ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// `--endpoint` or `PROCMAN_ENDPOINT` is no endpoint.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// Nobody said where the daemon is.
    #[error(transparent)]
    NoEndpoint(#[from] NoDefaultEndpoint),
    /// What is said about keys, or the user's file.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The file given to `register` is wrong.
    #[error(transparent)]
    Definitions(#[from] DefinitionsError),
    /// The answer could not be written where it should go.
    #[error("failed to write {what}: {source}")]
    Output {
        /// What was to be written.
        what: String,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Failure {
    /// The table.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::Refused(_)) => Exit::No,
            Self::Client(
                ClientError::Unreachable { .. }
                | ClientError::KeyRefused { .. }
                | ClientError::Disconnected { .. }
                | ClientError::Protocol { .. },
            ) => Exit::Unreachable,
            Self::Client(ClientError::Timeout { .. }) => Exit::Timeout,
            Self::Client(ClientError::Socket { .. }) | Self::Output { .. } => Exit::No,
            Self::Endpoint(_) | Self::NoEndpoint(_) | Self::Keys(_) | Self::Definitions(_) => Exit::Usage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Endpoint;
    use crate::protocol::WireError;
    use std::time::Duration;

    #[test]
    fn the_table_is_that_of_the_contract() {
        let endpoint: Endpoint = "ipc:///x".parse().unwrap();
        let source = || io::Error::from(io::ErrorKind::NotFound);
        let table: [(Failure, u8); 9] = [
            (ClientError::Refused(WireError::bad_request("x")).into(), 1),
            (ClientError::Unreachable { endpoint: endpoint.clone(), source: source() }.into(), 3),
            (ClientError::Disconnected { endpoint: endpoint.clone() }.into(), 3),
            (ClientError::Protocol { endpoint: endpoint.clone(), what: "x".into() }.into(), 3),
            (ClientError::Timeout { endpoint, waited: Duration::ZERO, greeted: true }.into(), 4),
            ("x".parse::<Endpoint>().unwrap_err().into(), 2),
            (NoDefaultEndpoint.into(), 2),
            (DefinitionsError::Read { file: "x".into(), source: source() }.into(), 2),
            (Failure::Output { what: "x".into(), source: source() }, 1),
        ];
        for (failure, code) in table {
            assert_eq!(failure.exit() as u8, code, "{failure:?}");
        }
        assert_eq!(Exit::Done as u8, 0);
        assert_eq!(Exit::Done.or(Exit::No), Exit::No);
        assert_eq!(Exit::No.or(Exit::Done), Exit::No);
    }
}
