//! A failure as the operator sees it: what, where with a caret, why, and what to do.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr as _;

use crate::{
    cli::render::text::{CYAN, RED, clean, sentence},
    rpc::proto,
};

/// How many columns of a long line are shown, around the place of the error.
const EXCERPT_WIDTH: usize = 72;

/// The block for one failure, of a database or of the request as a whole.
pub fn block(database: Option<&str>, failure: &proto::Failure) -> String {
    let mut block = format!("{RED}error:{RED:#} ");
    if let Some(database) = database {
        let _ = write!(block, "{}: ", clean(database));
    }
    let headline = sentence(&failure.message);
    block.push_str(&headline);
    if !failure.version.is_empty() && !failure.message.contains(&failure.version) {
        let _ = write!(block, ": {}", clean(&failure.version));
    }
    block.push('\n');
    if let Some(location) = &failure.location {
        place(&mut block, location);
    }
    match (failure.server_message.as_str(), failure.sqlstate.as_str()) {
        ("", "") => {}
        ("", state) => line(&mut block, "why", &format!("SQLSTATE {state}")),
        (message, "") => line(&mut block, "why", message),
        (message, state) => line(&mut block, "why", &format!("{} (SQLSTATE {state})", sentence(message))),
    }
    if !failure.server_hint.is_empty() {
        line(&mut block, "PostgreSQL's hint", &failure.server_hint);
    }
    for detail in failure.details.iter().map(|detail| sentence(detail)).filter(|it| *it != headline) {
        let _ = writeln!(block, "  - {detail}");
    }
    if !failure.hint.is_empty() {
        let _ = writeln!(block, "  {CYAN}hint:{CYAN:#} {}", sentence(&failure.hint));
    }
    if !failure.code.is_empty() {
        let _ = writeln!(block, "  [{}]", clean(&failure.code));
    }
    block
}

fn line(block: &mut String, label: &str, text: &str) {
    let _ = writeln!(block, "  {label}: {}", sentence(text));
}

/// `--> file:line:column`, the line itself, and a caret under the column.
fn place(block: &mut String, location: &proto::Location) {
    let proto::Location { file, line, column, excerpt } = location;
    let mut place = clean(file);
    if *line > 0 {
        let _ = write!(place, ":{line}");
        if *column > 0 {
            let _ = write!(place, ":{column}");
        }
    }
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    let _ = writeln!(block, " {gutter}{CYAN}-->{CYAN:#} {place}");
    if excerpt.trim().is_empty() {
        return;
    }
    let (text, caret) = window(excerpt, *column as usize);
    let _ = writeln!(block, " {gutter} {CYAN}|{CYAN:#}");
    let _ = writeln!(block, " {CYAN}{number} |{CYAN:#} {text}");
    if let Some(caret) = caret {
        let _ = writeln!(block, " {gutter} {CYAN}|{CYAN:#} {}{RED}^{RED:#}", " ".repeat(caret));
    }
}

