//! Tables for terminals: a header, aligned columns, and lines that fit the terminal.
//!
//! Pipes get no tables, because programs need complete names and one separator.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape::escape;

/// The space between two columns.
const GAP: &str = "  ";

/// The minimum width of a shortened column of text.
const MIN_WIDTH: usize = 8;

/// The alignment of a column. Text is aligned left and may be shortened. Numbers are aligned right
/// and are never shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

#[derive(Debug)]
struct Column {
    header: String,
    align: Align,
    /// The width of the widest cell so far.
    width: usize,
}

/// A table that is rendered as a whole or page by page.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    headed: bool,
}

impl Table {
    pub(crate) fn new(headers: &[(&str, Align)]) -> Self {
        let column = |&(header, align): &(&str, Align)| Column {
            header: header.to_owned(),
            align,
            width: header.width(),
        };
        Self { columns: headers.iter().map(column).collect(), rows: Vec::new(), headed: false }
    }

    /// Adds a row with one cell per column. Cells are escaped here, because their width is that of
    /// the escaped text.
    pub(crate) fn push(&mut self, mut cells: Vec<String>) {
        for (column, cell) in self.columns.iter_mut().zip(&mut cells) {
            *cell = escape(cell);
            column.width = column.width.max(cell.width());
        }
        self.rows.push(cells);
    }

    /// Renders the rows that were added since the last call. The first call adds the header.
    /// Columns never get narrower. Without a width, no cell is shortened.
    pub(crate) fn render(&mut self, width: Option<usize>) -> Vec<String> {
        let widths = self.fit(width);
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        if !std::mem::replace(&mut self.headed, true) {
            let headers: Vec<&str> =
                self.columns.iter().map(|column| column.header.as_str()).collect();
            lines.push(self.line(&headers, &widths));
        }
        for row in std::mem::take(&mut self.rows) {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            lines.push(self.line(&cells, &widths));
        }
        lines
    }

    /// Returns the width of each column. The widest column of text is shortened first, until
    /// another one is the widest.
    fn fit(&self, width: Option<usize>) -> Vec<usize> {
        let Some(width) = width else {
            return self.columns.iter().map(|column| column.width).collect();
        };
        let most = |column: &Column| match column.align {
            // Bounds the number of iterations of the loop below.
            Align::Left => column.width.min(width.max(MIN_WIDTH)),
            Align::Right => column.width,
        };
        let mut widths: Vec<usize> = self.columns.iter().map(most).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        loop {
            let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
            let text = (0..widths.len()).filter(|&index| self.columns[index].align == Align::Left);
            let widest = text.filter(|&index| widths[index] > MIN_WIDTH).max_by_key(|&i| widths[i]);
            match widest {
                Some(widest) if excess > 0 => widths[widest] -= 1,
                // If the terminal is narrower than the numbers, the line wraps.
                _ => return widths,
            }
        }
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, ((cell, &width), column)) in
            cells.iter().zip(widths).zip(&self.columns).enumerate()
        {
            if index > 0 {
                line.push_str(GAP);
            }
            let cell = shorten(cell, width);
            let padding = " ".repeat(width.saturating_sub(cell.width()));
            match column.align {
                Align::Left => {
                    line.push_str(&cell);
                    line.push_str(&padding);
                }
                Align::Right => {
                    line.push_str(&padding);
                    line.push_str(&cell);
                }
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        line
    }
}

/// Shortens text to `width` columns; a shortened text ends in `…`.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    // The sum of the widths of single characters is never less than the width on a terminal.
    let mut left = width.saturating_sub(1);
    let mut short = String::new();
    for c in text.chars() {
        match left.checked_sub(c.width().unwrap_or(0)) {
            Some(rest) => left = rest,
            None => break,
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// Returns the width of the terminal that stdout is connected to.
pub(crate) fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(usize::from(width.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 3]]) -> Table {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("BYTES", Align::Right), ("WHERE", Align::Left)]);
        for row in rows {
            table.push(row.iter().map(|&cell| cell.to_owned()).collect());
        }
        table
    }

    #[test]
    fn columns_are_aligned_by_displayed_width() {
        let mut table =
            table(&[["a", "1", "acme"], ["日本語", "1000000", "ac\tme"], ["e\u{301}", "20", "x"]]);
        assert_eq!(
            table.render(None),
            [
                "NAME      BYTES  WHERE",
                "a             1  acme",
                "日本語  1000000  ac\\tme",
                "e\u{301}            20  x",
            ]
        );
    }

    #[test]
    fn widest_text_is_shortened_and_numbers_are_not() {
        let name = "a-name-of-thirty-one-characters";
        let place = "a-place-of-25-characters!";
        for width in 27..70 {
            let lines = table(&[[name, "1234567", place]]).render(Some(width));
            for line in &lines {
                assert!(line.width() <= width, "{width}: {line}");
            }
            assert!(lines[1].contains("  1234567  "), "{lines:?}");
            assert_eq!(lines[1].contains('…'), width < 31 + 25 + 7 + 4, "{lines:?}");
        }
        let lines = table(&[[name, "1", place]]).render(Some(60));
        assert_eq!(lines[1], "a-name-of-thirty-one-char…      1  a-place-of-25-characters!");
        // Below the minimum width, the line is wider than the terminal.
        let lines = table(&[[name, "123456789", place]]).render(Some(3));
        assert_eq!(lines[1], "a-name-…  123456789  a-place…");
    }

    #[test]
    fn pages_share_column_widths_and_one_header() {
        let mut table = table(&[["a-long-name", "1", "x"]]);
        assert_eq!(table.render(None), ["NAME         BYTES  WHERE", "a-long-name      1  x"]);
        table.push(vec!["b".to_owned(), "2".to_owned(), "y".to_owned()]);
        assert_eq!(table.render(None), ["b                2  y"]);
        assert!(table.render(None).is_empty());
    }

    #[test]
    fn shortened_text_fits_the_width() {
        for text in ["日本語の名前です", "👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧", "e\u{301}e\u{301}e\u{301}e\u{301}", "plain text"]
        {
            for width in 1..12 {
                let short = shorten(text, width);
                assert!(short.width() <= width, "{width}: {short}");
                assert_eq!(short == text, text.width() <= width);
            }
        }
    }
}
