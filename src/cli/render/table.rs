//! Tables without borders, a light line under the header.

use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, Width, presets::NOTHING,
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

/// What becomes of a column where the table is wider than the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It stays as it is.
    Whole,
    /// Its texts are cut, after those of the spare columns.
    Cut,
    /// Its texts are cut first, and it is left out where that is not enough.
    Spare,
    /// Its text is wrapped; for a last column only.
    Wrap,
}

struct Column {
    title: String,
    is_number: bool,
    fit: Fit,
}

/// Between two columns.
const GAP: usize = 2;
/// Cut texts are not made shorter than this.
const CUT: usize = 12;
/// The same, of a spare column.
const SPARE: usize = 9;
/// A column that is wrapped is not made narrower than this.
const WRAP: usize = 24;

/// Renders a table. Columns whose title begins with `#` hold numbers and are aligned to the right. A
/// table without a wrapped column has one line per row, after the two of its header.
pub fn table(columns: &[(&str, Fit)], mut rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut columns: Vec<_> = columns
        .iter()
        .map(|(title, fit)| {
            let text = title.strip_prefix('#');
            Column { title: text.unwrap_or(title).to_owned(), is_number: text.is_some(), fit: *fit }
        })
        .collect();
    if let Some(width) = width {
        make_fit(&mut columns, &mut rows, width.into());
    }
    let mut table = Table::new();
    table.load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(columns.iter().map(|column| column.title.as_str()));
    table.add_rows(rows);
    let needed = table.column_max_content_widths();
    for (index, column) in table.column_iter_mut().enumerate() {
        let Column { is_number, fit, .. } = columns[index];
        column.set_padding((0, u16::from(index + 1 < columns.len())));
        if is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
        column.set_constraint(match fit {
            Fit::Wrap => {
                let least = usize::from(needed[index]).min(WRAP);
                ColumnConstraint::LowerBoundary(Width::Fixed(u16::try_from(least).unwrap_or(u16::MAX)))
            }
            _ => ColumnConstraint::ContentWidth,
        });
    }
    if let Some(width) = width.filter(|_| columns.iter().any(|column| column.fit == Fit::Wrap)) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// How wide the widest line of a text is.
pub fn width(text: &str) -> usize {
    text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// Cuts and leaves out what has to be, to come down to `width`.
fn make_fit(columns: &mut Vec<Column>, rows: &mut [Vec<String>], width: usize) {
    let cells = |index: usize| rows.iter().filter_map(move |row| row.get(index)).map(|cell| cell.width());
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let needed = cells(index).chain([column.title.width()]).max().unwrap_or(0);
            if column.fit == Fit::Wrap { needed.min(WRAP) } else { needed }
        })
        .collect();
    let excess = |widths: &[usize]| {
        let gaps = GAP * widths.len().saturating_sub(1);
        (widths.iter().sum::<usize>() + gaps).saturating_sub(width)
    };
    narrow(columns, &mut widths, Fit::Spare, SPARE, excess);
    while excess(&widths) > 0
        && let Some(last) = columns.iter().rposition(|column| column.fit == Fit::Spare)
    {
        columns.remove(last);
        widths.remove(last);
        for row in rows.iter_mut().filter(|row| row.len() > last) {
            row.remove(last);
        }
    }
    narrow(columns, &mut widths, Fit::Cut, CUT, excess);
    for (index, width) in widths.iter().enumerate() {
        if matches!(columns[index].fit, Fit::Cut | Fit::Spare) {
            columns[index].title = cut(&columns[index].title, *width);
            for cell in rows.iter_mut().filter_map(|row| row.get_mut(index)) {
                *cell = cut(cell, *width);
            }
        }
    }
}

/// Takes from the widest of the columns that fit so, a character at a time.
fn narrow(
    columns: &[Column],
    widths: &mut [usize],
    fit: Fit,
    least: usize,
    excess: impl Fn(&[usize]) -> usize,
) {
    while excess(widths) > 0 {
        let of_kind = (0..widths.len()).filter(|&index| columns[index].fit == fit && widths[index] > least);
        let Some(widest) = of_kind.max_by_key(|&index| widths[index]) else { return };
        widths[widest] -= 1;
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used < width
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "20240101000000_add_customer_profiles";

    fn shown(width: Option<u16>) -> String {
        let columns = [
            ("version", Fit::Cut),
            ("at", Fit::Whole),
            ("#took", Fit::Whole),
            ("checksum_preview", Fit::Spare),
        ];
        let row = [LONG, "2025-10-30 10:15:30Z", "12 ms", "a1b2c3d4e5f60718..."];
        table(&columns, vec![row.map(str::to_owned).to_vec()], width)
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_at_most() {
        let check = |terminal: u16, expected: &str| {
            let text = shown(Some(terminal));
            assert_eq!(text.lines().count(), 3, "nothing is wrapped: {text}");
            assert!(width(&text) <= terminal.into(), "{terminal}: {text}");
            assert_eq!(text.lines().last(), Some(expected), "{text}");
        };
        let start = format!("{LONG}  2025-10-30 10:15:30Z  12 ms");
        check(120, &format!("{start}  a1b2c3d4e5f60718..."));
        check(80, &format!("{start}  a1b2c3d4e5f6…"));
        check(70, &start);
        check(50, "20240101000000_add_c…  2025-10-30 10:15:30Z  12 ms");
        assert_eq!(shown(None), shown(Some(120)), "off a terminal nothing is cut");
    }

    #[test]
    fn the_last_text_is_wrapped() {
        let columns = [("name", Fit::Whole), ("migrations", Fit::Wrap)];
        let row = vec!["orders".to_owned(), "/srv/migrations ".repeat(5).trim().to_owned()];
        let text = table(&columns, vec![row], Some(40));
        assert!(width(&text) <= 40 && text.lines().count() > 3, "{text}");
    }
}