/// The part of a line that holds the column (from 1, in characters), and where the caret goes, in
/// columns of the terminal. Tabs become four spaces. No caret where the line was cut before it.
fn window(excerpt: &str, column: usize) -> (String, Option<usize>) {
    let shown = |c: char| if c == '\t' { "    ".to_owned() } else { clean(c.encode_utf8(&mut [0; 4])) };
    let line = excerpt.trim_end_matches(['\r', '\n']);
    let cells: Vec<String> = line.chars().map(shown).collect();
    let at = column.checked_sub(1).filter(|&at| at <= cells.len());
    let width = |cells: &[String]| cells.iter().map(|cell| cell.width()).sum::<usize>();
    // Cells are dropped at the front until the caret stands in the window's first two thirds.
    let mut start = 0;
    while let Some(at) = at
        && start < at
        && width(&cells[start..at]) > EXCERPT_WIDTH * 2 / 3
        && width(&cells[start..]) > EXCERPT_WIDTH
    {
        start += 1;
    }
    let mark = if start > 0 { "…" } else { "" };
    let mut text = mark.to_owned();
    for cell in &cells[start..] {
        if text.width() + cell.width() > EXCERPT_WIDTH + mark.width() {
            text.push('…');
            break;
        }
        text.push_str(cell);
    }
    (text, at.map(|at| mark.width() + width(&cells[start..at])))
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthChar as _;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn location(line: u32, column: u32, excerpt: &str) -> proto::Location {
        proto::Location { file: "0010_add_products.up.sql".into(), line, column, excerpt: excerpt.into() }
    }

    #[test]
    fn a_syntax_error_in_full() {
        let failure = proto::Failure {
            code: "NX0030".into(),
            message: "Migration failed and was rolled back".into(),
            hint: "correct the SQL and run apply again.".into(),
            version: "0010_add_products".into(),
            location: Some(location(7, 22, "  price DECIMAL(10,2 NOT NULL,")),
            sqlstate: "42601".into(),
            server_message: "syntax error at or near \"NOT\"".into(),
            server_hint: "Close the bracket.".into(),
            details: vec!["one".into(), "two".into()],
        };
        let expected = "\
error: orders: Migration failed and was rolled back: 0010_add_products
  --> 0010_add_products.up.sql:7:22
   |
 7 |   price DECIMAL(10,2 NOT NULL,
   |                      ^
  why: syntax error at or near \"NOT\" (SQLSTATE 42601)
  PostgreSQL's hint: Close the bracket
  - one
  - two
  hint: correct the SQL and run apply again
  [NX0030]
";
        assert_eq!(plain(&block(Some("orders"), &failure)), expected);
    }

    #[test]
    fn little_is_known() {
        let failure = proto::Failure { message: "Several databases".into(), ..Default::default() };
        assert_eq!(plain(&block(None, &failure)), "error: Several databases\n");
        let failure = proto::Failure {
            message: "Migration 0010_x is empty".into(),
            version: "0010_x".into(),
            location: Some(proto::Location { file: "0010_x.up.sql".into(), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(plain(&block(None, &failure)), "error: Migration 0010_x is empty\n  --> 0010_x.up.sql\n");
    }

    #[test]
    fn a_detail_that_repeats_the_headline_is_left_out() {
        let failure = proto::Failure {
            message: "Migration 0010_x is empty".into(),
            version: "0010_x".into(),
            details: vec!["Migration 0010_x is empty.".into(), "Migration 0011_y is empty".into()],
            ..Default::default()
        };
        let expected = "error: Migration 0010_x is empty\n  - Migration 0011_y is empty\n";
        assert_eq!(plain(&block(None, &failure)), expected);
    }

    /// `marked` is the line with `^` before the character that the caret must stand under.
    #[test]
    fn carets() {
        let check = |excerpt: &str, column: usize, under: &str| {
            let (text, caret) = window(excerpt, column);
            let caret = caret.expect("the column is in the line");
            let mut before = 0;
            let rest: String = text
                .chars()
                .skip_while(|c| {
                    let skip = before < caret;
                    before += c.width().unwrap_or(0);
                    skip
                })
                .collect();
            assert!(rest.starts_with(under), "{excerpt:?}: {rest:?}");
        };
        check("SELECT nope;", 8, "nope");
        check("\tSELECT\tnope;", 9, "nope");
        check("SELECT '日本語', nope;", 15, "nope");
        check("SELECT 'é\u{1b}', nope;", 14, "nope");
        check(&format!("{}nope{}", "x, ".repeat(50), ", x".repeat(15)), 151, "nope");
        check(&format!("{}nope", "日".repeat(150)), 151, "nope");
        assert_eq!(window("SELECT 1", 9).1, Some(8), "after the end of the line");
        assert_eq!(window("SELECT 1", 11).1, None, "the excerpt was cut");
        assert_eq!(window("SELECT 1", 0).1, None, "the column is not known");
    }

    #[test]
    fn long_lines_are_cut_to_fit() {
        let (text, _) = window(&"x".repeat(200), 150);
        assert!(text.starts_with('…') && text.ends_with('…') && text.width() <= EXCERPT_WIDTH + 2, "{text}");
    }
}
