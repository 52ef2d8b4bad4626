//! Texts that a stranger may have chosen, on their way to a terminal.
//!
//! Any user of the host names their processes as they like: with escape sequences that move the cursor, retitle the window or hide a line, or with
//! marks that make text run backwards. Nothing of the host is shown before it went through [`escape`].

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

/// Whether a terminal may act on this character instead of showing it: controls (C0, DEL, C1), line separators, and the invisible marks that
/// reorder or hide text.
const fn acts(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The text with every character that acts written as its escape (`\n`, `\x1b`, `\u{202e}`). For people: a backslash stays as it is.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if acts(c) && u32::from(c) < 0x100 => {
                let _ = write!(safe, "\\x{:02x}", u32::from(c));
            }
            c if acts(c) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// The same for a finished JSON text, as JSON's own escapes: such characters stand only within its strings, and line feeds between its tokens.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let acts = |c: char| c != '\n' && acts(c);
    if !json.contains(acts) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// A command line as one text, from which the words can still be told apart: a word that is empty or holds a space or a quote is quoted as for
/// a shell.
pub fn command_line<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        if word.is_empty() || word.contains([' ', '\'', '"', '\t', '\n']) {
            let _ = write!(line, "'{}'", word.replace('\'', "'\\''"));
        } else {
            line.push_str(word);
        }
    }
    line
}

/// The columns of a terminal that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text, cut to so many columns with an ellipsis where it is wider.
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut room = columns.saturating_sub(1);
    let mut short: String = text
        .chars()
        .take_while(|c| {
            let fits = c.width().unwrap_or(0) <= room;
            room = room.saturating_sub(c.width().unwrap_or(0));
            fits
        })
        .collect();
    if columns > 0 {
        short.push('…');
    }
    Cow::Owned(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_acts_is_escaped() {
        assert_eq!(escape("plain é 漢 \\n"), "plain é 漢 \\n");
        assert_eq!(escape("a\x1b[31mb\u{9b}2J\nc\td\x7f\0"), "a\\x1b[31mb\\x9b2J\\nc\\td\\x7f\\x00");
        assert_eq!(escape("txt\u{202e}exe\u{2028}"), "txt\\u{202e}exe\\u{2028}");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"n": "\u{9b}\x7f\u{202e}\u{e0041}\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = escape_json(&text);
        assert_eq!(safe, "{\n  \"n\": \"\\u009b\\u007f\\u202e\\udb40\\udc41\\n\"\n}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn words_can_be_told_apart() {
        let words = ["sh", "-c", "echo 'a b'", "", "x=$y"].map(str::to_owned);
        assert_eq!(command_line(&words), r"sh -c 'echo '\''a b'\''' '' x=$y");
    }

    #[test]
    fn a_wide_text_is_cut() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello!", 5), "hell…");
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_that_acts_passes(text in any::<String>(), columns in 0usize..20) {
            let safe = escape(&text);
            prop_assert!(!safe.contains(acts));
            prop_assert!(width(&cut(&safe, columns)) <= columns);
            let json = serde_json::to_string(&text).unwrap();
            let safe = escape_json(&json);
            prop_assert!(!safe.contains(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
