//! Named moments at which a test has the daemon killed, as it may be killed at any moment by anybody. Only where debug assertions are on: a release
//! build has none of them.

/// Here the process is killed, if `PROCMAN_CRASH_AT` says so: `NAME`, or `NAME:N` for the N-th time that it comes here, counted from 1.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Wanted {
        name: String,
        left: AtomicU64,
    }
    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PROCMAN_CRASH_AT").ok()?;
        let (name, times) = text.split_once(':').map_or((&*text, 1), |(name, times)| (name, times.parse().unwrap_or(1)));
        Some(Wanted { name: name.to_owned(), left: AtomicU64::new(times) })
    });
    if let Some(wanted) = wanted
        && wanted.name == name
        && wanted.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // SAFETY: sends a signal to whoever calls, and touches no memory.
        unsafe { libc::raise(libc::SIGKILL) };
        loop {
            std::thread::park(); // it is on its way
        }
    }
}

/// Nothing happens here.
#[cfg(not(debug_assertions))]
pub fn point(_: &str) {}
