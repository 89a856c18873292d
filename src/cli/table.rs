//! Tables that fit a terminal: where the columns are too many for it, the widest are cut.

use super::console::Tone;

/// Between two columns.
const GAP: &str = "  ";

/// No column is cut to less.
const NARROWEST: usize = 3;

/// Rows of cells below a heading.
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

/// One cell.
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell without control characters: its text is printed as it is.
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// A cell that tells nothing at a glance.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Table {
    /// A table without rows.
    pub(super) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|text| Cell::new(*text, Tone::Heading)).collect()] }
    }

    /// Adds a row, with as many cells as the heading has.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The table in lines of `columns` characters at most, as far as its columns can be cut.
    pub(super) fn text(&self, columns: usize, paint: impl Fn(&str, Tone) -> String) -> String {
        let widths = self.widths(columns);
        let mut text = String::new();
        for row in &self.rows {
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let shown = cut(&cell.text, *width);
                text += &paint(&shown, cell.tone);
                if index + 1 < row.len() {
                    text.extend(std::iter::repeat_n(' ', width.saturating_sub(shown.chars().count())));
                    text += GAP;
                }
            }
            text.push('\n');
        }
        text
    }

    fn widths(&self, columns: usize) -> Vec<usize> {
        let count = self.rows.first().map_or(0, Vec::len);
        let widest = |index| self.rows.iter().filter_map(|row| row.get(index)).map(|cell: &Cell| cell.text.chars().count()).max();
        let mut widths: Vec<_> = (0..count).map(|index| widest(index).unwrap_or_default()).collect();
        let room = columns.saturating_sub(GAP.len() * count.saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            match widths.iter_mut().max() {
                Some(width) if *width > NARROWEST => *width -= 1,
                _ => break,
            }
        }
        widths
    }
}

/// The text, or as much of it as fits, with "…" for the rest.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(width.saturating_sub(1)).collect();
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_are_cut_until_it_fits() {
        let mut table = Table::new(&["SITE", "STATE"]);
        table.push(vec![Cell::plain("a-very-long-name.example.com"), Cell::plain("renewal failed")]);
        table.push(vec![Cell::plain("b.example"), Cell::plain("ok")]);
        let plain = |text: &str, _| text.to_owned();
        let whole = "SITE                          STATE\na-very-long-name.example.com  renewal failed\nb.example                     ok\n";
        assert_eq!(table.text(80, plain), whole);
        assert_eq!(table.text(44, plain), whole);
        for columns in [43, 30, 20, 8] {
            let text = table.text(columns, plain);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{columns}:\n{text}");
        }
        assert_eq!(table.text(26, plain), "SITE          STATE\na-very-long…  renewal fai…\nb.example     ok\n");
    }
}
