//! One pass over the processes of the host.
//!
//! On one thread: with the descriptors open, a second one was seen to gain nothing on a quiet host of two cores, and to take twice as long on a busy one.

use std::io;

use super::kept::{Kept, Line};
use super::matcher::Matcher;
use crate::procfs::file::{Proc, pids};

/// What `take` makes of each process whose command line matches, ascending by PID. It gets the line, a reader for more about the process, and what the line
/// holds. Nothing is allocated for the others.
pub(super) fn matches<T>(
    kept: &Kept,
    matcher: &Matcher,
    take: impl Fn(&Line, &mut Proc, &[u8]) -> io::Result<Option<T>>,
) -> io::Result<Vec<T>> {
    if matcher.matches_nothing() {
        return Ok(Vec::new());
    }
    let pids = pids()?;
    let open = kept.lines();
    let mut open = open.iter().peekable();
    let mut proc = Proc::open()?;
    let (mut content, mut folded) = (Vec::new(), Vec::new());
    let (mut found, mut lines) = (Vec::new(), Vec::with_capacity(pids.len()));
    for pid in pids {
        while open.next_if(|line| line.pid < pid).is_some() {}
        let mut line = open.next_if(|line| line.pid == pid).cloned();
        let mut length = line.as_ref().map_or(Ok(None), |line| line.read(&mut content))?;
        if length.is_none() {
            // It was not open, or its process is gone, and another may have the PID now.
            line = kept.open(pid, &mut proc)?;
            length = line.as_ref().map_or(Ok(None), |line| line.read(&mut content))?;
        }
        let (Some(line), Some(length)) = (line, length) else { continue };
        let content = &content[..length];
        if matcher.matches_content(content, &mut folded) {
            found.extend(take(&line, &mut proc, content)?);
        }
        if line.is_kept() {
            lines.push(line);
        }
    }
    kept.replace(lines);
    Ok(found)
}
