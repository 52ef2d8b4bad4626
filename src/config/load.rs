//! Reads the files. The only one in this room that touches the file system, and the accounts of the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use super::diagnostic::{ConfigErrors, Report};
use super::document::{Document, Said, Table};
use super::order;
use super::places::Places;
use super::process::{self, Defaults, Entry, Taken};
use super::settings::{self, Settings};
use super::{Config, Loaded};
use crate::access::ServerKey;
use crate::protocol::Name;
use crate::protocol::definition::Definition;

/// The largest file in bytes: thousands of sub-processes fit in, a log file given by mistake does not.
pub(super) const MAX_FILE_BYTES: u64 = 4 << 20;

/// What an included file may hold.
const INCLUDED_TABLES: &[&str] = &["defaults", "process"];

/// Everything that the main file says.
struct Main {
    settings: Settings,
    defaults: Defaults,
    entries: Vec<Entry>,
    taken: Taken,
    /// Every file could be read, and is TOML: what is named and not there is nowhere.
    complete: bool,
}

pub(super) fn load(path: &Path, places: &Places) -> Result<Loaded, ConfigErrors> {
    let mut report = Report::default();
    let Some((text, base)) = read(path, &mut report) else {
        return Err(report.finish().err().unwrap_or(ConfigErrors(Vec::new())));
    };
    let mut main = main_file(&text, path, &base, places, &mut report);
    // As it was called: where a link on the way is set anew, it is read from there the next time.
    let source = std::path::absolute(path).unwrap_or_else(|_| base.join(path.file_name().unwrap_or_default()));
    for included in included_files(&main.settings.include, path, &base, &source, &mut report) {
        let more = read(&included, &mut report)
            .and_then(|(text, base)| included_file(&text, &included, &base, &main.defaults, &mut main.taken, &mut report));
        main.complete &= more.is_some();
        main.entries.extend(more.unwrap_or_default());
    }
    look_up_accounts(&main, path, &mut report);
    read_keys(&mut main.settings, path, &mut report);
    conclude(main, source, report)
}

pub(super) fn load_default(places: &Places) -> Result<Loaded, ConfigErrors> {
    let mut report = Report::default();
    let file = match &places.config_file {
        Some(file) if file.symlink_metadata().is_ok_and(|_| true) => return load(file, places),
        Some(file) => file.clone(),
        None => PathBuf::from("/"),
    };
    report.warning(&file, None, None, "there is no such file; the built-in defaults are used, and no sub-process is known yet");
    let main = main_file("", &file, Path::new("/"), places, &mut report);
    conclude(main, file, report)
}

pub(super) fn from_text(text: &str, file: &Path, places: &Places) -> Result<Loaded, ConfigErrors> {
    let mut report = Report::default();
    let (file_absolute, base) = lexical_base(file);
    let main = main_file(text, file, &base, places, &mut report);
    conclude(main, file_absolute, report)
}

pub(super) fn parse_processes(text: &str, file: &Path) -> Result<Vec<(Name, Definition)>, ConfigErrors> {
    let mut report = Report::default();
    let (_, base) = lexical_base(file);
    let entries = included_file(text, file, &base, &Defaults::default(), &mut Taken::new(), &mut report);
    report.finish()?;
    Ok(entries.into_iter().flatten().map(|entry| (entry.name, entry.definition)).collect())
}

fn conclude(main: Main, source: PathBuf, mut report: Report) -> Result<Loaded, ConfigErrors> {
    order::check(&main.entries, &main.taken, main.complete, &mut report);
    check_cgse(&main, &mut report);
    let warnings = report.finish()?;
    let Main { settings, entries, .. } = main;
    let Settings { state_dir, runtime_dir, cgroup, control, events, metrics, limits, cgse, .. } = settings;
    let processes = entries.into_iter().flat_map(|entry| entry.specs).collect();
    Ok(Loaded { config: Config { state_dir, runtime_dir, cgroup, control, events, metrics, limits, cgse, processes, source }, warnings })
}

/// What is a service of CGSE needs its registry, and a type that nobody else has.
fn check_cgse(main: &Main, report: &mut Report) {
    let mut types: BTreeMap<&str, &Name> = BTreeMap::new();
    for entry in &main.entries {
        for spec in &entry.specs {
            let Some(service_type) = spec.cgse_service_type.as_deref() else { continue };
            let mut wrong = |message: String| {
                let key = format!("process[{}].cgse_service_type", entry.name);
                report.error(&entry.file, Some(entry.line_of("cgse_service_type")), Some(key), message);
            };
            match &main.settings.cgse {
                None => wrong("the daemon knows no registry of CGSE: say [cgse] in the main file, too".to_owned()),
                Some(cgse) if cgse.service_type == service_type => wrong(format!("{service_type:?} is the daemon's own type")),
                Some(_) => {
                    if let Some(other) = types.insert(service_type, &spec.name) {
                        wrong(format!("{other} has this type, too, and the registry lists only one of each"));
                        break;
                    }
                }
            }
            if main.settings.cgse.is_none() {
                break;
            }
        }
    }
}

fn main_file(text: &str, file: &Path, base: &Path, places: &Places, report: &mut Report) -> Main {
    let mut doc = Document::new(file, base, text, report);
    let (mut root, system);
    let parsed = doc.parse();
    let complete = parsed.is_some();
    let places = match parsed {
        Some(table) => {
            root = table;
            places
        }
        None => {
            // Not TOML: nothing more is to be said about an empty text, not even that a default is missing.
            (root, system) = (Table::default(), Places::system());
            &system
        }
    };
    doc.check_keys(&root, settings::TABLES, settings::LATER_TABLES);
    let settings = settings::read(&mut doc, &mut root, places);
    let defaults = process::defaults(&mut doc, &mut root, &Defaults::default());
    let mut taken = Taken::new();
    let entries = process::entries(&mut doc, &mut root, &defaults, &mut taken);
    Main { settings, defaults, entries, taken, complete }
}

