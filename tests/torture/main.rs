//! The torture: a daemon is killed again and again, at random moments and at every named one, while a hundred sub-processes start, end and are
//! restarted. Each of those writes down the truth about itself; what the daemon says afterwards is held against that.
//!
//! This program takes the part of the service manager (`reaper`, `keeper`, `manager`), of the sub-processes (`child`, `truth`), and of the operator
//! (`operator`); `scene` says what there is to supervise, `ordeal` kills, `books` and `judge` hold the daemon's word against the truth, `runner` speaks as
//! Rust's own test programs do, and `table` shows what came out.
//!
//! `--kills N` is how many kills there are at random moments (with none said, a short form); `--seed N` repeats the choices of an earlier run, though
//! not its moments.

#![allow(clippy::wildcard_enum_match_arm)] // what is not expected is wrong, whatever it is

// `cfg(test)` is always so here; it tells clippy that these are tests, too.
#[cfg(test)]
mod books;
#[cfg(test)]
mod child;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod keeper;
#[cfg(test)]
mod launcher;
#[cfg(test)]
mod manager;
#[cfg(test)]
mod marked;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod ordeal;
#[cfg(test)]
mod random;
#[cfg(test)]
mod reaper;
#[cfg(test)]
mod runner;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod table;
#[cfg(test)]
mod truth;

use std::process::ExitCode;

#[cfg(test)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, rest)) if role == child::ROLE => child::live(rest),
        Some((role, rest)) if role == launcher::ROLE => launcher::launch(rest),
        Some(_) | None => runner::run(&arguments),
    }
}

#[cfg(not(test))]
fn main() -> ExitCode {
    ExitCode::FAILURE // it is only ever built as a test
}
