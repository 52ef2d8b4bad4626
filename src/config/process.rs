//! `[defaults]` and `[[process]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::shown;
use super::document::{Document, Table};
use crate::protocol::Name;
use crate::protocol::definition::{Definition, HealthDefinition, LimitsDefinition, ReadyDefinition, StopRequestDefinition};
use crate::subprocess::spec::{Spec, instances};
use crate::supervisor::order::Link;

/// The key of a `[[process]]` table that `[defaults]` does not have.
const NAME: &str = "name";
/// Keys that a later version knows.
const LATER_KEYS: &[&str] = &[];

/// The keys of those tables in a table whose names are a closed list; `None` for every other key.
pub(super) fn sub_keys(key: &str) -> Option<&'static [&'static str]> {
    match key {
        "backoff" => Some(&["initial", "factor", "max", "jitter", "reset_after"]),
        "start_limit" => Some(&["count", "interval"]),
        "log" => Some(&["max_size", "keep", "compress", "max_age"]),
        "limits" => Some(LimitsDefinition::KEYS),
        "ready" => Some(ReadyDefinition::KEYS),
        "health" => Some(HealthDefinition::KEYS),
        "stop_request" => Some(StopRequestDefinition::KEYS),
        _ => None,
    }
}

/// The keys that one table says of a definition.
#[derive(Clone, Debug, Default)]
struct Defined {
    definition: Definition,
    /// The line of every key that was said.
    lines: BTreeMap<&'static str, usize>,
    /// The keys that were said, but wrong, and have been told about.
    wrong: BTreeSet<&'static str>,
}

/// What `[defaults]` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    definition: Definition,
    wrong: BTreeSet<&'static str>,
}

/// One `[[process]]`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Name,
    /// What the entry says, and where it is silent, what the defaults say.
    pub(super) definition: Definition,
    /// What it comes to: more than one with `instances`, never none.
    pub(super) specs: Vec<Spec>,
    pub(super) file: PathBuf,
    /// The line of every key that it says itself.
    lines: BTreeMap<&'static str, usize>,
    /// Where it begins.
    line: usize,
}

impl Entry {
    /// The line of a key, or where the defaults say it, of the entry.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.lines.get(key).copied().unwrap_or(self.line)
    }

    /// Where it says whom it depends on, as diagnostics have it.
    pub(super) fn place_of(&self, link: Link) -> (&Path, usize, String) {
        (&self.file, self.line_of(link.key()), format!("process[{}].{}", self.name, link.key()))
    }
}

/// Which names are taken, and where.
pub(super) type Taken = BTreeMap<Name, (PathBuf, usize)>;

/// Takes `[defaults]` out of a file; they lie over `below`.
pub(super) fn defaults<'t>(doc: &mut Document<'t, '_>, root: &mut Table<'t>, below: &Defaults) -> Defaults {
    let Some(mut table) = doc.take_table(root, "defaults") else { return below.clone() };
    doc.check_keys(&table, Definition::KEYS, LATER_KEYS);
    let mut said = definition(doc, &mut table);
    // Checked on their own, so that a wrong default is told once and not for every entry that it reaches.
    let mut complete = said.definition.clone();
    complete.cmd.get_or_insert_with(|| vec!["true".into()]);
    complete.instances = None;
    if let Ok(name) = "defaults".parse() {
        for problem in Spec::resolve(name, complete).err().unwrap_or_default() {
            let line = said.lines.get(problem.key).copied().unwrap_or(table.line);
            doc.error(line, table.key(problem.key), problem.message);
            said.wrong.insert(problem.key);
        }
    }
    let mut wrong = below.wrong.clone();
    wrong.retain(|key| !said.lines.contains_key(key));
    wrong.append(&mut said.wrong);
    Defaults { definition: said.definition.or(&below.definition), wrong }
}

/// Takes every `[[process]]` out of a file. Those that are wrong are told about and left out.
pub(super) fn entries<'t>(doc: &mut Document<'t, '_>, root: &mut Table<'t>, defaults: &Defaults, taken: &mut Taken) -> Vec<Entry> {
    let known: Vec<&str> = std::iter::once(NAME).chain(Definition::KEYS.iter().copied()).collect();
    let mut entries = Vec::new();
    for (index, mut table) in doc.take_tables(root, "process").into_iter().enumerate() {
        table.path = format!("process[#{}]", index + 1);
        let name = name(doc, &mut table, taken);
        doc.check_keys(&table, &known, LATER_KEYS);
        let said = definition(doc, &mut table);
        let definition = said.definition.or(&defaults.definition);
        // Without a name the rest is still worth a check.
        let Some(stand_in) = name.clone().or_else(|| "unnamed".parse().ok()) else { continue };
        match instances::resolve(&stand_in, definition.clone()) {
            Ok(specs) => {
                if let (Some(name), true) = (name, said.wrong.is_empty()) {
                    let entry = Entry { name, definition, specs, file: doc.file.to_owned(), lines: said.lines, line: table.line };
                    if take_instances(doc, &entry, taken) {
                        entries.push(entry);
                    }
                }
            }
            Err(problems) => {
                for problem in problems {
                    let line = said.lines.get(problem.key).copied();
                    let told = said.wrong.contains(problem.key) || (line.is_none() && defaults.wrong.contains(problem.key));
                    if !told {
                        doc.error(line.unwrap_or(table.line), table.key(problem.key), problem.message);
                    }
                }
            }
        }
    }
    entries
}