fn included_file(text: &str, file: &Path, base: &Path, below: &Defaults, taken: &mut Taken, report: &mut Report) -> Option<Vec<Entry>> {
    let mut doc = Document::new(file, base, text, report);
    let mut root = doc.parse()?;
    for table in settings::TABLES.iter().filter(|table| !INCLUDED_TABLES.contains(table)) {
        if let Some((path, line, _)) = doc.take_value(&mut root, table) {
            doc.error(line, path, "this belongs into the main configuration file; here are only [[process]] and [defaults] for them");
        }
    }
    doc.check_keys(&root, INCLUDED_TABLES, settings::LATER_TABLES);
    let defaults = process::defaults(&mut doc, &mut root, below);
    Some(process::entries(&mut doc, &mut root, &defaults, taken))
}

/// The files that the patterns name: those of one pattern in the order of their names, none twice.
fn included_files(patterns: &[Said<String>], main: &Path, base: &Path, source: &Path, report: &mut Report) -> Vec<PathBuf> {
    // As in a shell: `*` does not find what is hidden, such as the lock file of an editor.
    let options = glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for Said { value: pattern, line } in patterns {
        let mut error = |message: String| report.error(main, Some(*line), Some("daemon.include".into()), message);
        let whole = match base.to_str() {
            _ if Path::new(pattern).is_absolute() => pattern.clone(),
            Some(base) => format!("{}/{pattern}", glob::Pattern::escape(base)),
            None => {
                error("the path of the configuration file is not UTF-8: patterns must be absolute".into());
                continue;
            }
        };
        let paths = match glob::glob_with(&whole, options) {
            Ok(paths) => paths,
            Err(why) => {
                error(format!("{pattern:?} is no pattern: {}", why.msg));
                continue;
            }
        };
        let mut found = Vec::new();
        for path in paths {
            match path {
                Ok(path) if is_same_file(&path, source) => {
                    error(format!(
                        "{pattern:?} finds the configuration file itself; keep the others in a directory of their own: \"conf.d/*.toml\""
                    ));
                }
                Ok(path) => found.push(path),
                Err(why) => error(format!("cannot read {}: {}", why.path().display(), why.error())),
            }
        }
        if found.is_empty() && !pattern.contains(['*', '?', '[']) {
            error(format!("there is no file {pattern:?}"));
        }
        found.sort();
        files.extend(found.into_iter().filter(|path| seen.insert(path.clone())));
    }
    files
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The text of a file, and the directory it is in, free of symbolic links.
fn read(file: &Path, report: &mut Report) -> Option<(String, PathBuf)> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let result = read_bytes(file, report).and_then(|bytes| {
        let base = parent.canonicalize().map_err(|error| (None, format!("cannot find its directory: {error}")))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok((text, base)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
                Err((Some(line), "this is not UTF-8, which TOML demands".into()))
            }
        }
    });
    result.map_err(|(line, message)| report.error(file, line, None, message)).ok()
}

fn read_bytes(path: &Path, report: &mut Report) -> Result<Vec<u8>, (Option<usize>, String)> {
    let no = |message: String| (None, message);
    // A FIFO is opened without waiting for a writer, and then refused.
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| {
        no(if error.kind() == ErrorKind::NotFound { "there is no such file".into() } else { format!("cannot open it: {error}") })
    })?;
    let metadata = file.metadata().map_err(|error| no(format!("cannot read it: {error}")))?;
    if metadata.is_dir() {
        return Err(no("this is a directory; a configuration is a file".into()));
    }
    if !metadata.is_file() {
        return Err(no("this is not a regular file".into()));
    }
    if metadata.permissions().mode() & 0o002 != 0 {
        report.warning(path, None, None, "every user of this host can change it, and so run any program as the daemon's user: chmod o-w");
    }
    let mut bytes = Vec::new();
    // One byte more than allowed is read, as the file may grow meanwhile.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| no(format!("cannot read it: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(no(format!("this is larger than {} MiB, which is no configuration any more", MAX_FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

/// A file's absolute path and directory, found without looking at the file system.
fn lexical_base(file: &Path) -> (PathBuf, PathBuf) {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| Path::new("/").join(file));
    let base = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    (absolute, base)
}

/// A group that is missing keeps the socket from being made; a user that is missing only keeps one sub-process from starting, and may come.
fn look_up_accounts(main: &Main, file: &Path, report: &mut Report) {
    for (group, key, line) in &main.settings.socket_groups {
        if let Ok(None) = Group::from_name(group) {
            let message = format!("there is no group {group:?} on this host: groupadd --system {group}");
            report.error(file, Some(*line), Some((*key).to_owned()), message);
        }
    }
    let mut known = BTreeSet::new();
    for entry in &main.entries {
        let Some(user) = &entry.definition.user else { continue };
        if known.insert(user) && matches!(User::from_name(user), Ok(None)) {
            let key = format!("process[{}].user", entry.name);
            report.warning(&entry.file, Some(entry.line_of("user")), Some(key), format!("there is no user {user:?} on this host"));
        }
    }
}

/// The secret key that TCP is guarded by. Without it there is no door, so it is an error.
fn read_keys(settings: &mut Settings, file: &Path, report: &mut Report) {
    let Some(path) = &settings.control.secret_key_file else { return };
    match ServerKey::read(path) {
        Ok(key) => settings.control.access.server = Some(key),
        Err(error) => report.error(file, settings.secret_key_line, Some("control.curve.secret_key_file".to_owned()), error.to_string()),
    }
}
