//! Columns and blocks: plain text without boxes, two spaces between columns, which people read and `awk` splits.

use super::Style;
use super::text::{cut, escape, width};

/// Two columns of space between two columns of a table.
const GAP: &str = "  ";

/// The last column is never cut below this, so that a narrow terminal wraps instead of hiding all of it.
const NARROWEST: usize = 12;

/// A colour that says what a text means, for a terminal only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As it should be.
    Green,
    /// On its way.
    Yellow,
    /// Needs somebody.
    Red,
    /// At rest.
    Dim,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Green => "\x1b[32m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

/// One cell: an escaped text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// A cell with this text, escaped.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: escape(text.as_ref()).into_owned(), colour: None }
    }

    /// A cell with this value, or `-` where there is none.
    pub fn maybe(value: Option<impl ToString>) -> Self {
        Self::new(value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
    }

    /// The same in a colour.
    #[must_use]
    pub fn coloured(mut self, colour: Option<Colour>) -> Self {
        self.colour = colour;
        self
    }

    /// The text as it goes out.
    fn paint(&self, text: &str, style: &Style) -> String {
        match self.colour {
            Some(colour) if style.colour => format!("{}{text}\x1b[0m", colour.code()),
            Some(_) | None => text.to_owned(),
        }
    }
}

/// The side of its column that a cell leans on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows under titles; each row has one cell for each title.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table as lines. On a terminal the last column is cut to its width, if it holds texts.
    pub fn render(&self, style: &Style) -> String {
        let titles: Vec<Cell> = self.columns.iter().map(|(title, _)| Cell::new(title)).collect();
        let mut widths: Vec<usize> = titles.iter().map(|cell| width(&cell.text)).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(&cell.text));
            }
        }
        let last = self.columns.len().saturating_sub(1);
        let before_last: usize = widths.iter().take(last).map(|w| w + GAP.len()).sum();
        // Numbers are never cut: half a number is a wrong one.
        let ends_with_text = self.columns.last().is_some_and(|(_, align)| *align == Align::Left);
        let room = style.width.filter(|_| ends_with_text).map(|terminal| terminal.saturating_sub(before_last).max(NARROWEST));

        let mut lines = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (index, (cell, (_, align))) in row.iter().zip(&self.columns).enumerate() {
                let text = match room {
                    Some(room) if index == last => cut(&cell.text, room),
                    Some(_) | None => cell.text.as_str().into(),
                };
                let widest = if index == last { room.map_or(widths[index], |room| room.min(widths[index])) } else { widths[index] };
                let space = " ".repeat(widest.saturating_sub(width(&text)));
                let painted = cell.paint(&text, style);
                match align {
                    Align::Left if index == last => line += &painted,
                    Align::Left => line += &(painted + &space),
                    Align::Right => line += &(space + &painted),
                }
                if index != last {
                    line += GAP;
                }
            }
            lines += line.trim_end();
            lines.push('\n');
        }
        lines
    }
}

/// A title and labelled facts below it, the labels leaning on their colons.
#[derive(Clone, Debug)]
pub struct Block {
    title: Vec<Cell>,
    facts: Vec<(&'static str, Cell)>,
}

impl Block {
    /// A block without facts; the words of its title stand side by side.
    pub const fn new(title: Vec<Cell>) -> Self {
        Self { title, facts: Vec::new() }
    }

    /// Adds a fact.
    pub fn fact(&mut self, label: &'static str, value: impl AsRef<str>) {
        self.facts.push((label, Cell::new(value)));
    }

    /// Adds a fact where there is one.
    pub fn fact_if(&mut self, label: &'static str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.fact(label, value);
        }
    }

    /// The block as lines.
    pub fn render(&self, style: &Style) -> String {
        let title: Vec<_> = self.title.iter().map(|word| word.paint(&word.text, style)).collect();
        let mut lines = title.join(" ");
        lines.push('\n');
        let widest = self.facts.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
        for (label, value) in &self.facts {
            lines += &format!("{label:>widest$}: {}\n", value.paint(&value.text, style), widest = widest + GAP.len());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[("NAME", Align::Left), ("PID", Align::Right), ("COMMAND", Align::Left)]);
        table.row(vec![Cell::new("a"), Cell::maybe(Some(4711)), Cell::new("sleep 1000000000").coloured(Some(Colour::Red))]);
        table.row(vec![Cell::new("漢字-b"), Cell::maybe(None::<u32>), Cell::new("x\x1b[2J")]);
        table
    }

    #[test]
    fn columns_are_aligned() {
        let plain = "NAME     PID  COMMAND\na       4711  sleep 1000000000\n漢字-b     -  x\\x1b[2J\n";
        assert_eq!(table().render(&Style::plain()), plain);
    }

    #[test]
    fn on_a_terminal_the_last_column_is_cut_and_coloured() {
        let style = Style { width: Some(27), colour: true, ..Style::plain() };
        assert_eq!(table().render(&style), "NAME     PID  COMMAND\na       4711  \x1b[31msleep 100000…\x1b[0m\n漢字-b     -  x\\x1b[2J\n");
        let narrow = Style { width: Some(3), ..Style::plain() };
        assert!(table().render(&narrow).contains("  sleep 10000…\n"));
    }

    #[test]
    fn numbers_are_never_cut() {
        let mut table = Table::new(&[("NAME", Align::Left), ("BYTES", Align::Right)]);
        table.row(vec![Cell::new("a"), Cell::new("12345678901234567890")]);
        let style = Style { width: Some(10), ..Style::plain() };
        assert_eq!(table.render(&style), "NAME                 BYTES\na     12345678901234567890\n");
    }

    #[test]
    fn a_block_leans_on_its_colons() {
        let mut block = Block::new(vec![Cell::new("web"), Cell::new("running").coloured(Some(Colour::Green))]);
        block.fact("PID", "1");
        block.fact_if("Memory", Some("1 B\n"));
        block.fact_if("Group", None::<&str>);
        assert_eq!(block.render(&Style::plain()), "web running\n     PID: 1\n  Memory: 1 B\\n\n");
        let style = Style { colour: true, ..Style::plain() };
        assert!(block.render(&style).starts_with("web \x1b[32mrunning\x1b[0m\n"));
    }
}
