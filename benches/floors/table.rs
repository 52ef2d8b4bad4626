//! What was measured, as a table.

use std::time::Duration;

/// A quantity with its unit.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Amount {
    Seconds(f64),
    Bytes(f64),
    Percent(f64),
}

impl Amount {
    fn number(self) -> f64 {
        match self {
            Self::Seconds(number) | Self::Bytes(number) | Self::Percent(number) => number,
        }
    }

    /// The share of each of so many.
    pub(crate) fn per(self, count: usize) -> Self {
        let count = count as f64;
        match self {
            Self::Seconds(number) => Self::Seconds(number / count),
            Self::Bytes(number) => Self::Bytes(number / count),
            Self::Percent(number) => Self::Percent(number / count),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Seconds(s) if s < 0.000_1 => format!("{:.1} µs", s * 1e6),
            Self::Seconds(s) if s < 0.001 => format!("{:.0} µs", s * 1e6),
            Self::Seconds(s) if s < 1.0 => format!("{:.2} ms", s * 1e3),
            Self::Seconds(s) => format!("{s:.2} s"),
            Self::Bytes(b) if b.abs() < 1024.0 * 1024.0 => format!("{:.1} KiB", b / 1024.0),
            Self::Bytes(b) => format!("{:.1} MiB", b / (1024.0 * 1024.0)),
            Self::Percent(p) if p < 0.1 => format!("{p:.4} %"),
            Self::Percent(p) => format!("{p:.1} %"),
        }
    }
}

impl From<Duration> for Amount {
    fn from(duration: Duration) -> Self {
        Self::Seconds(duration.as_secs_f64())
    }
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
enum Target {
    Ratio(f64),
    Amount(Amount),
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    measure: String,
    /// Or why it was not measured.
    ours: Result<Amount, &'static str>,
    floor: Option<(Amount, &'static str)>,
    target: Option<Target>,
}

impl Row {
    pub(crate) fn new(measure: impl Into<String>, ours: impl Into<Amount>) -> Self {
        Self { measure: measure.into(), ours: Ok(ours.into()), floor: None, target: None }
    }

    /// What could not be measured here, and why.
    pub(crate) fn without(measure: impl Into<String>, why: &'static str) -> Self {
        Self { measure: measure.into(), ours: Err(why), floor: None, target: None }
    }

    /// What it is compared with, and what that is.
    pub(crate) fn against(self, floor: impl Into<Amount>, what: &'static str) -> Self {
        Self { floor: Some((floor.into(), what)), ..self }
    }

    /// At most so many times the floor.
    pub(crate) fn ratio_at_most(self, ratio: f64) -> Self {
        Self { target: Some(Target::Ratio(ratio)), ..self }
    }

    /// At most this.
    pub(crate) fn at_most(self, amount: Amount) -> Self {
        Self { target: Some(Target::Amount(amount)), ..self }
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.ours.ok()?.number() / self.floor?.0.number())
    }

    fn cells(&self) -> [String; 5] {
        let (target, met) = match self.target {
            Some(Target::Ratio(most)) => (format!("≤ {most:.2}"), self.ratio().is_some_and(|ratio| ratio <= most)),
            Some(Target::Amount(most)) => (format!("≤ {}", most.text()), self.ours.is_ok_and(|ours| ours <= most)),
            None => (String::new(), true),
        };
        [
            self.measure.clone(),
            self.ours.map_or_else(str::to_owned, Amount::text),
            self.floor.map(|(floor, what)| format!("{} {what}", floor.text())).unwrap_or_default(),
            self.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            if met { target } else { format!("{target}  missed") },
        ]
    }
}

/// Aligned columns; numbers to the right.
pub(crate) fn print(rows: &[Row]) -> String {
    let head = ["measure", "ours", "floor", "ratio", "target"].map(str::to_owned);
    let rule = [""; 5].map(str::to_owned);
    let lines: Vec<[String; 5]> = [head, rule].into_iter().chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for (number, cells) in lines.iter().enumerate() {
        let padded: Vec<String> = cells
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                _ if number == 1 => "-".repeat(width),
                1 | 3 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        text.push_str(padded.join(" | ").trim_end());
        text.push('\n');
    }
    text
}
