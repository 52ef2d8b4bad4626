//! What the documents point at is there: files and headings they link to, targets of the Makefile they name.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold no document of ours.
const NOT_OURS: [&str; 3] = ["target", ".git", "node_modules"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file below a directory.
fn documents(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !NOT_OURS.iter().any(|name| path.ends_with(name)) {
                found.extend(documents(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// The lines of a document that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !fence && !in_code
    })
}

/// The targets of the links `[…](target)` of a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// The anchors that a document's headings get: lower case, punctuation dropped, hyphens for spaces.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Why a link leads nowhere, if it does.
fn complaint(document: &Path, link: &str) -> Option<String> {
    if link.contains("://") {
        return None; // another host: nothing that a test can hold
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { document.to_owned() } else { document.parent().unwrap().join(path) };
    if !target.exists() {
        return Some(format!("{}: {link} is not there", document.display()));
    }
    let missing = !anchor.is_empty() && !anchors(&fs::read_to_string(target).unwrap()).contains(anchor);
    missing.then(|| format!("{}: {link}: there is no such heading", document.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents(root());
    assert!(documents.len() >= 2, "the documents were not found: {documents:?}");
    let complaints: Vec<String> = documents
        .iter()
        .flat_map(|document| {
            let text = fs::read_to_string(document).unwrap();
            prose(&text).flat_map(links).filter_map(|link| complaint(document, link)).collect::<Vec<_>>()
        })
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let document = root().join("CHANGELOG.md");
    assert_eq!(prose("[a](b)\n```\n[c](d)\n```\n[e](f#g) [h](i)").flat_map(links).collect::<Vec<_>>(), ["b", "f#g", "i"]);
    assert_eq!(anchors("# Who may, whom?\n## `a_b` c"), ["a_b-c", "who-may-whom"].map(String::from).into());
    assert!(complaint(&document, "no/such/file.md").is_some());
    assert!(complaint(&document, "CHANGELOG.md#no-such-heading").is_some());
    assert_eq!(complaint(&document, "CHANGELOG.md#changelog"), None);
}

#[test]
fn targets_of_the_makefile_that_the_documents_name_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: BTreeSet<&str> = makefile.lines().filter_map(|line| line.split_once(':')).map(|(target, _)| target).collect();
    for document in documents(root()) {
        let text = fs::read_to_string(&document).unwrap();
        for words in text.lines().flat_map(|line| line.split('`').map(str::trim)).filter_map(|code| code.strip_prefix("make ")) {
            let target = words.split_whitespace().next().unwrap_or_default();
            assert!(targets.contains(target), "{}: the Makefile has no target {target:?}", document.display());
        }
    }
}

#[test]
fn each_row_of_the_attackers_has_a_test() {
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let rows: Vec<_> = security.lines().filter(|line| line.starts_with('|') && line.contains("::")).collect();
    assert!(rows.len() >= 15, "{}", rows.len());
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap();
        for test in tests.split('`').skip(1).step_by(2) {
            let (file, function) = test.rsplit_once("::").unwrap();
            let path = match file.strip_prefix("control::").and_then(|file| file.strip_suffix("::tests").or(Some(file))) {
                Some(file) => format!("src/control/{}.rs", file.trim_end_matches("::tests")),
                None => format!("tests/it/{file}.rs"),
            };
            let source =
                fs::read_to_string(root().join(&path)).or_else(|_| fs::read_to_string(root().join(path.replace(".rs", "/mod.rs"))));
            let source = source.unwrap_or_else(|_| panic!("{test}: there is no {path}"));
            let wanted = if function == "tests" { "mod tests".to_owned() } else { format!("fn {}", function.trim_end_matches('…')) };
            assert!(source.contains(&wanted), "{test}: {path} has no {wanted}");
        }
    }
}
