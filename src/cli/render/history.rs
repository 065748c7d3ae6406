//! The journal, newest first.

use std::{fmt::Write as _, time::Duration};

use crate::{
    cli::render::{
        table::{self, Fit, table},
        text::{clean, duration, sentence, time, wrap},
    },
    rpc::proto,
};

const COLUMNS: [(&str, Fit); 8] = [
    ("database", Fit::Whole),
    ("started_at", Fit::Whole),
    ("version", Fit::Cut),
    ("what", Fit::Whole),
    ("outcome", Fit::Whole),
    ("#took", Fit::Whole),
    ("by", Fit::Cut),
    ("message", Fit::Whole),
];

/// Before a message that stands under its row.
const INDENT: usize = 4;

/// One row per attempt; the database only where there are several. On a terminal that is too narrow
/// for the messages beside them they stand under their rows.
pub fn text(attempts: &[proto::Attempt], width: Option<u16>) -> String {
    let Some(first) = attempts.first() else { return "no attempts\n".to_owned() };
    let several = attempts.iter().any(|attempt| attempt.database != first.database);
    let columns = &COLUMNS[usize::from(!several)..];
    let rows: Vec<_> =
        attempts.iter().map(|attempt| row(attempt)[usize::from(!several)..].to_vec()).collect();
    let beside = table(columns, rows.clone(), None);
    if width.is_none_or(|width| table::width(&beside) <= width.into()) {
        return beside;
    }
    let last = columns.len() - 1;
    let rows: Vec<_> = rows.into_iter().map(|row| row[..last].to_vec()).collect();
    let mut text = String::new();
    for (index, line) in table(&columns[..last], rows, width).lines().enumerate() {
        let _ = writeln!(text, "{line}");
        // The header takes two lines.
        let message = index.checked_sub(2).and_then(|index| attempts.get(index)).map(message);
        if let Some(message) = message.filter(|message| !message.is_empty()) {
            let _ = writeln!(text, "{}", wrap(&format!("{:INDENT$}{message}", ""), width, INDENT));
        }
    }
    text
}

fn row(attempt: &proto::Attempt) -> [String; 8] {
    let took = match u64::try_from(attempt.duration_ms) {
        Ok(ms) if attempt.finished_at.is_some() => duration(Duration::from_millis(ms)),
        _ => "-".to_owned(),
    };
    [
        clean(&attempt.database),
        time(attempt.started_at.as_ref()),
        clean(&attempt.version),
        clean(&attempt.direction),
        clean(&attempt.outcome).replace('_', " "),
        took,
        clean(&attempt.requested_by),
        message(attempt),
    ]
}

/// What the journal says, in one sentence that tells nothing twice.
fn message(attempt: &proto::Attempt) -> String {
    let mut text = sentence(&attempt.message);
    let state = clean(&attempt.sqlstate);
    if !state.is_empty() && !text.contains(&state) {
        text =
            if text.is_empty() { format!("SQLSTATE {state}") } else { format!("{text} (SQLSTATE {state})") };
    }
    let done = format!("{} of {} statements", attempt.statements_done, attempt.statements_total);
    let is_partly = attempt.mode == "non-transactional" && attempt.statements_done < attempt.statements_total;
    match (is_partly && !text.contains(&done), text.is_empty()) {
        (false, _) => text,
        (true, true) => format!("{done} done"),
        (true, false) => format!("{text}, after {done}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> proto::Attempt {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        proto::Attempt {
            database: "orders".into(),
            version: "0010_add_products".into(),
            direction: "up".into(),
            outcome: "rolled_back".into(),
            started_at: at(1_761_819_330),
            finished_at: at(1_761_819_331),
            duration_ms: 12,
            sqlstate: "42601".into(),
            message: "syntax error".into(),
            requested_by: "eve@host".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_failed_attempt() {
        let shown = text(&[attempt()], None);
        let last = shown.lines().last().expect("a row");
        let cells: Vec<_> = last.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let expected =
            ["2025-10-30 10:15:30Z", "0010_add_products", "up", "rolled back", "12 ms", "eve@host"];
        assert_eq!(cells[..6], expected, "{shown}");
        assert_eq!(cells[6], "syntax error (SQLSTATE 42601)");
        assert_eq!(text(&[], None), "no attempts\n");
    }

    #[test]
    fn a_message_is_one_sentence() {
        let check = |message: &str, sqlstate: &str, mode: &str, expected: &str| {
            let (message, sqlstate, mode) = (message.into(), sqlstate.into(), mode.into());
            let attempt = proto::Attempt {
                message,
                sqlstate,
                mode,
                statements_done: 1,
                statements_total: 3,
                ..attempt()
            };
            assert_eq!(super::message(&attempt), expected);
        };
        let told = "Migration 0010_x failed after 1 of 3 statements: no such table";
        check(told, "42P01", "non-transactional", &format!("{told} (SQLSTATE 42P01)"));
        check("no answer", "", "non-transactional", "no answer, after 1 of 3 statements");
        check("", "", "non-transactional", "1 of 3 statements done");
        check("syntax error.", "", "transactional", "syntax error");
        check("", "57014", "transactional", "SQLSTATE 57014");
    }

    #[test]
    fn a_narrow_terminal_has_the_message_under_its_row() {
        let long = proto::Attempt { message: "syntax error at or near \"NOT\" ".repeat(3), ..attempt() };
        let shown = text(&[long, attempt()], Some(80));
        let lines: Vec<_> = shown.lines().collect();
        assert!(table::width(&shown) <= 80, "{shown}");
        assert!(lines[2].ends_with("  eve@host"), "{shown}");
        assert!(lines[3].starts_with("    syntax error at or near"), "{shown}");
        assert!(lines[4].starts_with("    ") && lines[4].ends_with("(SQLSTATE 42601)"), "{shown}");
        assert!(lines[5].starts_with("2025-10-30 10:15:30Z  0010_add_products"), "{shown}");
        assert_eq!(lines[6..], ["    syntax error (SQLSTATE 42601)"], "{shown}");
    }
}
