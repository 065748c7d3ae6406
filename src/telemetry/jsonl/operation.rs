//! What the record says of an operation as a whole: its states, its waves, its gates.

use crate::{
    migration::{Event, EventKind, GateOutcome, OperationState, event::WaveOf},
    telemetry::jsonl::line::Line,
};

const AWAITS_APPROVAL: &str = "Operation awaits approval";
const APPROVED: &str = "Operation approved";
const STARTED: &str = "Operation started";
const PAUSED: &str = "Operation paused";
const RESUMED: &str = "Operation resumed";
const HALTED: &str = "Operation halted";
const CANCELLING: &str = "Operation is being cancelled";
const CANCELLED: &str = "Operation cancelled";
const ROLLING_BACK: &str = "Operation rolls back what it applied";
const FINISHED: &str = "Operation finished";
const WAVE_STARTED: &str = "Wave started";
const WAVE_FINISHED: &str = "Wave finished";
const GATE_CHECKED: &str = "Gate checked";

/// The line of an event of an operation; none of another one, and of states that other lines tell of.
pub(super) fn line(event: &Event) -> Option<Line> {
    let line = |level, message: &str| Line::new(event.time, level, message);
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Some(match &event.kind {
        EventKind::OperationStarted { verb, databases, requested_by, reason, waves, attempt } => {
            line("info", STARTED)
                .with("verb", *verb)
                .with("databases", databases.as_slice())
                .with("requested_by", requested_by.as_str())
                .with_some("reason", given(reason))
                .with_some("waves", Some(*waves).filter(|waves| *waves > 1))
                .with_some("attempt", Some(*attempt).filter(|attempt| *attempt > 1))
                .of(event)
        }
        EventKind::OperationChanged { from, to, why, by } => {
            let (level, message) = changed(*from, *to)?;
            line(level, message).with_some("why", given(why)).with_some("by", given(by)).of(event)
        }
        EventKind::WaveStarted { wave, databases } => {
            of_wave(line("info", WAVE_STARTED), wave).with("databases", *databases).of(event)
        }
        EventKind::WaveFinished { wave, failed } => {
            let level = if *failed > 0 { "warn" } else { "info" };
            of_wave(line(level, WAVE_FINISHED), wave).with("failed", *failed).of(event)
        }
        EventKind::GateChecked { wave, outcome, reason } => {
            let level = match outcome {
                GateOutcome::Passed => "info",
                GateOutcome::Inconclusive => "warn",
                GateOutcome::Failed => "error",
            };
            let line = of_wave(line(level, GATE_CHECKED), wave).with("outcome", outcome.name());
            line.with_some("why", given(reason)).of(event)
        }
        EventKind::OperationFinished { state, why, not_begun, .. } => {
            let succeeded = *state == OperationState::Succeeded;
            line(if succeeded { "info" } else { "error" }, FINISHED)
                .with("succeeded", succeeded)
                .with("state", state.name())
                .with_some("why", given(why))
                .with_some("not_begun", Some(not_begun.len()).filter(|count| *count > 0))
                .of(event)
        }
        _ => return None,
    })
}

/// The level and the message of a change that no other line tells of.
fn changed(from: Option<OperationState>, to: OperationState) -> Option<(&'static str, &'static str)> {
    use OperationState::{
        AwaitingApproval, Cancelled, Cancelling, Failed, Halted, Paused, Pending, Running, Succeeded,
    };
    if to == AwaitingApproval {
        return Some(("warn", AWAITS_APPROVAL));
    }
    match (from?, to) {
        (AwaitingApproval, Pending) => Some(("info", APPROVED)),
        (_, Paused) => Some(("warn", PAUSED)),
        (_, Halted) => Some(("error", HALTED)),
        (_, Cancelling) => Some(("warn", CANCELLING)),
        (Halted, Cancelled) => Some(("warn", CANCELLED)),
        (Running, Running) => Some(("warn", ROLLING_BACK)),
        (Paused | Halted | Failed | Cancelled, Running) => Some(("info", RESUMED)),
        (_, AwaitingApproval | Pending | Running | Succeeded | Failed | Cancelled) => None,
    }
}

