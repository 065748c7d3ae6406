//! What the record says of an operation as a whole: its states, its waves, its gates.

use crate::{
    migration::{Event, EventKind, GateOutcome, OperationState, event::WaveOf},
    telemetry::jsonl::line::Line,
};

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
    use OperationState::{Cancelled, Cancelling, Failed, Halted, Paused, Pending, Running, Succeeded};
    match (from?, to) {
        (_, Paused) => Some(("warn", PAUSED)),
        (_, Halted) => Some(("error", HALTED)),
        (_, Cancelling) => Some(("warn", CANCELLING)),
        (Halted, Cancelled) => Some(("warn", CANCELLED)),
        (Running, Running) => Some(("warn", ROLLING_BACK)),
        (Paused | Halted | Failed | Cancelled, Running) => Some(("info", RESUMED)),
        (_, Pending | Running | Succeeded | Failed | Cancelled) => None,
    }
}

fn of_wave(line: Line, wave: &WaveOf) -> Line {
    line.with("wave", wave.name.as_str()).with("number", wave.number).with("total", wave.total)
}
