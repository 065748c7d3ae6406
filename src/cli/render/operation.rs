//! Operations: a table of them, one of them in full, and how one ended.

use std::fmt::Write as _;

use crate::{
    cli::{
        render::{
            approval, failure,
            json::word,
            table::{Fit, table},
            text::{clean, count, sentence, time, wrap},
        },
        report::Report,
    },
    rpc::proto::{self, OperationDatabaseState, OperationState},
};

const LIST: [(&str, Fit); 7] = [
    ("id", Fit::Whole),
    ("verb", Fit::Whole),
    ("state", Fit::Whole),
    ("databases", Fit::Cut),
    ("created", Fit::Whole),
    ("by", Fit::Spare),
    ("reason", Fit::Spare),
];

const WAVES: [(&str, Fit); 3] = [("wave", Fit::Whole), ("#databases", Fit::Whole), ("state", Fit::Cut)];

const DATABASES: [(&str, Fit); 4] =
    [("database", Fit::Whole), ("wave", Fit::Whole), ("state", Fit::Whole), ("applied", Fit::Cut)];

/// So many databases are listed whatever there is to say of them.
const FEW: usize = 20;

/// Before what stands under a row.
const INDENT: usize = 4;

/// How wide the names of what is said first are.
const LABEL: usize = 11;

/// The operations, as they come.
pub fn list(operations: &[proto::Operation], width: Option<u16>) -> String {
    if operations.is_empty() {
        return "no operations\n".to_owned();
    }
    let rows = operations.iter().map(|operation| {
        vec![
            clean(&operation.id),
            clean(&operation.verb),
            state(operation.state()),
            counts(&operation.counts),
            time(operation.created_at.as_ref()),
            clean(&operation.requested_by),
            clean(&operation.reason),
        ]
    });
    table(&LIST, rows.collect(), width)
}

/// One operation in one line.
pub fn line(operation: &proto::Operation) -> String {
    let why =
        if operation.why.is_empty() { String::new() } else { format!(": {}", sentence(&operation.why)) };
    let (id, verb) = (clean(&operation.id), clean(&operation.verb));
    format!("{id} {verb} {}{why}; {}\n", state(operation.state()), counts(&operation.counts))
}

/// One operation in full. With `every`, every database; otherwise, where there are many, those of
/// which there is something to say.
pub fn text(operation: &proto::Operation, every: bool, width: Option<u16>) -> String {
    let mut text = header(operation, width);
    if operation.waves.len() > 1 {
        let rows = operation.waves.iter().map(|wave| {
            let all = wave.counts.iter().map(|count| count.count).sum::<u32>();
            let settled = if wave.is_settled { "" } else { " (open)" };
            vec![clean(&wave.name), all.to_string(), format!("{}{settled}", counts(&wave.counts))]
        });
        let _ = write!(text, "\n{}", table(&WAVES, rows.collect(), width));
    }
    let is_few = every || operation.databases.len() <= FEW;
    let shown: Vec<_> = operation.databases.iter().filter(|it| is_few || is_telling(it)).collect();
    if !shown.is_empty() {
        let _ = write!(text, "\n{}", databases(&shown, width));
    }
    let rest = operation.databases.len() - shown.len();
    if rest > 0 {
        let rest = count(rest, "database");
        let _ = writeln!(text, "\n{rest} more, of which there is nothing to say: --every lists them");
    }
    text.push_str(&approval::waiting(operation, width));
    text
}

fn header(operation: &proto::Operation, width: Option<u16>) -> String {
    let attempt = match operation.attempt {
        0 | 1 => String::new(),
        attempt => format!(", attempt {attempt}"),
    };
    let since = time(operation.changed_at.as_ref());
    let ended = operation.ended_at.as_ref().map(|ended| time(Some(ended))).unwrap_or_default();
    let said = [
        ("operation", clean(&operation.id)),
        ("verb", format!("{}{attempt}", clean(&operation.verb))),
        ("repair", clean(&operation.repair)),
        ("state", format!("{} since {since}", state(operation.state()))),
        ("why", sentence(&operation.why)),
        ("by", clean(&operation.requested_by)),
        ("reason", sentence(&operation.reason)),
        ("selected", selected(&operation.selection.clone().unwrap_or_default())),
        ("created", time(operation.created_at.as_ref())),
        ("ended", ended),
        ("databases", counts(&operation.counts)),
        ("protected", approval::protected(operation)),
        ("approval", approval::line(operation)),
        ("next", next(operation.state()).to_owned()),
    ];
    let mut text = String::new();
    for (label, what) in said.iter().filter(|(_, what)| !what.is_empty()) {
        let _ = writeln!(text, "{}", wrap(&format!("{label:<LABEL$}{what}"), width, LABEL));
    }
    text
}

