//! The `[[process]]` tables of a file, for `register`: the configuration's format, as strict as there.
//!
//! Each key is read alone, so that every mistake of a file is told at once, with its line and key.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::protocol::Name;
use crate::protocol::definition::Definition;
use crate::protocol::names::nearest;
use crate::protocol::request::Register;

/// One mistake of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there; it names the key.
    pub message: String,
}

/// Why the definitions of a file cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// The file could not be read.
    #[error("failed to read {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There are mistakes in it.
    #[error("{}", Listed { file, mistakes })]
    Mistakes {
        /// The file as it is shown.
        file: String,
        /// In the order of their lines.
        mistakes: Vec<Mistake>,
    },
}

/// `FILE:LINE: MESSAGE`, one line for each mistake.
struct Listed<'a> {
    file: &'a str,
    mistakes: &'a [Mistake],
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Mistake { line, message }) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{line}: {message}", self.file)?;
        }
        Ok(())
    }
}

/// Reads the definitions of a file, or of standard input where the file is `-`. Relative paths are relative to the file's directory, those of
/// standard input to the current one.
///
/// # Errors
/// Every mistake of the file at once.
pub fn read(file: &Path) -> Result<Vec<Register>, DefinitionsError> {
    let failed = |source| DefinitionsError::Read { file: file.to_owned(), source };
    let stdin = file.as_os_str() == "-";
    let text = if stdin { io::read_to_string(io::stdin().lock()) } else { std::fs::read_to_string(file) }.map_err(failed)?;
    let shown = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let base = if stdin { std::env::current_dir() } else { std::path::absolute(file) }.map_err(failed)?;
    let base = if stdin { base.as_path() } else { base.parent().unwrap_or(Path::new("/")) };
    parse(&text, base).map_err(|mistakes| DefinitionsError::Mistakes { file: shown, mistakes })
}

/// Reads the definitions of a text.
fn parse(text: &str, base: &Path) -> Result<Vec<Register>, Vec<Mistake>> {
    let mut reader = Reader { text, mistakes: Vec::new() };
    let requests = match DeTable::parse(text) {
        Ok(document) => reader.document(document.into_inner(), base),
        Err(error) => {
            reader.wrong(error.span().unwrap_or_default(), error.message());
            Vec::new()
        }
    };
    reader.mistakes.sort_by_key(|mistake| mistake.line);
    if reader.mistakes.is_empty() { Ok(requests) } else { Err(reader.mistakes) }
}

