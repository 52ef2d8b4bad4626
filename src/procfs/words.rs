//! Words that a process was started with: its command line, and variables of its environment.

use std::io;

use super::file::Proc;

/// The command line of the process that has this PID now, taken apart as psutil does; bytes that are not UTF-8 become U+FFFD.
/// Kernel threads and zombies have none.
///
/// # Errors
/// ENOENT or ESRCH when there is no such process ([`super::is_gone`]).
pub fn read_cmdline(pid: u32) -> io::Result<Vec<String>> {
    Ok(split_cmdline(Proc::open()?.read(pid, "cmdline")?).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Takes the content of `/proc/PID/cmdline` apart, without allocating.
///
/// Every word ends with a NUL. A process that has written its own title over them may have put blanks between the words and no NUL at the
/// end, or one NUL at the very end only; both are then split at the blanks, as psutil does.
pub fn split_cmdline(content: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let (body, separator) = match content {
        [] => (None, 0),
        [body @ .., 0] if body.contains(&0) || !body.contains(&b' ') => (Some(body), 0),
        [body @ .., 0 | b' '] => (Some(body), b' '),
        whole => (Some(whole), b' '),
    };
    body.into_iter().flat_map(move |body| body.split(move |&byte| byte == separator))
}

/// One variable of the environment that the process was started with; `None` where it is not set. A process can overwrite this text, and
/// reading it can block while the process is stuck in a page fault; see [`super::Forest`] for who reads it nevertheless.
///
/// # Errors
/// ENOENT or ESRCH when there is no such process ([`super::is_gone`]); EACCES where we may not trace it (ptrace(2)).
pub fn read_environ_value(pid: u32, key: &str) -> io::Result<Option<String>> {
    Ok(environ_value(Proc::open()?.read(pid, "environ")?, key))
}

/// Several at once, in one reading; `None` where there is no environment at all: it was started without one, has ended, or is just executing its
/// program.
///
/// # Errors
/// As for [`read_environ_value`].
pub(super) fn read_environ_values<const N: usize>(pid: u32, keys: [&str; N]) -> io::Result<Option<[Option<String>; N]>> {
    let mut proc = Proc::open()?;
    let content = proc.read(pid, "environ")?;
    Ok((!content.is_empty()).then(|| keys.map(|key| environ_value(content, key))))
}

/// Finds a variable in the content of `/proc/PID/environ`. The first of several counts, as for getenv(3).
pub(super) fn environ_value(content: &[u8], key: &str) -> Option<String> {
    content
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::testing::TestProcess;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    fn split(content: &[u8]) -> Vec<&[u8]> {
        split_cmdline(content).collect()
    }

    /// psutil's own steps (5.9.4, `Process.cmdline`), to compare with.
    fn as_psutil(content: &[u8]) -> Vec<Vec<u8>> {
        let Some(&last) = content.last() else { return Vec::new() };
        let separator = if last == 0 { 0 } else { b' ' };
        let body = if last == separator { &content[..content.len() - 1] } else { content };
        let mut words: Vec<_> = body.split(|&byte| byte == separator).map(<[u8]>::to_vec).collect();
        if separator == 0 && words.len() == 1 && body.contains(&b' ') {
            words = body.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect();
        }
        words
    }

    #[test]
    fn words_are_split_as_psutil_splits_them() {
        assert_eq!(split(b"sleep\x001000\0"), [b"sleep".as_slice(), b"1000"]);
        assert_eq!(split(b"a b\0c\0\0"), [b"a b".as_slice(), b"c", b""], "an empty last argument stays");
        assert_eq!(split(b"\0"), [b""], "one empty argument");
        assert_eq!(split(b""), Vec::<&[u8]>::new());
        assert_eq!(split(b"nginx: master process"), [b"nginx:".as_slice(), b"master", b"process"]);
        assert_eq!(split(b"chrome --type=gpu\0"), [b"chrome".as_slice(), b"--type=gpu"]);
    }

    proptest::proptest! {
        #[test]
        fn no_content_is_split_otherwise(content in proptest::collection::vec(proptest::sample::select(b"\0 ab".to_vec()), 0..12)) {
            proptest::prop_assert_eq!(split_cmdline(&content).map(<[u8]>::to_vec).collect::<Vec<_>>(), as_psutil(&content));
        }
    }

    #[test]
    fn a_living_process_tells_its_words() {
        let mut child =
            TestProcess::start(Command::new("/bin/sleep").arg0("sleepy head").arg("1000").env("A", "x").env("AB", "caf\u{e9} ="));
        assert_eq!(read_cmdline(child.id()).unwrap(), ["sleepy head", "1000"]);
        assert_eq!(read_environ_value(child.id(), "AB").unwrap().as_deref(), Some("caf\u{e9} ="));
        assert_eq!(read_environ_value(child.id(), "A").unwrap().as_deref(), Some("x"));
        assert_eq!(read_environ_value(child.id(), "B").unwrap(), None);
        child.end();
        assert!(super::super::is_gone(&read_cmdline(child.id()).unwrap_err()));
    }
}