/// What is said at the end of an operation that did not succeed, besides its databases' own failures.
pub fn end(report: &Report) -> Option<String> {
    let why = sentence(&report.why);
    let id = clean(&report.operation_id);
    let is_rolled_back = |it: &proto::DatabaseResult| it.outcome() == proto::DatabaseOutcome::RolledBack;
    let (message, hint) = match report.state {
        OperationState::Halted => {
            let then = "then nexusctl operation retry, resume or cancel";
            let hint = format!("nexusctl operation show {id} tells how each database stands; {then}");
            (format!("The operation is halted: {why}"), hint)
        }
        OperationState::Cancelled if !report.not_begun.is_empty() => {
            let hint = format!("nexusctl operation retry {id} runs what was cancelled or not begun");
            (format!("The operation was cancelled: {why}"), hint)
        }
        OperationState::Failed if report.databases.iter().any(is_rolled_back) => {
            let hint = format!("nexusctl operation show {id} tells how each database stands");
            (format!("The operation failed: {why}"), hint)
        }
        _ => return None,
    };
    Some(failure::block(None, &proto::Failure { message, hint, ..Default::default() }))
}

fn next(state: OperationState) -> &'static str {
    match state {
        OperationState::AwaitingApproval => "nexusctl operation approve, reject, or cancel",
        OperationState::Paused => "nexusctl operation resume, or cancel",
        OperationState::Halted => {
            "nexusctl operation retry tries again what failed, resume leaves it and goes on, cancel gives up"
        }
        OperationState::Failed | OperationState::Cancelled => {
            "nexusctl operation retry tries again what failed, was cancelled or was not begun"
        }
        _ => "",
    }
}

/// A database of which there is more to say than that it waits or is done.
fn is_telling(database: &proto::OperationDatabase) -> bool {
    use OperationDatabaseState::{Succeeded, UpToDate, Waiting};
    !matches!(database.state(), Waiting | Succeeded | UpToDate)
        || !database.waits_for.is_empty()
        || !database.gate_reason.is_empty()
}

fn databases(databases: &[&proto::OperationDatabase], width: Option<u16>) -> String {
    let rows = databases.iter().map(|database| {
        vec![
            clean(&database.name),
            clean(&database.wave),
            database_state(database.state()),
            database.applied.iter().map(|version| clean(version)).collect::<Vec<_>>().join(" "),
        ]
    });
    let mut text = String::new();
    for (index, line) in table(&DATABASES, rows.collect(), width).lines().enumerate() {
        let _ = writeln!(text, "{line}");
        // The header takes two lines.
        let database = index.checked_sub(2).and_then(|index| databases.get(index));
        for under in database.into_iter().flat_map(|database| under(database)) {
            let _ = writeln!(text, "{}", wrap(&format!("{:INDENT$}{under}", ""), width, INDENT));
        }
    }
    text
}

fn under(database: &proto::OperationDatabase) -> Vec<String> {
    let mut lines = Vec::new();
    if !database.waits_for.is_empty() {
        lines.push(format!("waits for {}", clean(&database.waits_for)));
    }
    if let Some(failure) = &database.failure {
        let version = if failure.version.is_empty() || failure.message.contains(&failure.version) {
            String::new()
        } else {
            format!(": {}", clean(&failure.version))
        };
        lines.push(format!("{}{version} [{}]", sentence(&failure.message), clean(&failure.code)));
        if !failure.server_message.is_empty() {
            lines.push(format!("why: {}", sentence(&failure.server_message)));
        }
    }
    if !database.gate_reason.is_empty() {
        lines.push(format!("gate: {}", sentence(&database.gate_reason)));
    }
    lines
}

fn selected(selection: &proto::Selection) -> String {
    if selection.all {
        return "all".to_owned();
    }
    let both = [selection.databases.join(","), selection.labels.join(",")];
    both.into_iter().filter(|part| !part.is_empty()).map(|part| clean(&part)).collect::<Vec<_>>().join(" ")
}

fn state(state: OperationState) -> String {
    word(state.as_str_name(), "OPERATION_STATE_").replace('_', " ")
}

fn database_state(state: OperationDatabaseState) -> String {
    word(state.as_str_name(), "OPERATION_DATABASE_STATE_").replace('_', " ")
}

