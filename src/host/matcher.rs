//! Which command lines are meant.

use std::borrow::Cow;

use crate::procfs::words::split_cmdline;

/// Items that must each occur in some single word of a command line; never in the joined line.
///
/// Without items nothing matches; the empty item matches every process that has a command line, which kernel threads and zombies have not.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// In lower case where case does not count.
    items: Vec<String>,
    contains: bool,
    case_sensitive: bool,
}

impl Matcher {
    /// Each item must be part of a word (`contains`) or equal one. Unless `case_sensitive`, both sides are compared in lower case, as Unicode
    /// and Python's `str.lower()` have it.
    pub fn new(items: &[String], contains: bool, case_sensitive: bool) -> Self {
        let items = items.iter().map(|item| if case_sensitive { item.clone() } else { item.to_lowercase() }).collect();
        Self { items, contains, case_sensitive }
    }

    /// Whether a process with these words is meant.
    pub fn matches<'w>(&self, argv: impl IntoIterator<Item = &'w [u8], IntoIter: Clone>) -> bool {
        let words = argv.into_iter();
        !self.items.is_empty() && self.items.iter().all(|item| words.clone().any(|word| self.occurs(item, &self.prepared(word))))
    }

    /// There are no items.
    pub(super) fn matches_nothing(&self) -> bool {
        self.items.is_empty()
    }

    /// The same for the content of `/proc/PID/cmdline`. `folded` is reused, so that the usual command line, which is ASCII, is put into lower
    /// case all at once and without allocating.
    pub(super) fn matches_content(&self, content: &[u8], folded: &mut Vec<u8>) -> bool {
        if self.case_sensitive || !content.is_ascii() {
            return self.matches(split_cmdline(content));
        }
        folded.clear();
        folded.extend_from_slice(content);
        folded.make_ascii_lowercase();
        let words = split_cmdline(folded).map(|word| str::from_utf8(word).unwrap_or_default());
        !self.items.is_empty() && self.items.iter().all(|item| words.clone().any(|word| self.occurs(item, word)))
    }

    /// The word as text, in lower case where case does not count. Bytes that are not UTF-8 become U+FFFD, as in the answers.
    fn prepared<'w>(&self, word: &'w [u8]) -> Cow<'w, str> {
        let text = String::from_utf8_lossy(word);
        if self.case_sensitive { text } else { Cow::Owned(text.to_lowercase()) }
    }

    /// `str::contains` takes time in proportion to both lengths, however hostile they are.
    fn occurs(&self, item: &str, word: &str) -> bool {
        if self.contains { word.contains(item) } else { word == item }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(items: &[&str], contains: bool, case_sensitive: bool) -> Matcher {
        Matcher::new(&items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>(), contains, case_sensitive)
    }

    fn part(items: &[&str], argv: &[&str]) -> bool {
        matcher(items, true, false).matches(argv.iter().map(|word| word.as_bytes()))
    }

    #[test]
    fn every_item_must_occur_in_some_word() {
        let argv = ["/usr/bin/python3", "-m", "Dpu_CS", "start", "--zeromq"];
        assert!(part(&["dpu_cs"], &argv));
        assert!(part(&["dpu_cs", "--zeromq", "PYTHON"], &argv));
        assert!(!part(&["dpu_cs", "fee"], &argv));
        assert!(!part(&["dpu_cs start"], &argv), "the joined line does not count");
        assert!(!part(&[], &argv));
        assert!(part(&[""], &argv) && part(&[""], &[""]));
        assert!(!part(&[""], &[]), "no command line, no match");

        let words = || argv.iter().map(|word| word.as_bytes());
        assert!(matcher(&["Dpu_CS"], true, true).matches(words()));
        assert!(!matcher(&["dpu_cs"], true, true).matches(words()));
        assert!(matcher(&["dpu_cs", "START"], false, false).matches(words()));
        assert!(!matcher(&["dpu"], false, false).matches(words()));
        assert!(!matcher(&[""], false, false).matches(words()));
    }

    #[test]
    fn case_is_folded_as_python_folds_it() {
        // (upper, Python's lower()): dotted I, sharp S, final sigma, Kelvin sign
        for (upper, lower) in [("\u{130}", "i\u{307}"), ("\u{1e9e}", "\u{df}"), ("\u{39f}\u{3a3}", "\u{3bf}\u{3c2}"), ("\u{212a}", "k")] {
            assert!(part(&[upper], &[lower]) && part(&[lower], &[upper]), "{upper} {lower}");
        }
        assert!(part(&["\u{fffd}"], &[]) == part(&["x"], &[]));
        assert!(matcher(&["caf\u{fffd}"], true, false).matches([&b"CAF\xe9"[..]]), "what the answer shows can be asked for");
    }

    proptest! {
        #[test]
        fn the_fast_way_answers_as_the_plain_one(
            words in proptest::collection::vec("[abAB \u{c9}\u{e9}K\u{212a}]{0,5}", 0..5),
            items in proptest::collection::vec("[abAB \u{c9}\u{e9}k]{0,2}", 0..3),
            contains in any::<bool>(),
            case_sensitive in any::<bool>(),
        ) {
            let content: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
            let matcher = Matcher::new(&items, contains, case_sensitive);
            let fast = matcher.matches_content(&content, &mut Vec::new());
            prop_assert_eq!(fast, matcher.matches(split_cmdline(&content)));

            let fold = |text: &str| if case_sensitive { text.to_owned() } else { text.to_lowercase() };
            let words: Vec<String> = split_cmdline(&content).map(|word| fold(str::from_utf8(word).unwrap())).collect();
            let plain = !items.is_empty() && items.iter().all(|item| {
                words.iter().any(|word| if contains { word.contains(&fold(item)) } else { *word == fold(item) })
            });
            prop_assert_eq!(fast, plain);
        }
    }
}