/// The name of an entry, which from here on is also what diagnostics call it.
fn name<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>, taken: &mut Taken) -> Option<Name> {
    let Some((path, line, value)) = doc.take_value(table, NAME) else {
        doc.error(table.line, table.key(NAME), "every sub-process needs a name");
        return None;
    };
    let name = doc.read::<Name>(value, &path)?.value;
    table.path = format!("process[{name}]");
    if let Some((file, first)) = taken.get(&name) {
        doc.error(line, table.key(NAME), format!("the name is taken by the sub-process at {}:{first}", file.display()));
        return None;
    }
    taken.insert(name.clone(), (doc.file.to_owned(), line));
    Some(name)
}

/// Takes the names of the instances, too; another entry may bear one of them.
fn take_instances(doc: &mut Document<'_, '_>, entry: &Entry, taken: &mut Taken) -> bool {
    let line = entry.line_of("instances");
    for name in entry.specs.iter().map(|spec| &spec.name).filter(|name| **name != entry.name) {
        if let Some((file, first)) = taken.get(name) {
            let message = format!("the name {name} of an instance is taken by the sub-process at {}:{first}", file.display());
            doc.error(line, format!("process[{}].instances", entry.name), message);
            return false;
        }
        taken.insert(name.clone(), (doc.file.to_owned(), line));
    }
    true
}

/// Takes the keys of a definition out of a table, each on its own, so that every wrong one is told with its line.
fn definition<'t>(doc: &mut Document<'t, '_>, table: &mut Table<'t>) -> Defined {
    let mut defined = Defined::default();
    for key in Definition::KEYS.iter().copied() {
        let Some((path, line, value)) = doc.take_value(table, key) else { continue };
        defined.lines.insert(key, line);
        match one_key(doc, key, &path, value).and_then(|said| with_absolute_paths(doc, line, &path, said)) {
            Some(said) => defined.definition = said.or(&defined.definition),
            None => {
                defined.wrong.insert(key);
            }
        }
    }
    defined
}

/// The definition that says only this key, or `None` when its value is wrong.
fn one_key<'t>(doc: &mut Document<'t, '_>, key: &'static str, path: &str, value: Spanned<DeValue<'t>>) -> Option<Definition> {
    if let DeValue::Table(inner) = value.get_ref() {
        let parts = Table::new(path.to_owned(), inner.clone());
        if !inner.is_empty() && !each_part(doc, key, parts, inner) {
            return None;
        }
    }
    if matches!((key, value.get_ref()), ("cmd" | "args", DeValue::String(_))) {
        let line = doc.line_of(&value);
        doc.error(line, path.to_owned(), "write it as a list of words: [\"program\", \"argument\"]");
        return None;
    }
    doc.read(only(key, value), path).map(|said| said.value)
}

/// Whether every part of a table in a table is right by itself; those that are not are told about.
fn each_part<'t>(doc: &mut Document<'t, '_>, key: &'static str, parts: Table<'t>, inner: &DeTable<'t>) -> bool {
    let mut right = true;
    let known = sub_keys(key);
    if let Some(known) = known {
        doc.check_keys(&parts, known, &[]);
    }
    for (part, value) in inner {
        if known.is_some_and(|known| !known.contains(&part.get_ref().as_ref())) {
            right = false;
            continue;
        }
        let mut one = DeTable::new();
        one.insert(part.clone(), value.clone());
        let one = Spanned::new(value.span(), DeValue::Table(one));
        let path = format!("{}.{}", parts.path, shown(part.get_ref()));
        right &= doc.read::<Definition>(only(key, one), &path).is_some();
    }
    right
}

/// The table `{ key = value }`.
fn only<'t>(key: &'static str, value: Spanned<DeValue<'t>>) -> Spanned<DeValue<'t>> {
    let span = value.span();
    let mut table = DeTable::new();
    table.insert(Spanned::new(span.clone(), key.into()), value);
    Spanned::new(span, DeValue::Table(table))
}

/// Resolves what is relative to the file, as a client's definition would have to be absolute.
fn with_absolute_paths(doc: &mut Document<'_, '_>, line: usize, path: &str, mut said: Definition) -> Option<Definition> {
    for said_path in said.paths_mut() {
        match doc.absolute(said_path) {
            Ok(absolute) => *said_path = absolute,
            Err(why) => {
                doc.error(line, path.to_owned(), why);
                return None;
            }
        }
    }
    Some(said)
}
