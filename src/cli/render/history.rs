//! The journal, newest first.

use std::time::Duration;

use crate::{
    cli::render::{
        table::table,
        text::{clean, duration, time},
    },
    rpc::proto,
};

/// One row per attempt; the database only where there are several.
pub fn text(attempts: &[proto::Attempt], width: Option<u16>) -> String {
    let Some(first) = attempts.first() else { return "no attempts\n".to_owned() };
    let several = attempts.iter().any(|attempt| attempt.database != first.database);
    let header = ["database", "started_at", "version", "what", "outcome", "#took", "by", "message"];
    let skipped = usize::from(!several);
    let rows = attempts.iter().map(|attempt| {
        let took = match u64::try_from(attempt.duration_ms) {
            Ok(ms) if attempt.finished_at.is_some() => duration(Duration::from_millis(ms)),
            _ => "-".to_owned(),
        };
        let row = [
            clean(&attempt.database),
            time(attempt.started_at.as_ref()),
            clean(&attempt.version),
            clean(&attempt.direction),
            clean(&attempt.outcome).replace('_', " "),
            took,
            clean(&attempt.requested_by),
            message(attempt),
        ];
        row[skipped..].to_vec()
    });
    table(&header[skipped..], rows, width)
}

fn message(attempt: &proto::Attempt) -> String {
    let done = (attempt.mode == "non-transactional" && attempt.statements_done < attempt.statements_total)
        .then(|| format!("{} of {} statements", attempt.statements_done, attempt.statements_total));
    let parts = [attempt.sqlstate.clone(), clean(&attempt.message), done.unwrap_or_default()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_attempt() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let attempt = proto::Attempt {
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
        };
        let shown = text(&[attempt], None);
        let last = shown.lines().last().expect("a row");
        let cells: Vec<_> = last.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let expected =
            ["2025-10-30 10:15:30Z", "0010_add_products", "up", "rolled back", "12 ms", "eve@host"];
        assert_eq!(cells[..6], expected, "{shown}");
        assert_eq!(cells[6], "42601 syntax error");
        assert_eq!(text(&[], None), "no attempts\n");
    }
}
