//! Files of environment variables, written as for systemd's `EnvironmentFile=` (systemd.exec(5)).
//!
//! Lines `KEY=value`; blank ones and those that begin with `#` or `;` say nothing. A value may be quoted, in parts too: within single quotes everything
//! is itself, also a line end; within double quotes a backslash makes the next `"`, `\`, `` ` `` or `$` itself. Outside of quotes it makes any character
//! itself, and a line end behind it is none. No variable is ever put in the place of `$NAME`. What systemd would pass over in silence (a line without
//! `=`, a name that is none) is an error here.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use crate::protocol::definition::EnvFile;

use super::spawn::Operation;

/// More than any exec(2) takes (`ARG_MAX`, 2 MiB by default, a quarter of the stack).
const MOST: u64 = 1 << 20;

/// A variable: its name, and what it holds.
type Variable = (String, Vec<u8>);

/// Why a text is no such file. Never says what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// What.
    pub what: &'static str,
}

/// Reads the file; empty where it is missing and may be.
///
/// # Errors
/// It cannot be read, or is wrong (`EINVAL`): what, and the errno.
pub fn read(file: &EnvFile) -> Result<Vec<Variable>, (Operation, i32)> {
    let mut text = Vec::new();
    // Not blocking: a named pipe that nobody writes to is empty, not a hang.
    let mut open = || -> io::Result<u64> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&file.path)?;
        let length = file.take(MOST + 1).read_to_end(&mut text)?;
        Ok(length as u64)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.optional => return Ok(Vec::new()),
        Err(error) => return Err((Operation::ReadEnvFile(file.path.clone()), error.raw_os_error().unwrap_or(libc::EIO))),
        Ok(length) if length > MOST => return Err((Operation::ReadEnvFile(file.path.clone()), libc::EFBIG)),
        Ok(_) => {}
    }
    parse(&text).map_err(|wrong| (Operation::ParseEnvFile(file.path.clone(), wrong), libc::EINVAL))
}

/// Where in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Comment,
    Name,
    /// Between parts of a value.
    Between,
    Bare,
    Single,
    Double,
}

/// The variables of a text, in its order.
fn parse(text: &[u8]) -> Result<Vec<Variable>, Wrong> {
    let mut variables = Vec::new();
    let (mut name, mut value) = (Vec::new(), Vec::new());
    // How much of the value stays, whatever blanks follow.
    let mut solid = 0;
    let (mut line, mut begun) = (1, 1);
    let mut at = At::LineStart;
    let mut bytes = text.iter().copied().peekable();
    loop {
        // A text ends as its last line does.
        let byte = bytes.next();
        let ends = matches!(byte, None | Some(b'\n'));
        let wrong = |what| Err(Wrong { line: begun, what });
        match (at, byte) {
            (_, Some(0)) => return Err(Wrong { line, what: "it holds a NUL byte" }),
            (At::LineStart, Some(b'#' | b';')) => at = At::Comment,
            (At::LineStart, Some(other)) if !other.is_ascii_whitespace() => {
                (at, begun) = (At::Name, line);
                name.push(other);
            }
            (At::Comment, _) if ends => at = At::LineStart,
            (At::LineStart | At::Comment, _) => {}
            (At::Name, _) if ends => return wrong("there is no `=` in it"),
            (At::Name, Some(b'=')) => at = At::Between,
            (At::Name, Some(other)) => name.push(other),
            (At::Between | At::Bare, _) if ends => {
                value.truncate(solid);
                solid = 0;
                let Some(name) = variable_name(&mut name) else { return wrong("in front of `=` is no name of a variable") };
                variables.push((name, std::mem::take(&mut value)));
                at = At::LineStart;
            }
            (At::Between, Some(b'\'')) => at = At::Single,
            (At::Between, Some(b'"')) => at = At::Double,
            (At::Between | At::Bare, Some(b'\\')) => {
                at = At::Bare;
                match bytes.next() {
                    None => {}
                    Some(b'\n') => line += 1,
                    Some(escaped) => {
                        value.push(escaped);
                        solid = value.len();
                    }
                }
            }
            (At::Between, Some(other)) if other.is_ascii_whitespace() => {}
            (At::Between | At::Bare, Some(other)) => {
                at = At::Bare;
                value.push(other);
                if !other.is_ascii_whitespace() {
                    solid = value.len();
                }
            }
            (At::Single | At::Double, None) => return wrong("a quote is not closed"),
            (At::Single, Some(b'\'')) | (At::Double, Some(b'"')) => {
                at = At::Between;
                solid = value.len();
            }
            (At::Double, Some(b'\\')) => match bytes.peek().copied() {
                Some(b'\n') => {
                    bytes.next();
                    line += 1;
                }
                Some(escaped @ (b'"' | b'\\' | b'`' | b'$')) => {
                    bytes.next();
                    value.push(escaped);
                }
                Some(_) | None => value.push(b'\\'),
            },
            (At::Single | At::Double, Some(other)) => value.push(other),
            (At::Name | At::Between | At::Bare, None) => {} // `ends`, above
        }
        match byte {
            None => return Ok(variables),
            Some(b'\n') => line += 1,
            Some(_) => {}
        }
    }
}

