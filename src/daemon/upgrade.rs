//! Whether the program that is to take over in this process is fit for that: it checks the configuration and the database by itself, before anything is
//! given up.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::protocol::Signal;
use crate::protocol::definition::Definition;
use crate::subprocess::spawn::Spawner;
use crate::subprocess::{Launch, Spec};
use crate::sys::pidfd::{ExitStatus, PidFd};
use crate::sys::readiness;

use super::prepare::NOTHING_IS_WRONG;
use super::successor::Successor;

/// How long the check may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// As much of what it says is passed on.
const MOST_SAID: u64 = 16 << 10;

/// Has the program check the configuration, and answers why it must not take over. `reaped` is woken once its process is reaped, as for any other.
pub(super) async fn check(successor: &Successor, spawner: &Spawner, reaped: &Notify) -> Result<(), String> {
    let program = successor.program.display().to_string();
    let path = successor.program.clone();
    let there = tokio::task::spawn_blocking(move || std::fs::metadata(path)).await;
    if let Err(error) = there.map_err(std::io::Error::other).and_then(|there| there) {
        return Err(format!("{program}, by which this daemon was started, is not there ({error}); install it there"));
    }
    // A name for the program that is no text cannot be asked for; no package installs such.
    let arguments = successor.arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = [program.clone(), "--check".to_owned()].into_iter().chain(arguments).collect();
    let definition = Definition { cmd: Some(words), ..Definition::default() };
    let name = "procmand".parse().map_err(|error| format!("{error}"))?;
    let spec = Spec::resolve(name, definition).map_err(|problems| format!("{program} cannot be run: {problems:?}"))?;
    let cannot = |error: &dyn std::fmt::Display| format!("{program} cannot be run to check the configuration: {error}");
    let (said, writer) = std::io::pipe().map_err(|error| cannot(&error))?;
    let uuid = uuid::Uuid::new_v4().to_string();
    let spawned = spawner.clone().spawn_into(Arc::new(spec), Launch::default(), uuid, OwnedFd::from(writer)).await;
    let spawned = spawned.map_err(|failure| cannot(&failure))?;
    let fd = readiness::watch(spawned.fd).map_err(|error| cannot(&error))?;
    let ended = match tokio::time::timeout(PATIENCE, ended(&fd)).await {
        Ok(ended) => ended,
        Err(_) => {
            drop(fd.get_ref().send_signal(Signal::KILL.number()));
            drop(tokio::time::timeout(PATIENCE, ended(&fd)).await);
            Err(std::io::Error::other(format!("it did not end within {PATIENCE:?}")))
        }
    };
    drop(spawned.guard);
    reaped.notify_one();
    let said = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        drop(said.take(MOST_SAID).read_to_end(&mut text));
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let said = said.await.unwrap_or_default();
    match ended.map(|status| verdict(status, &said)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(format!("{program} {why}")),
        Err(error) => Err(cannot(&error)),
    }
}

/// What speaks against a program whose `--check` has left so and said that.
fn verdict(status: ExitStatus, said: &str) -> Result<(), String> {
    let words = match said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ") {
        words if words.is_empty() => "it said nothing".to_owned(),
        words => format!("it said: {words}"),
    };
    // Many programs leave with 0, whatever they are asked.
    let is_procmand = said.lines().any(|line| line.starts_with("procmand: ") && line.contains(NOTHING_IS_WRONG));
    match status {
        ExitStatus::Exited(0) if is_procmand => Ok(()),
        ExitStatus::Exited(0) => Err(format!("is no procmand, or one that knows no --check; install it there ({words})")),
        status @ (ExitStatus::Exited(_) | ExitStatus::Signalled { .. }) => {
            Err(format!("--check has left with {}, so it does not take over; {words}", status.returncode()))
        }
    }
}

async fn ended(fd: &AsyncFd<PidFd>) -> std::io::Result<ExitStatus> {
    loop {
        let mut guard = fd.readable().await?;
        match fd.get_ref().reap()? {
            Some(status) => return Ok(status),
            None => guard.clear_ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_procmand_that_finds_nothing_wrong_takes_over() {
        let done = ExitStatus::Exited(0);
        assert_eq!(verdict(done, "procmand: warning: x\nprocmand: /etc/p.toml: nothing is wrong, 3 sub-processes\n"), Ok(()));
        for said in ["", "--check --config p.toml", "p.toml: nothing is wrong", "procmand 0.1.0"] {
            assert!(verdict(done, said).unwrap_err().contains("is no procmand"), "{said}");
        }
        let refused = verdict(ExitStatus::Exited(78), "procmand: p.toml:3: no key\n\nprocmand: p.toml:4: twice\n").unwrap_err();
        assert!(refused.ends_with("it said: procmand: p.toml:3: no key; procmand: p.toml:4: twice"), "{refused}");
        assert!(verdict(ExitStatus::Exited(1), "").unwrap_err().ends_with("it said nothing"));
    }
}
