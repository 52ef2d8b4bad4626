//! TOML text to tables whose every value knows its line.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::diagnostic::{Report, shown};
use crate::protocol::names::nearest;

/// One text under examination. What is wrong with it goes to the report under its name.
pub(super) struct Document<'t, 'r> {
    /// As the user called it.
    pub(super) file: &'t Path,
    /// The absolute directory that relative paths start from.
    pub(super) base: &'t Path,
    text: &'t str,
    line_starts: Vec<usize>,
    pub(super) report: &'r mut Report,
}

/// A table of the file.
#[derive(Clone, Default)]
pub(super) struct Table<'t> {
    /// What diagnostics call it, such as `control`; empty for the top of the file.
    pub(super) path: String,
    /// Where it begins.
    pub(super) line: usize,
    entries: DeTable<'t>,
}

/// A value and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

impl<'t, 'r> Document<'t, 'r> {
    pub(super) fn new(file: &'t Path, base: &'t Path, text: &'t str, report: &'r mut Report) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).filter(|at| *at < text.len()).collect();
        report.reading(file);
        Self { file, base, text, line_starts, report }
    }

    /// The whole file, or `None` when it is not TOML. Then all syntax errors are told, but nothing is concluded from the rest: what a
    /// parser guesses behind an error misleads more than it helps.
    pub(super) fn parse(&mut self) -> Option<Table<'t>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        let mut lines = BTreeSet::new();
        for error in &errors {
            let line = error.span().map(|span| self.line(&span));
            // One slip often makes a parser complain several times on the spot.
            if lines.insert(line) {
                self.report.error(self.file, line, None, format!("this is not TOML: {}", error.message()));
            }
        }
        errors.is_empty().then(|| Table { path: String::new(), line: 1, entries: root.into_inner() })
    }

    pub(super) fn error(&mut self, line: usize, key: String, message: impl Into<String>) {
        self.report.error(self.file, Some(line), Some(key), message);
    }

    pub(super) fn warning(&mut self, line: usize, key: String, message: impl Into<String>) {
        self.report.warning(self.file, Some(line), Some(key), message);
    }

    /// The line that holds the start of a span, counted from 1. It always exists, but in an empty text.
    fn line(&self, span: &Range<usize>) -> usize {
        self.line_starts.partition_point(|start| *start <= span.start).max(1)
    }

    /// The line of a value.
    pub(super) fn line_of(&self, value: &Spanned<DeValue<'t>>) -> usize {
        self.line(&value.span())
    }

    /// Tells of every key that is not among `known`; `later` are keys that other versions know.
    pub(super) fn check_keys(&mut self, table: &Table<'t>, known: &[&str], later: &[&str]) {
        for key in table.entries.keys() {
            let word: &str = key.get_ref();
            if known.contains(&word) {
                continue;
            }
            let message = if self.report.is_full() {
                String::new() // it will only be counted, and finding what was meant takes time
            } else if later.contains(&word) {
                format!("this version of procman ({}) does not know this key; it is kept for a later one", env!("CARGO_PKG_VERSION"))
            } else {
                match nearest(&word.chars().take(64).collect::<String>(), known.iter().copied()) {
                    Some(near) => format!("there is no such key; did you mean `{near}`?"),
                    None => format!("there is no such key; known here: {}", known.join(", ")),
                }
            };
            self.error(self.line(&key.span()), table.key(word), message);
        }
    }

    /// Takes a sub-table out of a table.
    pub(super) fn take_table(&mut self, table: &mut Table<'t>, key: &str) -> Option<Table<'t>> {
        let (path, line, value) = self.take_value(table, key)?;
        let wrong = article(value.get_ref());
        if let DeValue::Table(entries) = value.into_inner() {
            return Some(Table { path, line, entries });
        }
        self.error(line, path, format!("this must be a table, [{key}], not {wrong}"));
        None
    }

    /// Takes an array of tables out of a table. Each still has the path of the array.
    pub(super) fn take_tables(&mut self, table: &mut Table<'t>, key: &str) -> Vec<Table<'t>> {
        let Some((path, line, value)) = self.take_value(table, key) else { return Vec::new() };
        let DeValue::Array(items) = value.into_inner() else {
            self.error(line, path, format!("each is a table of its own: write [[{key}]], with two brackets"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            let line = self.line(&item.span());
            match item.get_ref().as_table() {
                Some(entries) => tables.push(Table { path: path.clone(), line, entries: entries.clone() }),
                None => self.error(line, path.clone(), format!("each must be a table, [[{key}]], not {}", article(item.get_ref()))),
            }
        }
        tables
    }

    /// Takes a list out of a table, each item with its line.
    pub(super) fn take_list<T: Deserialize<'t>>(&mut self, table: &mut Table<'t>, key: &str) -> Option<Said<Vec<Said<T>>>> {
        let (path, line, value) = self.take_value(table, key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.error(line, path, format!("this must be a list, [ … ], not {}", article(value.get_ref())));
            return None;
        };
        let said: Vec<_> = items.iter().map(|item| self.read(item.clone(), &path)).collect();
        said.into_iter().collect::<Option<Vec<_>>>().map(|value| Said { value, line })
    }

    /// Takes a value out of a table.
    pub(super) fn take<T: Deserialize<'t>>(&mut self, table: &mut Table<'t>, key: &str) -> Option<Said<T>> {
        let (path, _, value) = self.take_value(table, key)?;
        self.read(value, &path)
    }

    /// Takes a value out of a table, as it stands there, with its path and line.
    pub(super) fn take_value(&mut self, table: &mut Table<'t>, key: &str) -> Option<(String, usize, Spanned<DeValue<'t>>)> {
        let (said, value) = table.entries.remove_entry(key)?;
        Some((table.key(key), self.line(&said.span()), value))
    }

    /// Makes a Rust value of a TOML value.
    pub(super) fn read<T: Deserialize<'t>>(&mut self, value: Spanned<DeValue<'t>>, path: &str) -> Option<Said<T>> {
        let line = self.line(&value.span());
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Said { value, line }),
            Err(error) => {
                let line = error.span().map_or(line, |span| self.line(&span));
                self.error(line, path.to_owned(), in_plain_words(error.message()));
                None
            }
        }
    }

    /// The absolute form of a path that the file says, or why it is none.
    pub(super) fn absolute(&self, path: &Path) -> Result<PathBuf, &'static str> {
        absolute(self.base, path)
    }
}