/// The name of a variable as every shell takes it, with blanks behind it.
fn variable_name(bytes: &mut Vec<u8>) -> Option<String> {
    let name = String::from_utf8(std::mem::take(bytes)).ok()?.trim_ascii_end().to_owned();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    (is_name && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn each_way_to_write_a_value() {
        for (text, expected) in [
            ("A=b", "b"),
            ("  A = b c  \t\r\n", "b c"),
            ("A=", ""),
            ("A=\n", ""),
            ("A=b#c;d", "b#c;d"),
            ("A='b \"c\" \\n'", "b \"c\" \\n"),
            ("A='b\nc'", "b\nc"),
            ("A=\"b 'c' \\\" \\\\ \\$ \\` \\n\"", "b 'c' \" \\ $ ` \\n"),
            ("A=\"b\\\nc\"", "bc"),
            ("A=\"b \"  ", "b "),
            ("A='b' \"c\"d", "bcd"),
            ("A=b\\\nc", "bc"),
            ("A=b\\ \n", "b "),
            ("A=\\\"b", "\"b"),
            ("A=b'c'", "b'c'"),
            ("A=$HOME ${B}", "$HOME ${B}"),
            ("A=\u{e4}", "\u{e4}"),
            ("A=b\\", "b"),
        ] {
            assert_eq!(parsed(text), [("A".to_owned(), expected.to_owned())], "{text:?}");
        }
    }

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        assert_eq!(parsed(""), []);
        let both = [("A".to_owned(), "1".to_owned()), ("B_2".to_owned(), "2".to_owned())];
        assert_eq!(parsed("# A=0 'not closed\n\n   ; B=0 \\\nA=1\n\t\r\nB_2=2\n#"), both);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_a_value() {
        for (text, line) in [
            ("A=1\nsecret\n", 2),
            ("\n\nexport A=secret", 3),
            ("=secret", 1),
            ("1A=secret", 1),
            ("A='secret\n\n", 1),
            ("A='x\n'\nB=\"secret", 3),
            ("A=x\\\n\nB=\0secret", 3),
            ("\u{e4}=secret", 1),
        ] {
            let wrong = parse(text.as_bytes()).unwrap_err();
            assert_eq!(wrong.line, line, "{text:?}: {wrong:?}");
            assert!(!wrong.what.contains("secret"));
        }
    }

    #[test]
    fn a_file_may_be_missing_where_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, optional| EnvFile { path: dir.path().join(name), optional };
        assert_eq!(read(&file("none", true)), Ok(vec![]));
        assert_eq!(read(&file("none", false)), Err((Operation::ReadEnvFile(dir.path().join("none")), libc::ENOENT)));
        assert_eq!(read(&file("", true)).unwrap_err().1, libc::EISDIR);
        std::fs::write(dir.path().join("large"), vec![b'#'; MOST as usize + 1]).unwrap();
        assert_eq!(read(&file("large", true)).unwrap_err().1, libc::EFBIG);
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&file("pipe", false)), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_comes_back(value in "[^\0]{0,40}") {
            let escaped: String = value.chars().flat_map(|c| "\"\\`$".contains(c).then_some('\\').into_iter().chain([c])).collect();
            prop_assert_eq!(parsed(&format!("A=\"{escaped}\"\nB=c")), [("A".to_owned(), value), ("B".to_owned(), "c".to_owned())]);
        }

        #[test]
        fn no_text_is_too_much(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }
    }
}