/// `200: 1 failed, 199 waiting`; of one kind only the kind: `3 succeeded`.
fn counts(counts: &[proto::OperationDatabaseCount]) -> String {
    let all: u32 = counts.iter().map(|count| count.count).sum();
    let each: Vec<_> =
        counts.iter().map(|count| format!("{} {}", count.count, database_state(count.state()))).collect();
    if each.len() < 2 { each.join("") } else { format!("{all}: {}", each.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(state: OperationDatabaseState, count: u32) -> proto::OperationDatabaseCount {
        proto::OperationDatabaseCount { state: state.into(), count }
    }

    fn halted(databases: usize) -> proto::Operation {
        let failed = proto::OperationDatabase {
            name: "a-000".into(),
            wave: "canary".into(),
            state: OperationDatabaseState::Failed.into(),
            applied: vec!["0001_a".into()],
            failure: Some(proto::Failure {
                code: "NX0030".into(),
                message: "Migration failed and was rolled back".into(),
                version: "0002_b".into(),
                server_message: "division by zero".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let waiting = (1..databases).map(|number| proto::OperationDatabase {
            name: format!("a-{number:03}"),
            wave: "wave 1".into(),
            state: OperationDatabaseState::Waiting.into(),
            ..Default::default()
        });
        let rest = u32::try_from(databases - 1).expect("it fits");
        let (one, others) =
            (counted(OperationDatabaseState::Failed, 1), counted(OperationDatabaseState::Waiting, rest));
        let wave = |name: &str, counts: &proto::OperationDatabaseCount| proto::OperationWave {
            name: name.into(),
            counts: vec![*counts],
            ..Default::default()
        };
        proto::Operation {
            id: "01a2057a-e634-703b-b949-7edbe9f5581c".into(),
            verb: "apply".into(),
            requested_by: "eve@host".into(),
            reason: "CHG-123".into(),
            selection: Some(proto::Selection { all: true, ..Default::default() }),
            state: OperationState::Halted.into(),
            why: "1 of 1 databases failed in canary; a-000: no".into(),
            attempt: 2,
            waves: vec![wave("canary", &one), wave("wave 1", &others)],
            counts: vec![one, others],
            databases: std::iter::once(failed).chain(waiting).collect(),
            created_at: Some(prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 }),
            changed_at: Some(prost_types::Timestamp { seconds: 1_761_819_340, nanos: 0 }),
            ..Default::default()
        }
    }

    #[test]
    fn many_databases_are_readable() {
        let shown = text(&halted(200), false, None);
        let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
        let next = next(OperationState::Halted);
        let expected = [
            "operation  01a2057a-e634-703b-b949-7edbe9f5581c",
            "verb       apply, attempt 2",
            "state      halted since 2025-10-30 10:15:40Z",
            "why        1 of 1 databases failed in canary; a-000: no",
            "by         eve@host",
            "reason     CHG-123",
            "selected   all",
            "created    2025-10-30 10:15:30Z",
            "databases  200: 1 failed, 199 waiting",
            &format!("next       {next}"),
            "",
            "wave    databases  state",
            "─────────────────────────────────────",
            "canary          1  1 failed (open)",
            "wave 1        199  199 waiting (open)",
            "",
            "database  wave    state   applied",
            "─────────────────────────────────",
            "a-000     canary  failed  0001_a",
            "    Migration failed and was rolled back: 0002_b [NX0030]",
            "    why: division by zero",
            "",
            "199 databases more, of which there is nothing to say: --every lists them",
        ];
        assert_eq!(lines, expected, "{shown}");
        assert_eq!(text(&halted(200), true, None).matches(" wave 1  waiting").count(), 199);
        assert_eq!(text(&halted(3), false, None).matches(" wave 1  waiting").count(), 2);
    }

    #[test]
    fn lists_and_lines() {
        let expected = "01a2057a-e634-703b-b949-7edbe9f5581c apply halted: 1 of 1 databases failed in canary; \
                        a-000: no; 3: 1 failed, 2 waiting\n";
        assert_eq!(line(&halted(3)), expected);
        let listed = list(&[halted(3)], None);
        let last = listed.lines().last().unwrap_or_default();
        let expected = "  apply  halted  3: 1 failed, 2 waiting  2025-10-30 10:15:30Z  eve@host";
        assert!(last.contains(expected), "{listed}");
        assert_eq!(list(&[], None), "no operations\n");
    }
}
