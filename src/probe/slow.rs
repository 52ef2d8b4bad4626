//! Questions to the system that block, for minutes at worst, and cannot be taken back: the addresses of a name, a file on a mount whose server
//! is dead. Each is asked on a thread of its own, and only once at a time: whoever asks the same meanwhile gets the same answer. So one that
//! hangs costs one thread, however often it is asked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Answers under way, by question.
type UnderWay<T> = Arc<Mutex<HashMap<String, watch::Receiver<Option<T>>>>>;

/// Questions whose answer is a `T`.
pub(super) struct Slow<T>(UnderWay<T>);

impl<T> Default for Slow<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Slow<T> {
    /// The answer of `work`, or of one that is under way for the same key. `None` when there is no thread for it.
    pub(super) async fn ask(&self, key: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut answer = {
            let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match under_way.entry(key.to_owned()) {
                Entry::Occupied(entry) => entry.get().clone(),
                Entry::Vacant(entry) => {
                    let (answered, answer) = watch::channel(None);
                    let (all, key) = (self.0.clone(), key.to_owned());
                    let run = move || {
                        let answer = work();
                        all.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                        answered.send_replace(Some(answer));
                    };
                    std::thread::Builder::new().name("asking".into()).stack_size(256 << 10).spawn(run).ok()?;
                    entry.insert(answer).clone()
                }
            }
        };
        answer.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn one_that_hangs_costs_one_thread() {
        let slow = Slow::default();
        let (release, released) = mpsc::channel::<()>();
        let asked = Arc::new(AtomicUsize::new(0));
        let released = Arc::new(Mutex::new(released));
        let work = || {
            let (asked, released) = (asked.clone(), released.clone());
            move || {
                let _ = released.lock().unwrap().recv();
                asked.fetch_add(1, Ordering::Relaxed)
            }
        };
        for _ in 0..5 {
            assert!(tokio::time::timeout(Duration::from_millis(5), slow.ask("a", work())).await.is_err());
        }
        assert_eq!(slow.ask("b", || 7).await, Some(7), "another question does not wait");
        release.send(()).unwrap();
        // Either the answer that was under way, or a new one after it.
        drop(release);
        assert!(slow.ask("a", work()).await.is_some());
        assert!(asked.load(Ordering::Relaxed) <= 2);
        assert!(slow.0.lock().unwrap().is_empty());
    }
}