/// Collects the mistakes of one text.
struct Reader<'t> {
    text: &'t str,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn wrong(&mut self, span: Range<usize>, message: impl Into<String>) {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        self.mistakes.push(Mistake { line, message: message.into().replace('\n', " ") });
    }

    fn unknown(&mut self, span: Range<usize>, key: &str, known: &[&str]) {
        let hint = nearest(key, known.iter().copied())
            .map_or_else(|| format!("known are {}", known.join(", ")), |n| format!("did you mean `{n}`?"));
        self.wrong(span, format!("unknown key `{key}`, {hint}"));
    }

    fn document(&mut self, document: DeTable<'_>, base: &Path) -> Vec<Register> {
        let mut defaults = Definition::default();
        let mut entries = Vec::new();
        for (key, value) in document {
            let span = value.span();
            match (key.get_ref().as_ref(), value.into_inner()) {
                ("process", DeValue::Array(array)) => entries.extend(array),
                ("process", _) => self.wrong(key.span(), "`process` must be written [[process]], once for each sub-process"),
                ("defaults", DeValue::Table(table)) => defaults = self.definition(table, Definition::KEYS, base),
                ("defaults", _) => self.wrong(span, "`defaults` must be a table"),
                (other, _) => self.unknown(key.span(), other, &["process", "defaults"]),
            }
        }
        if entries.is_empty() && self.mistakes.is_empty() {
            self.wrong(0..0, "there is no [[process]] to register");
        }
        let mut requests: Vec<(Range<usize>, Register)> = Vec::new();
        for entry in entries {
            let span = entry.span();
            let Some((name, definition)) = self.entry(entry, base) else { continue };
            if requests.iter().any(|(_, other)| other.name == name) {
                self.wrong(span.clone(), format!("`name`: there are two sub-processes {name}"));
            }
            requests.push((span, Register { name, replace: false, definition: definition.or(&defaults) }));
        }
        self.in_order(requests)
    }

    /// Those that are named in `after` and `requires` come before those that name them: the daemon takes no name that it does not know.
    fn in_order(&mut self, mut requests: Vec<(Range<usize>, Register)>) -> Vec<Register> {
        let mut ordered: Vec<Register> = Vec::new();
        while !requests.is_empty() {
            let waiting: BTreeSet<Name> = requests.iter().map(|(_, request)| request.name.clone()).collect();
            let (ready, rest): (Vec<_>, Vec<_>) =
                requests.into_iter().partition(|(_, request)| !named(request).any(|name| waiting.contains(name)));
            requests = rest;
            if ready.is_empty() {
                // Also those that only lead to the circle are left; they are told about, too, as none of them can be registered.
                let names: Vec<_> = requests.iter().map(|(_, request)| request.name.as_str()).collect();
                let message =
                    format!("`after` and `requires` lead in a circle, so that none of these could be the first: {}", names.join(", "));
                if let Some((span, _)) = requests.first() {
                    self.wrong(span.clone(), message);
                }
                return ordered;
            }
            ordered.extend(ready.into_iter().map(|(_, request)| request));
        }
        ordered
    }

    /// One `[[process]]`; none when it has no proper name.
    fn entry(&mut self, entry: Spanned<DeValue<'_>>, base: &Path) -> Option<(Name, Definition)> {
        let span = entry.span();
        let DeValue::Table(mut table) = entry.into_inner() else {
            self.wrong(span, "`process` must be written [[process]], once for each sub-process");
            return None;
        };
        let name = table.remove("name");
        let known: Vec<&str> = std::iter::once("name").chain(Definition::KEYS.iter().copied()).collect();
        let definition = self.definition(table, &known, base);
        let Some(name) = name else {
            self.wrong(span, "`name` is missing: every [[process]] needs one");
            return None;
        };
        let at = name.span();
        match Name::deserialize(ValueDeserializer::from(name)) {
            Ok(name) => Some((name, definition)),
            Err(error) => {
                self.wrong(at, format!("`name`: {}", error.message()));
                None
            }
        }
    }

    /// The keys of a table, one by one.
    fn definition(&mut self, table: DeTable<'_>, known: &[&str], base: &Path) -> Definition {
        let mut definition = Definition::default();
        for (key, value) in table {
            let word = key.get_ref().to_string();
            if !Definition::KEYS.contains(&word.as_str()) {
                self.unknown(key.span(), &word, known);
                continue;
            }
            let (at, inside) = (key.span(), value.span());
            let alone = Spanned::new(at.start..inside.end, DeValue::Table(DeTable::from_iter([(key, value)])));
            match Definition::deserialize(ValueDeserializer::from(alone)) {
                Ok(said) => definition = said.or(&definition),
                // The place within the value where it has lines of its own; an error without one, or about the table made up above, is the key's.
                Err(error) => {
                    let span = error.span().filter(|span| span.start > at.start).unwrap_or(at);
                    self.wrong(span, format!("`{word}`: {}", error.message()));
                }
            }
        }
        absolute(&mut definition, base);
        definition
    }
}

/// Every name that may be meant by what it says of the order: an instance is registered with all the others.
fn named(request: &Register) -> impl Iterator<Item = &str> {
    let lists = [&request.definition.after, &request.definition.requires].into_iter().flatten().flatten();
    lists
        .flat_map(|name| {
            [Some(name.as_str()), name.as_str().rsplit_once('@').filter(|(_, number)| number.parse::<u32>().is_ok()).map(|(base, _)| base)]
        })
        .flatten()
}

