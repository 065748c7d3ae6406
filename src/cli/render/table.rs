//! Tables without borders, a light line under the header.

use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, Width, presets::NOTHING,
};

/// The last column, where a table is too wide, is not made narrower than this.
const LAST_COLUMN: u16 = 24;

/// Renders a table. Columns whose header begins with `#` hold numbers and are aligned to the right.
/// On a terminal of `width` columns the text of the last column is wrapped; nothing else ever is, so
/// that versions can be copied.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING.header_separator(LineStyle::none().fill('─').junction('─')));
    table.set_header(header.iter().map(|title| title.trim_start_matches('#')));
    table.add_rows(rows);
    for (title, column) in header.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 1));
        if title.starts_with('#') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        let last = header.len().saturating_sub(1);
        let needed = table.column_max_content_widths().get(last).copied().unwrap_or(0);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_constraint(if index == last {
                ColumnConstraint::LowerBoundary(Width::Fixed(needed.min(LAST_COLUMN)))
            } else {
                ColumnConstraint::ContentWidth
            });
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}
