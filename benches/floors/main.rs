//! Speed and memory against the floors, in one run: `make bench`, or `cargo bench --bench floors -- PART …`.
//!
//! Absolute times move by half from one machine, and from one minute, to the next; a ratio to something that cannot be done faster, measured in
//! turns with it, says more. Nothing here passes or fails: it prints a table, and people judge.
//!
//! On a machine that is busy with other things every change from one thread to the next waits for its turn, and who changes oftener looks worse than
//! it is. Root measures as on a quiet one there by going before all others: `chrt --rr 1 cargo bench --bench floors` (build it before).
//!
//! - [`daemon`]: the real `procmand` of the release build, on a configuration of its own, and what it is asked;
//! - [`peers`]: other supervisors, on scratch directories of their own;
//! - [`table`]: rows and their print; [`sample`]: times, and what they come to;
//! - [`status`], [`starts`], [`restarts`], [`durability`], [`host`], [`memory`], [`scale`], [`logs`]: the parts, what is measured.

#![allow(clippy::print_stdout)] // printing is what it is for

mod daemon;
mod durability;
mod host;
mod logs;
mod memory;
mod peers;
mod restarts;
mod sample;
mod scale;
mod starts;
mod status;
mod table;

use std::error::Error;
use std::process::ExitCode;

use table::Row;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A part of the measuring, by its name on the command line.
type Part = (&'static str, fn() -> Outcome<Vec<Row>>);

const PARTS: [Part; 8] = [
    ("status", status::measure),
    ("starts", starts::measure),
    ("restarts", restarts::measure),
    ("durability", durability::measure),
    ("host", host::measure),
    ("memory", memory::measure),
    ("scale", scale::measure),
    ("logs", logs::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == status::ECHO => status::echo(rest),
        Some((first, rest)) if first == restarts::KEEPER => restarts::keep_up(rest),
        Some((first, rest)) if first == logs::WRITER => logs::write(rest),
        _ => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floors: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> Outcome<()> {
    if let Some(unknown) = wanted.iter().find(|name| !PARTS.iter().any(|(part, _)| part == name)) {
        let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no part {unknown:?}; there are {}", parts.join(", ")).into());
    }
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|want| want == name) {
            eprintln!("floors: measuring {name} …");
            match measure() {
                Ok(measured) => rows.extend(measured),
                Err(error) => failures.push(format!("{name} could not be measured: {error}")),
            }
        }
    }
    println!("{}", table::print(&rows));
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
}
