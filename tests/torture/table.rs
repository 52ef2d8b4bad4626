//! What came out, for people.

use std::time::Duration;

use super::scene::{Means, Part, Scene};

/// One scene.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    means: Means,
    pub(crate) names: Vec<(String, Part)>,
    /// Kills, and how many of them came before the daemon had answered anybody.
    pub(crate) kills: u64,
    pub(crate) early: u64,
    /// Commands of the operator that were done.
    pub(crate) commands: u64,
    pub(crate) runs: usize,
    pub(crate) lost: u64,
    pub(crate) doubled: usize,
    /// Statuses of runs that have ended.
    pub(crate) known: u64,
    pub(crate) status_lost: u64,
    pub(crate) wrong: u64,
    /// From each execution to the first answer.
    pub(crate) recoveries: Vec<Duration>,
}

const HEAD: [&str; 12] =
    ["descriptors", "groups", "kills", "early", "sub-processes", "runs", "commands", "lost", "doubled", "known", "lost", "wrong"];

impl Row {
    pub(crate) fn new(scene: &Scene) -> Self {
        Self {
            means: scene.means,
            names: scene.names.clone(),
            kills: 0,
            early: 0,
            commands: 0,
            runs: 0,
            lost: 0,
            doubled: 0,
            known: 0,
            status_lost: 0,
            wrong: 0,
            recoveries: Vec::new(),
        }
    }

    /// Adds another scene of the same means.
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.early += other.early;
        self.commands += other.commands;
        self.runs += other.runs;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.known += other.known;
        self.status_lost += other.status_lost;
        self.wrong += other.wrong;
        self.recoveries.extend(&other.recoveries);
    }

    fn cells(&self, means: [&str; 2]) -> Vec<String> {
        let mut sorted = self.recoveries.clone();
        sorted.sort();
        let time = |at: usize| sorted.get(at).map_or_else(|| "-".to_owned(), |time| format!("{:.0} ms", time.as_secs_f64() * 1e3));
        let numbers = [self.kills, self.early, self.names.len() as u64, self.runs as u64, self.commands, self.lost];
        let numbers = numbers.into_iter().chain([self.doubled as u64, self.known, self.status_lost, self.wrong]);
        let mut cells: Vec<String> = means.into_iter().map(str::to_owned).chain(numbers.map(|number| number.to_string())).collect();
        cells.extend([time(sorted.len() / 2), time(sorted.len().saturating_sub(1))]);
        cells
    }
}

/// All scenes, those of the same means together.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines: Vec<Vec<String>> = vec![HEAD.into_iter().chain(["p50", "max"]).map(str::to_owned).collect()];
    let mut all: Option<Row> = None;
    for means in Means::ALL {
        let mut of_means = rows.iter().filter(|row| row.means == means).cloned();
        let Some(mut sum) = of_means.next() else { continue };
        of_means.for_each(|row| sum.add(&row));
        let word = |has| if has { "kept" } else { "not kept" };
        lines.push(sum.cells([word(means.store), if means.groups { "yes" } else { "no" }]));
        match &mut all {
            Some(all) => all.add(&sum),
            None => all = Some(sum),
        }
    }
    lines.extend(all.map(|all| all.cells(["together", ""])));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let row = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| if at < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        cells.collect::<Vec<_>>().join("  ")
    };
    let body: Vec<String> = lines.iter().map(row).collect();
    format!(
        "\"lost\" and \"doubled\" are of processes; \"known\", \"lost\" and \"wrong\" are of exit statuses; \"early\" are kills before the first answer;\n\
         p50 and max are from the daemon's execution to its first answer\n{}\n",
        body.join("\n")
    )
}
