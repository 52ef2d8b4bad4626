//! The answer of `logs`.

use std::io;
use std::time::Duration;

use crate::output::{Lines, Outputs, Query, StreamName, stream};
use crate::protocol::definition::Output;
use crate::protocol::reply::LogLines;
use crate::protocol::request::{LogStream, Logs};
use crate::protocol::{ErrorCode, Name, WireError};
use crate::subprocess::Spec;

use super::refusals;
use super::service::Service;

/// How long reading may take: a disk that hangs is not waited for.
const DEADLINE: Duration = Duration::from_secs(10);

impl Service {
    pub(super) async fn logs(&self, request: Logs) -> Result<LogLines, WireError> {
        let spec = self.published(&request.name)?.spec.clone();
        let max_bytes = request.max_bytes.unwrap_or(Logs::BYTES);
        if !(1..=Logs::MOST_BYTES).contains(&max_bytes) {
            return Err(WireError::bad_request(format!("logs: `max_bytes` is 1 to {}", Logs::MOST_BYTES)));
        }
        let query = Query {
            offset: request.offset,
            lines: request.lines.unwrap_or(Logs::LINES) as usize,
            max_bytes: max_bytes.min(self.bounds.log_reply_bytes) as usize,
        };
        let source = Source::of(&spec, request.stream)?;
        let (outputs, name) = (self.outputs.clone(), request.name.clone());
        let permits = self.log_questions.clone();
        let reading = async {
            let permit = permits.acquire_owned().await;
            // The permit goes along: a read that hangs keeps its place until it is over, also when nobody waits for it any more.
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                source.read(&outputs, &name, &query)
            })
            .await
        };
        match tokio::time::timeout(DEADLINE, reading).await {
            Ok(Ok(Ok(Lines { lines, offset, truncated }))) => Ok(LogLines { lines, offset, truncated }),
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(WireError::bad_request(format!("logs: {}: {error}", request.name)))
            }
            Ok(Ok(Err(error))) => Err(refusals::internal(&format!("cannot read the logs of {}: {error}", request.name))),
            Ok(Err(_)) => Err(refusals::internal("reading a log failed half-way")),
            Err(_) => {
                Err(WireError::new(ErrorCode::Timeout, format!("the logs of {} could not be read within {DEADLINE:?}", request.name)))
            }
        }
    }
}

/// What is read.
#[derive(Debug, PartialEq)]
enum Source {
    Log(StreamName),
    File(std::path::PathBuf),
}

impl Source {
    /// Where this output of a sub-process can be read again, or what to do so that it can.
    fn of(spec: &Spec, stream: LogStream) -> Result<Self, WireError> {
        let (which, output) = match stream {
            LogStream::Stderr if spec.stderr != Output::Stdout => (StreamName::Stderr, &spec.stderr),
            LogStream::Stderr | LogStream::Stdout => (StreamName::Stdout, &spec.stdout),
        };
        let remedy = format!("define it with `{which} = \"log\"` to read it here");
        let refused = |why: String| Err(WireError::bad_request(format!("logs: {which} of {} {why}", spec.name)));
        match output {
            Output::Log => Ok(Self::Log(which)),
            Output::File(path) => Ok(Self::File(path.clone())),
            Output::Null => refused(format!("goes to /dev/null; {remedy}")),
            Output::Inherit => refused(format!("goes where the daemon's own goes; look there, or {remedy}")),
            Output::Journal => refused(format!("goes to the journal: `journalctl --identifier={}` shows it; or {remedy}", spec.name)),
            Output::Stdout => refused(format!("goes to itself; {remedy}")),
        }
    }

    fn read(&self, outputs: &Outputs, name: &Name, query: &Query) -> io::Result<Lines> {
        match self {
            Self::Log(which) => outputs.read(name, *which, query),
            Self::File(path) => match stream::read_plain(path, query) {
                // It is made at the first start.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lines::default()),
                result => result,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::definition::Definition;

    #[test]
    fn an_output_is_read_where_it_goes_or_the_remedy_is_said() {
        let source = |stdout: &str, stderr: &str, stream| {
            let definition = Definition {
                cmd: Some(vec!["true".into()]),
                stdout: Some(stdout.parse().unwrap()),
                stderr: Some(stderr.parse().unwrap()),
                ..Definition::default()
            };
            Source::of(&Spec::resolve("web".parse().unwrap(), definition).unwrap(), stream).map_err(|error| error.message)
        };
        assert_eq!(source("log", "stdout", LogStream::Stderr), Ok(Source::Log(StreamName::Stdout)));
        assert_eq!(source("null", "log", LogStream::Stderr), Ok(Source::Log(StreamName::Stderr)));
        assert_eq!(source("file:/x", "log", LogStream::Stdout), Ok(Source::File("/x".into())));
        for (output, word) in [("null", "/dev/null"), ("inherit", "the daemon's own"), ("journal", "journalctl --identifier=web")] {
            let message = source(output, "log", LogStream::Stdout).unwrap_err();
            assert!(message.contains(word) && message.contains("`stdout = \"log\"`"), "{message}");
        }
    }
}