/// Lays relative paths below the directory of the file that says them.
fn absolute(definition: &mut Definition, base: &Path) {
    // An empty one stays what it is, for the daemon to refuse.
    for path in definition.paths_mut().filter(|path| !path.as_os_str().is_empty()) {
        *path = base.join(&*path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::RestartPolicy;
    use crate::protocol::definition::Output;
    use proptest::prelude::*;

    fn mistakes(text: &str) -> Vec<String> {
        let file = "f.toml".to_owned();
        let error = DefinitionsError::Mistakes { file, mistakes: parse(text, Path::new("/base")).unwrap_err() };
        error.to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_is_its_requests() {
        let text = r#"
            [defaults]
            restart = "always"
            cwd = "work"

            [[process]]
            name = "web"
            group = "core"
            cmd = ["python3", "-m", "http.server"]
            env = { A = "b" }
            stdout = "file:log/web.out"
            stop_timeout = 3
            backoff = { initial = 1, factor = 1.5 }

            [[process]]
            name = "nap"
            cmd = ["sleep", "60"]
            restart = "never"
            cwd = "/"
            [process.start_limit]
            count = 3
        "#;
        let requests = parse(text, Path::new("/base")).unwrap();
        let names: Vec<_> = requests.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["web", "nap"]);
        let (web, nap) = (&requests[0].definition, &requests[1].definition);
        assert_eq!((web.restart, nap.restart), (Some(RestartPolicy::Always), Some(RestartPolicy::Never)));
        assert_eq!((web.cwd.as_deref(), nap.cwd.as_deref()), (Some(Path::new("/base/work")), Some(Path::new("/"))));
        assert_eq!(web.stdout, Some(Output::File("/base/log/web.out".into())));
        assert_eq!(web.stop_timeout.map(|s| s.get()), Some(3.0));
        assert_eq!(web.backoff.and_then(|b| b.factor), Some(1.5));
        assert_eq!(nap.start_limit.and_then(|l| l.count), Some(3));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_key() {
        let text = r#"[[process]]
name = "web"
comand = ["x"]
cmd = "sleep"

[[process]]
cmd = ["x"]
stop_timeout = -1
backoff = { initial = 1,
  jiter = 0.5 }

[[process]]
name = "a b"

[[process]]
name = "web"
[daemon]
"#;
        assert_eq!(
            mistakes(text),
            [
                "f.toml:3: unknown key `comand`, did you mean `cmd`?",
                "f.toml:4: `cmd`: invalid type: string \"sleep\", expected a sequence",
                "f.toml:6: `name` is missing: every [[process]] needs one",
                "f.toml:8: `stop_timeout`: -1 is not a time: 0 to 1e9 seconds are allowed",
                "f.toml:10: `backoff`: unknown field `jiter`, expected one of `initial`, `factor`, `max`, `jitter`, `reset_after`",
                "f.toml:13: `name`: \"a b\" is not a name: 1 to 64 characters of A-Z a-z 0-9 . _ @ : - are allowed",
                "f.toml:15: `name`: there are two sub-processes web",
                "f.toml:17: unknown key `daemon`, known are process, defaults",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_or_holds_nothing_is_refused() {
        assert!(mistakes("[[process]]\nname = web\n")[0].starts_with("f.toml:2: "));
        assert_eq!(mistakes("# nothing\n"), ["f.toml:1: there is no [[process]] to register"]);
        assert_eq!(mistakes("[process]\nname = \"a\"\n"), ["f.toml:1: `process` must be written [[process]], once for each sub-process"]);
        assert_eq!(mistakes("process = [1]\n"), ["f.toml:1: `process` must be written [[process]], once for each sub-process"]);
    }

    #[test]
    fn whoever_is_named_comes_first_and_nobody_waits_in_a_circle() {
        let process = |name: &str, more: &str| format!("[[process]]\nname = \"{name}\"\ncmd = [\"x\"]\n{more}\n");
        let text = [
            process("c", "requires = [\"b\", \"web@2\"]"),
            process("b", "after = [\"a\", \"elsewhere\"]"),
            process("a", ""),
            process("web", "instances = 2"),
        ];
        let names: Vec<_> = parse(&text.concat(), Path::new("/")).unwrap().into_iter().map(|request| request.name.to_string()).collect();
        assert_eq!(names, ["a", "web", "b", "c"]);
        let circle = [process("x", ""), process("a", "after = [\"b\"]"), process("b", "requires = [\"a\"]")].concat();
        assert_eq!(
            mistakes(&circle),
            ["f.toml:5: `after` and `requires` lead in a circle, so that none of these could be the first: a, b"]
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/x.toml")).unwrap_err().to_string();
        assert!(error.starts_with("failed to read /nonexistent/x.toml: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "(\\[\\[process\\]\\]\n)?([a-z]{1,5} ?= ?[\\[\\]{}\"0-9a-z=, \n]{0,12}\n){0,4}") {
            if let Err(mistakes) = parse(&text, Path::new("/")) {
                prop_assert!(!mistakes.is_empty());
                prop_assert!(mistakes.iter().all(|mistake| mistake.line <= text.lines().count().max(1) + 1));
            }
        }
    }
}
