//! Bytes of a stream to the lines of an answer. Pure.

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Where in the stream to begin; `None` asks for the last lines.
    pub offset: Option<u64>,
    /// The most lines.
    pub lines: usize,
    /// The most bytes of the stream that the lines may take.
    pub max_bytes: usize,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The lines, without their line feeds.
    pub lines: Vec<String>,
    /// Where in the stream the next one begins.
    pub offset: u64,
    /// Something that was asked for is not there: it is not kept any more, or does not fit.
    pub truncated: bool,
}

/// The lines of `bytes`, which begin at `start`. Only whole lines, but for one that alone is longer than what may be read: `bytes` is as long as that
/// then, and a line of such a length comes in pieces.
pub fn forward(bytes: &[u8], start: u64, query: &Query) -> Lines {
    let mut lines = Vec::new();
    let mut used = 0;
    while lines.len() < query.lines
        && let Some(length) = bytes[used..].iter().position(|byte| *byte == b'\n')
    {
        lines.push(text(&bytes[used..used + length]));
        used += length + 1;
    }
    if lines.is_empty() && query.lines > 0 && !bytes.is_empty() && bytes.len() >= query.max_bytes {
        used = whole_characters(bytes);
        lines.push(text(&bytes[..used]));
    }
    Lines { lines, offset: start + used as u64, truncated: false }
}

/// The last lines of `bytes`, which begin at `start` and end where the stream does. `begins` says that a line begins at `start`.
pub fn backward(bytes: &[u8], start: u64, begins: bool, query: &Query) -> Lines {
    let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') else {
        if bytes.len() >= query.max_bytes && !bytes.is_empty() {
            // A line that is longer than what may be read: its end is what can be shown of it.
            let lines = if query.lines == 0 { Vec::new() } else { vec![text(bytes)] };
            return Lines { lines, offset: start + bytes.len() as u64, truncated: !begins };
        }
        return Lines { lines: Vec::new(), offset: start, truncated: false };
    };
    let whole = &bytes[..last];
    let first = if begins { 0 } else { whole.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1) };
    let mut lines: Vec<String> = match whole.get(first..) {
        Some(whole) => whole.rsplit(|byte| *byte == b'\n').take(query.lines).map(text).collect(),
        None if query.lines > 0 => vec![text(whole)],
        None => Vec::new(),
    };
    lines.reverse();
    let truncated = !begins && lines.len() < query.lines;
    Lines { lines, offset: start + last as u64 + 1, truncated }
}

/// What is no UTF-8 is shown as U+FFFD.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How many of the bytes there are without a character at the end that is cut through; all of them where that would leave nothing.
fn whole_characters(bytes: &[u8]) -> usize {
    let begins = |byte: u8| byte & 0xc0 != 0x80;
    let tail = bytes.iter().rev().take(4).position(|byte| begins(*byte));
    let Some(at) = tail.map(|back| bytes.len() - 1 - back) else { return bytes.len() };
    match std::str::from_utf8(&bytes[at..]) {
        Err(error) if error.error_len().is_none() && at > 0 => at,
        Ok(_) | Err(_) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn query(lines: usize, max_bytes: usize) -> Query {
        Query { offset: None, lines, max_bytes }
    }

    fn shown(lines: &Lines) -> (Vec<&str>, u64, bool) {
        (lines.lines.iter().map(String::as_str).collect(), lines.offset, lines.truncated)
    }

    #[test]
    fn whole_lines_only() {
        assert_eq!(shown(&forward(b"a\n\nb\nc", 10, &query(9, 99))), (vec!["a", "", "b"], 15, false));
        assert_eq!(shown(&forward(b"a\nb\n", 10, &query(1, 99))), (vec!["a"], 12, false));
        assert_eq!(shown(&forward(b"abc", 10, &query(9, 99))), (vec![], 10, false));
        assert_eq!(shown(&backward(b"a\nb\nc\nd", 10, true, &query(2, 99))), (vec!["b", "c"], 16, false));
        assert_eq!(shown(&backward(b"a\nb\nc\n", 10, true, &query(9, 6))), (vec!["a", "b", "c"], 16, false));
        assert_eq!(shown(&backward(b"a\nb\nc\n", 10, false, &query(9, 6))), (vec!["b", "c"], 16, true));
        assert_eq!(shown(&backward(b"a\nb\n", 10, true, &query(0, 9))), (vec![], 14, false));
        assert_eq!(shown(&backward(b"", 10, true, &query(9, 9))), (vec![], 10, false));
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_pieces() {
        assert_eq!(shown(&forward(b"abcdef", 0, &query(9, 6))), (vec!["abcdef"], 6, false));
        assert_eq!(shown(&forward("abcdeé".as_bytes().split_at(6).0, 0, &query(9, 6))), (vec!["abcde"], 5, false));
        assert_eq!(shown(&backward(b"abcdef", 0, false, &query(9, 6))), (vec!["abcdef"], 6, true));
        assert_eq!(shown(&backward(b"abcde\n", 0, false, &query(9, 6))), (vec!["abcde"], 6, true));
    }

    #[test]
    fn what_is_no_text_is_shown_all_the_same() {
        assert_eq!(forward(b"\xff\xfe\n", 0, &query(9, 99)).lines, ["\u{fffd}\u{fffd}"]);
    }

    proptest! {
        /// Whoever goes on where the answer ended gets every line once, whatever the limits are.
        #[test]
        fn following_neither_loses_nor_doubles(text in "([a-zé]{0,9}\n){0,20}[a-z]{0,5}", lines in 1_usize..5, max_bytes in 1_usize..40) {
            let bytes = text.as_bytes();
            let (mut at, mut got) = (0_usize, String::new());
            loop {
                let window = &bytes[at..bytes.len().min(at + max_bytes)];
                let answer = forward(window, at as u64, &query(lines, max_bytes));
                if answer.offset == at as u64 {
                    break;
                }
                let end = usize::try_from(answer.offset).unwrap();
                prop_assert!(answer.lines.len() <= lines);
                // A piece has no line feed behind it in the stream.
                let feed = bytes[end - 1] == b'\n' && !(answer.lines.len() == 1 && answer.lines[0].ends_with('\n'));
                got += &answer.lines.join("\n");
                got += if feed { "\n" } else { "" };
                at = end;
            }
            let pieces = String::from_utf8_lossy(&bytes[..at]).into_owned();
            if max_bytes >= 20 {
                prop_assert_eq!(got, pieces);
            }
            prop_assert!(bytes.len() - at < max_bytes, "whole lines are left");
        }

        #[test]
        fn the_last_lines_are_those_at_the_end(text in "([a-z]{0,9}\n){0,20}[a-z]{0,5}", lines in 0_usize..30) {
            let answer = backward(text.as_bytes(), 0, true, &query(lines, 1000));
            let whole: Vec<&str> = text.split('\n').collect();
            let whole = &whole[..whole.len() - 1];
            prop_assert_eq!(&answer.lines[..], &whole[whole.len().saturating_sub(lines)..]);
        }
    }
}
