//! Where log lines go and what they look like: always to standard error, as text for people or as one JSON object each for programs.
//!
//! Under systemd's journal a line carries its priority in front, as sd-daemon(3) says, and text lines neither time nor colour: the journal has both.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// The environment variable that says what is logged.
pub const VARIABLE: &str = "PROCMAN_LOG";
/// What is logged where it says nothing.
const DEFAULT_FILTER: &str = "info";

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object in each line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LoggingError::Format { shown: other.chars().take(80).collect() }),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// There is no such format.
    #[error("{shown:?} is not a log format: say \"text\" or \"json\"")]
    Format {
        /// What was said.
        shown: String,
    },
    /// `PROCMAN_LOG` cannot be understood.
    #[error(
        "{VARIABLE}={value:?} is not a log filter: {reason}; say a level (off, error, warn, info, debug, trace) or target=level, separated by commas"
    )]
    Filter {
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was set up before.
    #[error("failed to set up logging: it was set up before")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Keeps the log going; dropping it writes what is still waiting.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    _writer: tracing_appender::non_blocking::WorkerGuard,
}

/// Log lines that wait for a reader of standard error that is stuck (a stopped terminal, a full pipe). Further ones are lost: a daemon that waits
/// for its log would be stopped by it.
const WAITING_LINES: usize = 4096;

/// Sets up logging for the whole program, once. Lines are written by a thread of their own, so that no reader can hold up the daemon. What is logged says `PROCMAN_LOG`: a level, or `target=level` pairs (`EnvFilter`'s syntax).
pub fn init(format: LogFormat) -> Result<LogGuard, LoggingError> {
    let filter = filter(env::var_os(VARIABLE).as_deref())?;
    let stderr = std::io::stderr();
    let style = Style {
        format,
        journal: is_journal(env::var_os("JOURNAL_STREAM").as_deref(), device_and_inode(&stderr)),
        colour: stderr.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    tracing::subscriber::set_global_default(subscriber(style, filter, writer))?;
    Ok(LogGuard { _writer: guard })
}

/// Reads the filter. `EnvFilter` would take a misspelt level for the name of a target, and log nothing without a word; here a directive that is only
/// a word must be a level.
fn filter(value: Option<&OsStr>) -> Result<EnvFilter, LoggingError> {
    let refuse =
        |reason: String| LoggingError::Filter { value: value.unwrap_or_default().to_string_lossy().chars().take(200).collect(), reason };
    let text = match value {
        None => DEFAULT_FILTER,
        Some(value) => value.to_str().ok_or_else(|| refuse("it is not UTF-8".to_owned()))?,
    };
    let text = if text.trim().is_empty() { DEFAULT_FILTER } else { text };
    for directive in text.split(',').map(str::trim) {
        let only_a_word = !directive.is_empty() && !directive.contains(['=', '[', ']', '{', '}']);
        if only_a_word && directive.parse::<LevelFilter>().is_err() {
            return Err(refuse(format!("{directive:?} is no level")));
        }
    }
    EnvFilter::builder().parse(text).map_err(|error| refuse(error.to_string()))
}

/// Where lines go, as far as it changes what they look like.
#[derive(Clone, Copy, Debug, Default)]
struct Style {
    format: LogFormat,
    journal: bool,
    colour: bool,
}

/// Puts filter, format and writer together.
fn subscriber<W>(style: Style, filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A line that cannot be written is lost: to complain of it on the same standard error would panic.
    let base = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match (style.format, style.journal) {
        (LogFormat::Text, false) => base.with_ansi(style.colour).boxed(),
        (LogFormat::Text, true) => base.with_ansi(false).without_time().with_level(false).map_event_format(Prioritised).boxed(),
        (LogFormat::Json, false) => base.json().flatten_event(true).boxed(),
        (LogFormat::Json, true) => base.json().flatten_event(true).map_event_format(Prioritised).boxed(),
    };
    Registry::default().with(layer.with_filter(filter))
}

/// Puts the priority in front of a line (sd-daemon(3)).
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &tracing::Event<'_>) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        })?;
        self.0.format_event(context, writer, event)
    }
}

/// Whether standard error is the journal's stream: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)). The variable alone proves nothing,
/// it is inherited by processes whose standard error was redirected.
fn is_journal(variable: Option<&OsStr>, stderr: Option<(u64, u64)>) -> bool {
    let named = variable.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named.is_some() && named == stderr
}

/// What an open file is, by fstat(2).
fn device_and_inode(file: &impl AsFd) -> Option<(u64, u64)> {
    let metadata = File::from(file.as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn styled(style: Style, directives: &str, run: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let filter = filter(Some(OsStr::new(directives))).unwrap();
        tracing::subscriber::with_default(subscriber(style, filter, move || writer.clone()), run);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// What `run` logs.
    pub(crate) fn captured(format: LogFormat, directives: &str, run: impl FnOnce()) -> String {
        styled(Style { format, ..Style::default() }, directives, run)
    }

    #[test]
    fn a_bad_filter_is_named() {
        for bad in ["inof", "procman=lodu", "info,verbose", "procman=debug=info"] {
            let error = filter(Some(OsStr::new(bad))).unwrap_err().to_string();
            assert!(error.contains(&format!("PROCMAN_LOG={bad:?}")) && error.contains("say a level"), "{error}");
        }
        for good in ["", "  ", "info", "DEBUG", "off", "3", "procman::request=debug", "warn,procman=trace", "info,"] {
            filter(Some(OsStr::new(good))).unwrap();
        }
        filter(None).unwrap();
    }

    #[test]
    fn a_bad_format_is_named() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("\"xml\""));
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let (device, inode) = device_and_inode(&file).unwrap();
        let variable = format!("{device}:{inode}");
        assert!(is_journal(Some(OsStr::new(&variable)), Some((device, inode))));
        assert!(!is_journal(Some(OsStr::new(&variable)), Some((device, inode + 1))));
        assert!(!is_journal(Some(OsStr::new(&variable)), None));
        for garbage in ["", ":", "1", "a:b"] {
            assert!(!is_journal(Some(OsStr::new(garbage)), Some((1, 1))));
        }
        assert!(!is_journal(None, Some((1, 1))));
    }

    #[test]
    fn a_line_in_the_journal_has_a_priority_and_no_time() {
        let style = Style { journal: true, ..Style::default() };
        let text = styled(style, "trace", || {
            tracing::error!("a");
            tracing::warn!("b");
            tracing::info!(n = 1, "c");
            tracing::debug!("d");
        });
        let starts: Vec<_> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(starts, ["<3>", "<4>", "<6>", "<7>"]);
        assert!(text.contains("c n=1") && !text.contains("20"), "{text}");
    }

    #[test]
    fn a_line_for_people_has_time_and_level() {
        let text = captured(LogFormat::Text, "info", || tracing::info!("hello"));
        assert!(text.contains("T") && text.contains("Z  INFO") && text.ends_with("hello\n") && !text.contains('\u{1b}'), "{text:?}");
        let style = Style { colour: true, ..Style::default() };
        assert!(styled(style, "info", || tracing::info!("hello")).contains('\u{1b}'));
    }
}