impl<'t> Table<'t> {
    /// A table inside another value.
    pub(super) fn new(path: String, entries: DeTable<'t>) -> Self {
        Self { path, line: 1, entries }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// What diagnostics call a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { shown(key) } else { format!("{}.{}", self.path, shown(key)) }
    }
}

/// Joins a path to an absolute directory that holds no symbolic link: for such a one `..` can be resolved by name.
pub(super) fn absolute(base: &Path, path: &Path) -> Result<PathBuf, &'static str> {
    if path.as_os_str().is_empty() {
        return Err("the path is empty");
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err("the path holds a NUL byte");
    }
    if path.starts_with("~") {
        return Err("`~` is not expanded here; write the home directory out");
    }
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let mut whole = base.to_owned();
    let mut parts = path.components().peekable();
    while parts.next_if(|part| matches!(part, std::path::Component::ParentDir | std::path::Component::CurDir)).is_some_and(|part| {
        if part == std::path::Component::ParentDir {
            whole.pop();
        }
        true
    }) {}
    whole.extend(parts);
    Ok(whole)
}

fn article(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    format!("{} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}

/// Serde speaks of Rust's types; the reader of a configuration file knows TOML's.
fn in_plain_words(message: &str) -> String {
    let mut message = message.replace("a sequence", "a list").replace("invalid type: sequence", "invalid type: list");
    message = message.replace("invalid type: map", "invalid type: table").replace("expected a map", "expected a table");
    for (rust, plain) in [
        ("expected f64", "expected a number"),
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected path string", "expected a path in quotes"),
        ("expected struct BackoffDefinition", "expected a table: { initial = 0.5, max = 60.0 }"),
        ("expected struct StartLimitDefinition", "expected a table: { count = 5, interval = 30.0 }"),
        ("expected a string", "expected a text in quotes"),
    ] {
        message = message.replace(rust, plain);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_base() {
        let base = Path::new("/etc/procman");
        for (said, expected) in [
            ("x", "/etc/procman/x"),
            ("./x/./y", "/etc/procman/x/y"),
            ("../x", "/etc/x"),
            (".././../x", "/x"),
            ("../../../../x", "/x"),
            ("x/../y", "/etc/procman/x/../y"), // x may be a symbolic link
            ("/x/../y", "/x/../y"),
            (".", "/etc/procman"),
        ] {
            assert_eq!(absolute(base, Path::new(said)).unwrap(), Path::new(expected), "{said}");
        }
        for bad in ["", "a\0b", "~/x", "~"] {
            assert!(absolute(base, Path::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lines_are_counted_from_one_and_exist() {
        let mut report = Report::default();
        let line = |text: &str, at: usize| Document::new(Path::new(""), Path::new("/"), text, &mut Report::default()).line(&(at..at));
        assert_eq!((line("", 0), line("a", 0), line("a\n", 1), line("a\n", 2), line("a\nb", 2), line("a\n\n", 2)), (1, 1, 1, 1, 2, 2));
        assert!(Document::new(Path::new(""), Path::new("/"), "a = ", &mut report).parse().is_none());
    }
}
