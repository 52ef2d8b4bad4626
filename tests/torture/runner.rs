//! Speaks as Rust's own test programs do, so that whoever runs and counts those runs and counts these.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::ordeal::{self, Outcome};
use super::reaper::Reaper;
use super::scene::Means;
use super::table::{Row, table};

/// Kills at random moments where nobody says how many, over all means: a minute on two busy processors.
const SHORT: u64 = 40;

/// Every point, and how often a daemon comes there before it is killed; in the short form, the first of them.
const POINTS: [(&str, [u64; 4]); 11] = [
    ("before-intent", [2, 1, 5, 20]),
    ("after-intent", [1, 2, 7, 25]),
    ("after-spawn", [3, 1, 2, 20]),
    ("before-record", [2, 1, 6, 20]),
    ("after-record", [1, 2, 5, 30]),
    ("before-reap", [2, 1, 4, 15]),
    ("after-reap", [3, 1, 2, 15]),
    ("before-commit", [2, 1, 10, 60]),
    ("after-commit", [3, 1, 10, 60]),
    ("recovery-searched", [1, 1, 1, 1]),
    ("recovery-adopted", [20, 1, 2, 40]),
];

/// What the command line says; what is Rust's own is understood or passed over.
#[derive(Debug, Default)]
struct Options {
    kills: Option<u64>,
    seed: Option<u64>,
    list: bool,
    exact: bool,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Options {
    fn read(arguments: &[String]) -> Self {
        let mut options = Self::default();
        let mut rest = arguments.iter().flat_map(|argument| match argument.split_once('=') {
            Some((key, value)) if key.starts_with("--") => vec![key.to_owned(), value.to_owned()],
            Some(_) | None => vec![argument.clone()],
        });
        while let Some(argument) = rest.next() {
            let mut number = || rest.next().and_then(|value| value.parse().ok()).expect("a number");
            match argument.as_str() {
                "--kills" => options.kills = Some(number()),
                "--seed" => options.seed = Some(number()),
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--skip" => options.skip.extend(rest.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(rest.next()),
                flag if flag.starts_with('-') => {}
                _ => options.filters.push(argument),
            }
        }
        options
    }

    fn wants(&self, name: &str) -> bool {
        let is = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(is)) && !self.skip.iter().any(is)
    }
}

type Part = Box<dyn Fn(&Reaper, u64) -> Outcome>;

fn parts(kills: Option<u64>) -> Vec<(String, Part)> {
    let each = kills.unwrap_or(SHORT).div_ceil(Means::ALL.len() as u64);
    let mut parts: Vec<(String, Part)> = Vec::new();
    for means in Means::ALL {
        let part = move |reaper: &Reaper, seed| ordeal::random_kills(means, reaper, seed, each);
        parts.push((format!("kills_at_random_{}", means.words()), Box::new(part)));
        let times = if kills.is_some() { 4 } else { 1 };
        let points: Vec<(&str, u64)> = (0..times).flat_map(|time| POINTS.map(|(point, times)| (point, times[time]))).collect();
        // The short form has the richest means and the poorest.
        if kills.is_some() || means.store == means.groups {
            let part = move |reaper: &Reaper, seed| ordeal::kills_at(means, reaper, seed, &points);
            parts.push((format!("kills_at_points_{}", means.words()), Box::new(part)));
        }
    }
    parts
}

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let options = Options::read(arguments);
    let parts = parts(options.kills);
    let wanted: Vec<&(String, Part)> = parts.iter().filter(|(name, _)| options.wants(name)).collect();
    if options.list {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        println!("\n{} tests, 0 benchmarks", wanted.len());
        return ExitCode::SUCCESS;
    }
    let seed = options.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    println!("\nrunning {} tests, --seed {seed}", wanted.len());
    let (began, reaper) = (Instant::now(), Reaper::begin());
    let (mut rows, mut failed): (Vec<Row>, Vec<&str>) = Default::default();
    for (name, part) in &wanted {
        let since = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| part(&reaper, seed)));
        let is_well = outcome.as_ref().is_ok_and(|outcome| outcome.problems.is_empty());
        println!("test {name} ... {} <{:.1}s>", if is_well { "ok" } else { "FAILED" }, since.elapsed().as_secs_f64());
        if !is_well {
            failed.push(name);
        }
        // What panicked has said why.
        if let Ok(outcome) = outcome {
            outcome.problems.iter().chain(&outcome.remarks).for_each(|line| println!("    {line}"));
            rows.push(outcome.row);
        }
    }
    if !rows.is_empty() {
        println!("\n{}", table(&rows));
    }
    failed.iter().for_each(|name| println!("failed: {name}"));
    println!(
        "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        wanted.len() - failed.len(),
        failed.len(),
        parts.len() - wanted.len(),
        began.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
