//! One pass over the processes of the host.

use std::io;
use std::sync::Arc;
use std::thread;

use super::kept::{Kept, Line};
use super::matcher::Matcher;
use crate::procfs::file::{Proc, pids};

/// Processes for which a thread more is worth its making: the kernel takes about 2 µs for each, a thread costs some tens of them, and more on a busy host.
const WORTH_A_THREAD: usize = 300;
/// Threads of one walk at most: whoever asks shall not have the whole host to itself.
const MOST_THREADS: usize = 4;
/// The stack of a thread that walks: it keeps nothing large there.
const THREAD_STACK: usize = 256 << 10;

/// What `take` makes of each process whose command line matches, ascending by PID. It gets the line, a reader for more about the process, and what the line
/// holds. Nothing is allocated for the others. Where there are many processes, several threads read at the same time, each its part of the PIDs.
pub(super) fn matches<T: Send>(
    kept: &Kept,
    matcher: &Matcher,
    take: impl Fn(&Line, &mut Proc, &[u8]) -> io::Result<Option<T>> + Sync,
) -> io::Result<Vec<T>> {
    if matcher.matches_nothing() {
        return Ok(Vec::new());
    }
    let pids = pids()?;
    let lines = kept.lines();
    let threads = (pids.len() / WORTH_A_THREAD).clamp(1, MOST_THREADS).min(thread::available_parallelism().map_or(1, usize::from));
    let mut parts = pids.chunks(pids.len().div_ceil(threads).max(1));
    let own = parts.next().unwrap_or_default();
    let look = |part: &[u32]| walk(part, kept, &lines, matcher, &take);
    let seen = thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|part| {
                // Where no thread is to be had, it is looked at here.
                let look = &look;
                (part, thread::Builder::new().stack_size(THREAD_STACK).spawn_scoped(scope, move || look(part)))
            })
            .collect();
        let mut seen = look(own)?;
        for (part, other) in others {
            let more = match other {
                Ok(other) => other.join().map_err(|_| io::Error::other("a thread that looked at processes failed"))??,
                Err(_) => look(part)?,
            };
            seen.found.extend(more.found);
            seen.lines.extend(more.lines);
        }
        io::Result::Ok(seen)
    })?;
    kept.replace(seen.lines);
    Ok(seen.found)
}

/// What one thread saw.
struct Seen<T> {
    found: Vec<T>,
    /// To be kept for the next question.
    lines: Vec<Arc<Line>>,
}

fn walk<T>(
    pids: &[u32],
    kept: &Kept,
    lines: &[Arc<Line>],
    matcher: &Matcher,
    take: impl Fn(&Line, &mut Proc, &[u8]) -> io::Result<Option<T>>,
) -> io::Result<Seen<T>> {
    let mut proc = Proc::open()?;
    let (mut content, mut folded) = (Vec::new(), Vec::new());
    let mut seen = Seen { found: Vec::new(), lines: Vec::with_capacity(pids.len()) };
    let mut known = lines[lines.partition_point(|line| pids.first().is_some_and(|first| line.pid < *first))..].iter().peekable();
    for pid in pids {
        while known.next_if(|line| line.pid < *pid).is_some() {}
        let mut line = known.next_if(|line| line.pid == *pid).cloned();
        let mut length = line.as_ref().map_or(Ok(None), |line| line.read(&mut content))?;
        if length.is_none() {
            // It was not open, or its process is gone, and another may have the PID now.
            line = kept.open(*pid, &mut proc)?;
            length = line.as_ref().map_or(Ok(None), |line| line.read(&mut content))?;
        }
        let (Some(line), Some(length)) = (line, length) else { continue };
        let content = &content[..length];
        if matcher.matches_content(content, &mut folded) {
            seen.found.extend(take(&line, &mut proc, content)?);
        }
        if line.is_kept() {
            seen.lines.push(line);
        }
    }
    Ok(seen)
}
