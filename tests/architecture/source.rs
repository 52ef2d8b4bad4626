//! Reads Rust just as far as the rules need it: words without comments and texts, without what is compiled for tests only, and the paths among them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One file of `src`, without its tests.
pub(crate) struct Source {
    /// From `src` on: `subprocess/machine/mod.rs`.
    pub(crate) path: String,
    /// Words, numbers and signs, one after the other; `::` is one of them.
    pub(crate) tokens: Vec<String>,
}

impl Source {
    /// The room it lies in; `bin` for the programs, `lib.rs` for the map.
    pub(crate) fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether this word occurs, or this path: `unsafe`, `Instant::now`.
    pub(crate) fn mentions(&self, path: &str) -> bool {
        let path = tokens(path);
        self.tokens.windows(path.len()).any(|window| window == path)
    }

    /// Every path that begins with this word, such as `crate`, without it: one for each leaf of `crate::{a, b::{c, d}}`.
    pub(crate) fn paths(&self, start: &str) -> BTreeSet<Vec<String>> {
        let mut found = BTreeSet::new();
        for (at, token) in self.tokens.iter().enumerate() {
            if token == start && self.tokens.get(at + 1).is_some_and(|next| next == "::") {
                leaves(&self.tokens, at + 2, &mut Vec::new(), &mut found);
            }
        }
        found
    }

    /// The longest chain of `super::super::…`: how far up it looks.
    pub(crate) fn climbs(&self) -> usize {
        let chain = |at: usize| (0..).take_while(|n| self.tokens.get(at + 2 * n).is_some_and(|token| token == "super")).count();
        (0..self.tokens.len()).map(chain).max().unwrap_or(0)
    }

    /// How many modules deep it lies: `supervisor/mod.rs` and `lib.rs`'s own child `supervisor` 1, `supervisor/leave.rs` 2.
    pub(crate) fn depth(&self) -> usize {
        let components = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { components - 1 } else { components }
    }
}

/// Reads the rest of a path at `at`; returns where it ends.
fn leaves(tokens: &[String], mut at: usize, prefix: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) -> usize {
    let length = prefix.len();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = leaves(tokens, at, prefix, found);
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1; // `as other`
                    }
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                prefix.truncate(length);
                return at + 1;
            }
            Some(word) => prefix.push(word.to_owned()),
            None => {}
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            found.insert(prefix.clone());
            prefix.truncate(length);
            return at;
        }
        at += 1;
    }
}

/// Every file of `src`, without files that are tests.
pub(crate) fn read_all() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    list(&src, &mut files);
    let mut sources = Vec::new();
    let mut tests = BTreeSet::new();
    for file in files {
        let (tokens, test_modules) = without_tests(tokens(&fs::read_to_string(&file).unwrap()));
        let home = match file.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs") => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        tests.extend(test_modules.into_iter().map(|module| home.join(module)));
        sources.push((file, tokens));
    }
    let is_test = |file: &Path| tests.iter().any(|test| file.with_extension("") == *test || file.starts_with(test));
    sources.retain(|(file, _)| !is_test(file));
    let path = |file: &Path| file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    sources.into_iter().map(|(file, tokens)| Source { path: path(&file), tokens }).collect()
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// Splits Rust into words and signs; comments are gone, and of texts only an empty one is left.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            tokens.push("\"\"".to_owned());
            length
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the text or character that begins here, if one does.
fn literal(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    if prefix > 2 {
        return None;
    }
    let raw = rest[..prefix].contains('r');
    let quoted = &rest[prefix..];
    if raw {
        let hashes = quoted.find(|c| c != '#')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return quoted[hashes..].strip_prefix('"')?.find(&end).map(|at| prefix + hashes + 1 + at + end.len());
    }
    if let Some(text) = quoted.strip_prefix('"') {
        let mut escaped = false;
        let end = text.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return end.map(|end| prefix + end + 2);
    }
    // 'x' and '\n', but not the lifetime 'x.
    let mut characters = quoted.strip_prefix('\'')?.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        characters.next();
        return characters.find(|(_, c)| *c == '\'').map(|(at, _)| prefix + at + 2);
    }
    characters.next().filter(|(_, c)| *c == '\'').map(|(at, _)| prefix + at + 2)
}

/// Drops every item under `#[cfg(test)]`; also returns the names of the modules among them that have files of their own.
fn without_tests(tokens: Vec<String>) -> (Vec<String>, Vec<String>) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().zip(MARK).all(|(token, mark)| token == mark) || tokens.len() - at < MARK.len() {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let item = at + MARK.len();
        let end = end_of_item(&tokens, item);
        if let Some(module) = tokens[item..end].windows(3).find(|words| words[0] == "mod" && words[2] == ";") {
            modules.push(module[1].clone());
        }
        at = end;
    }
    (kept, modules)
}

/// Where the item at `at` ends: behind its `;`, or behind its last brace.
fn end_of_item(tokens: &[String], mut at: usize) -> usize {
    let is_use = tokens.get(at).is_some_and(|token| token == "use");
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token == "}" && !is_use {
                    return at;
                }
            }
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { path: "a/b.rs".into(), tokens: without_tests(tokens(text)).0 }
    }

    #[test]
    fn comments_and_texts_say_nothing() {
        let text =
            "//! unsafe\n/* unsafe */ fn f<'a>(x: &'a str) { g(\"unsafe \\\" crate::x\", r#\"unsafe\"#, b\"unsafe\", '\"', '\\'', 'u') }";
        assert!(!source(text).mentions("unsafe") && source(text).paths("crate").is_empty());
        assert!(source(&format!("{text} unsafe")).mentions("unsafe"));
    }

    #[test]
    fn every_leaf_of_a_path_is_found() {
        let text = "use crate::a::{self, b::{C, D as E}, F}; use crate::g; fn f() { crate::h::i(1)?; } pub(crate) struct J;";
        let paths: Vec<String> = source(text).paths("crate").iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["a::F", "a::b::C", "a::b::D", "a::self", "g", "h::i"]);
    }

    #[test]
    fn what_is_for_tests_only_does_not_count() {
        let text = "use crate::a; #[cfg(test)] use crate::{b}; #[cfg(test)] #[path = \"x\"] mod tests { use crate::c; fn f() {} } \
                    #[cfg(test)] pub(crate) mod testing; use crate::d; #[cfg(test)] fn g(x: [u8; 2]) -> u8 { crate::e() } use crate::f;";
        let (tokens, modules) = without_tests(tokens(text));
        assert_eq!(modules, ["testing"]);
        let paths = Source { path: String::new(), tokens }.paths("crate");
        assert_eq!(paths.into_iter().flatten().collect::<String>(), "adf");
    }

    #[test]
    fn climbing_is_counted() {
        assert_eq!(source("use super::a; use super::super::b; fn f() { super::c() }").climbs(), 2);
        assert_eq!((source("").climbs(), source("").depth()), (0, 2));
        assert_eq!(Source { path: "a/mod.rs".into(), tokens: Vec::new() }.depth(), 1);
    }
}
