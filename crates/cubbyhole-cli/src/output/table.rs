//! Tables for a person at a terminal: a header, aligned columns, no line wider than the terminal.
//!
//! Pipes get no tables: what reads them wants whole names and one separator.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::escape::escape;

/// Between two columns.
const GAP: &str = "  ";

/// A column of text is not shortened below this: less would tell nothing.
const NARROWEST: usize = 8;

/// On which side the cells of a column line up. What stands on the left is text, which may be
/// shortened; what stands on the right is a number, which may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

#[derive(Debug)]
struct Column {
    header: String,
    align: Align,
    /// Of the widest cell so far.
    width: usize,
}

/// Rows that are lined up once they are all there, or page by page.
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

    /// Adds a row, a cell for each column. Control characters are escaped here, for a cell is as
    /// wide as what is shown of it.
    pub(crate) fn push(&mut self, mut cells: Vec<String>) {
        for (column, cell) in self.columns.iter_mut().zip(&mut cells) {
            *cell = escape(cell);
            column.width = column.width.max(cell.width());
        }
        self.rows.push(cells);
    }

    /// The rows that came since the last call as lines, under the header the first time; columns
    /// stay as wide as they were. Without a width nothing is shortened.
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

    /// How wide each column may be: the widest column of text gives way first, and that until
    /// another is the widest.
    fn fit(&self, width: Option<usize>) -> Vec<usize> {
        let Some(width) = width else {
            return self.columns.iter().map(|column| column.width).collect();
        };
        let most = |column: &Column| match column.align {
            // More is out of the question in any case: the loop below stays short.
            Align::Left => column.width.min(width.max(NARROWEST)),
            Align::Right => column.width,
        };
        let mut widths: Vec<usize> = self.columns.iter().map(most).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        loop {
            let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
            let text = (0..widths.len()).filter(|&index| self.columns[index].align == Align::Left);
            let widest = text.filter(|&index| widths[index] > NARROWEST).max_by_key(|&i| widths[i]);
            match widest {
                Some(widest) if excess > 0 => widths[widest] -= 1,
                // A terminal narrower than the numbers: better a line that wraps than a wrong one.
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

/// At most `width` columns of the text; `…` says that there is more.
fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    // Counted character by character, which is never less than a terminal makes of them together.
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

/// How many columns the terminal has that stdout is; `None` if it is none or does not say.
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
    fn columns_line_up_by_what_is_shown() {
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
    fn the_widest_text_is_shortened_and_no_number() {
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
        // Past that the line is what it must be.
        let lines = table(&[[name, "123456789", place]]).render(Some(3));
        assert_eq!(lines[1], "a-name-…  123456789  a-place…");
    }

    #[test]
    fn pages_keep_their_columns_and_have_one_header() {
        let mut table = table(&[["a-long-name", "1", "x"]]);
        assert_eq!(table.render(None), ["NAME         BYTES  WHERE", "a-long-name      1  x"]);
        table.push(vec!["b".to_owned(), "2".to_owned(), "y".to_owned()]);
        assert_eq!(table.render(None), ["b                2  y"]);
        assert!(table.render(None).is_empty());
    }

    #[test]
    fn a_shortened_text_is_never_wider_than_asked() {
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