fn of_wave(line: Line, wave: &WaveOf) -> Line {
    line.with("wave", wave.name.as_str()).with("number", wave.number).with("total", wave.total)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    const PLACE: &str = r#""database":"orders","operation":"00000000-0000-0000-0000-000000000007""#;

    fn check(kind: EventKind, expected: &[String]) {
        let (operation, time, database) = (Uuid::from_u128(7), Timestamp::UNIX_EPOCH, "orders".to_owned());
        let line = line(&Event { operation, trace: None, time, database, kind });
        let text = line.map(|line| String::from_utf8(line.encode(|_| {})).expect("it is text"));
        let start = r#"{"timestamp":"1970-01-01T00:00:00.000Z","#;
        let expected: Vec<_> = expected.iter().map(|line| format!("{start}{line}}}\n")).collect();
        assert_eq!(text.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_states_of_operations() {
        use OperationState::{
            AwaitingApproval, Cancelled, Cancelling, Failed, Halted, Paused, Pending, Running, Succeeded,
        };
        let again = EventKind::OperationStarted {
            verb: "apply",
            databases: vec!["orders".into()],
            requested_by: "ana".into(),
            reason: "CHG-123".into(),
            waves: 3,
            attempt: 2,
        };
        let expected = format!(
            r#""level":"info","message":"Operation started","verb":"apply","databases":["orders"],"requested_by":"ana","reason":"CHG-123","waves":3,"attempt":2,{PLACE}"#
        );
        check(again, &[expected]);
        let changed = |from, to, expected: &[(&str, &str)]| {
            let lines = expected.iter().map(|(level, message)| {
                format!(r#""level":"{level}","message":"{message}","why":"so it is","by":"ana",{PLACE}"#)
            });
            let (why, by) = ("so it is".to_owned(), "ana".to_owned());
            check(EventKind::OperationChanged { from, to, why, by }, &lines.collect::<Vec<_>>());
        };
        changed(None, Pending, &[]);
        for before in [None, Some(Failed)] {
            changed(before, AwaitingApproval, &[("warn", "Operation awaits approval")]);
        }
        changed(Some(AwaitingApproval), Pending, &[("info", "Operation approved")]);
        changed(Some(AwaitingApproval), Cancelling, &[("warn", "Operation is being cancelled")]);
        changed(Some(Pending), Running, &[]);
        changed(Some(Running), Paused, &[("warn", "Operation paused")]);
        changed(Some(Paused), Running, &[("info", "Operation resumed")]);
        changed(Some(Running), Halted, &[("error", "Operation halted")]);
        changed(Some(Halted), Running, &[("info", "Operation resumed")]);
        changed(Some(Halted), Cancelled, &[("warn", "Operation cancelled")]);
        changed(Some(Running), Running, &[("warn", "Operation rolls back what it applied")]);
        changed(Some(Running), Cancelling, &[("warn", "Operation is being cancelled")]);
        for over in [Succeeded, Failed] {
            changed(Some(Running), over, &[]);
        }
        changed(Some(Cancelling), Cancelled, &[]);
    }

    #[test]
    fn waves_and_gates() {
        let wave = || WaveOf { name: "region=eu".into(), number: 2, total: 3 };
        let line = |level: &str, message: &str, rest: &str| {
            let wave = r#""wave":"region=eu","number":2,"total":3"#;
            format!(r#""level":"{level}","message":"{message}",{wave},{rest},{PLACE}"#)
        };
        let started = EventKind::WaveStarted { wave: wave(), databases: 40 };
        check(started, &[line("info", "Wave started", r#""databases":40"#)]);
        let finished = |failed| EventKind::WaveFinished { wave: wave(), failed };
        check(finished(0), &[line("info", "Wave finished", r#""failed":0"#)]);
        check(finished(1), &[line("warn", "Wave finished", r#""failed":1"#)]);
        let gate = |outcome, reason: &str| {
            let reason = reason.to_owned();
            EventKind::GateChecked { wave: wave(), outcome, reason }
        };
        check(gate(GateOutcome::Passed, ""), &[line("info", "Gate checked", r#""outcome":"passed""#)]);
        let failed = line("error", "Gate checked", r#""outcome":"failed","why":"it is false""#);
        check(gate(GateOutcome::Failed, "it is false"), &[failed]);
        let open = line("warn", "Gate checked", r#""outcome":"inconclusive","why":"it hangs""#);
        check(gate(GateOutcome::Inconclusive, "it hangs"), &[open]);
    }
}
