//! What is told about a configuration file.

use std::fmt;
use std::path::{Path, PathBuf};

/// One remark about a configuration file. Shown as `file:line: key: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the user called it.
    pub file: PathBuf,
    /// The line, counted from 1; `None` where the remark is about the file as a whole.
    pub line: Option<usize>,
    /// The key with its table, such as `control.endpoints` or `process[web].cwd`.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if let Some(key) = &self.key {
            write!(f, " {key}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// All that is wrong with a configuration, one line each. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<Diagnostic>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// More errors than this are counted, not kept: nobody reads them, and a hostile file could ask for millions.
const MAX_ERRORS: usize = 1000;

/// The longest message in characters: a message may quote what the file says, which has no limit of its own.
const MAX_MESSAGE: usize = 400;

/// Where the findings about one configuration are gathered.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// In the order of reading, as far as they are known: some things are found out only once all were read.
    files: Vec<PathBuf>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    omitted: usize,
}

impl Report {
    /// A file is about to be read.
    pub(super) fn reading(&mut self, file: &Path) {
        if !self.files.iter().any(|known| known == file) {
            self.files.push(file.to_owned());
        }
    }

    pub(super) fn error(&mut self, file: &Path, line: Option<usize>, key: Option<String>, message: impl Into<String>) {
        if !self.is_full() {
            self.errors.push(diagnostic(file, line, key, message.into()));
        } else {
            self.omitted += 1;
        }
    }

    /// Whether further errors are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    pub(super) fn warning(&mut self, file: &Path, line: Option<usize>, key: Option<String>, message: impl Into<String>) {
        if self.warnings.len() < MAX_ERRORS {
            self.warnings.push(diagnostic(file, line, key, message.into()));
        }
    }

    /// The warnings where there is no error, else the errors: file by file in the order they were read, each from its top to its bottom.
    pub(super) fn finish(self) -> Result<Vec<Diagnostic>, ConfigErrors> {
        let Self { files, mut errors, mut warnings, omitted } = self;
        if errors.is_empty() {
            in_reading_order(files, &mut warnings);
            return Ok(warnings);
        }
        in_reading_order(files, &mut errors);
        if omitted > 0 {
            let file = errors.first().map(|first| first.file.clone()).unwrap_or_default();
            errors.push(Diagnostic { file, line: None, key: None, message: format!("{omitted} more errors are not shown") });
        }
        Err(ConfigErrors(errors))
    }
}

fn diagnostic(file: &Path, line: Option<usize>, key: Option<String>, mut message: String) -> Diagnostic {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    // One diagnostic is one line, whatever a library put into its text.
    let message = message.lines().map(str::trim_end).collect::<Vec<_>>().join("; ");
    Diagnostic { file: file.to_owned(), line, key, message }
}

fn in_reading_order(mut files: Vec<PathBuf>, diagnostics: &mut [Diagnostic]) {
    for diagnostic in diagnostics.iter() {
        if !files.contains(&diagnostic.file) {
            files.push(diagnostic.file.clone());
        }
    }
    diagnostics.sort_by_key(|d| (files.iter().position(|file| *file == d.file), d.line));
}

/// A key as it may stand in a diagnostic: bare where TOML allows it, else quoted, and never long.
pub(super) fn shown(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=64).contains(&key.len()) && key.chars().all(bare) {
        key.to_owned()
    } else {
        format!("{:?}", key.chars().take(64).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_like_a_compiler() {
        let mut diagnostic = Diagnostic { file: "a.toml".into(), line: Some(3), key: Some("daemon.x".into()), message: "no".into() };
        assert_eq!(diagnostic.to_string(), "a.toml:3: daemon.x: no");
        diagnostic.line = None;
        diagnostic.key = None;
        assert_eq!(diagnostic.to_string(), "a.toml: no");
    }

    #[test]
    fn errors_come_in_the_order_of_reading_and_have_an_end() {
        let mut report = Report::default();
        for line in (1..=MAX_ERRORS + 5).rev() {
            report.error(Path::new("a"), Some(line), None, "first\nsecond ".repeat(100));
        }
        let ConfigErrors(errors) = report.finish().unwrap_err();
        assert_eq!(errors.len(), MAX_ERRORS + 1);
        assert!(errors[..MAX_ERRORS].is_sorted_by_key(|e| e.line));
        assert!(errors.iter().all(|e| !e.message.contains('\n') && e.message.len() < 1000));
        assert!(errors[MAX_ERRORS].message.starts_with("5 more"));
    }

    #[test]
    fn a_strange_key_is_quoted() {
        assert_eq!(shown("max-requests_1"), "max-requests_1");
        assert_eq!(shown(""), "\"\"");
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"x".repeat(100_000)).len() < 100);
    }
}
