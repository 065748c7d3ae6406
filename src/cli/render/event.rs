//! What happens in an operation, as lines.

use std::{fmt::Write as _, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{
    cli::{
        render::{
            failure, plan,
            text::{YELLOW, clean, count, duration, sentence, time, timestamp},
        },
        report::{Report, Tally, Verb},
    },
    rpc::proto::{self, DatabaseOutcome, OperationState, StepAction, event::Kind},
};

/// An operation that began so long before its request was sent had run before.
const EARLIER: SignedDuration = SignedDuration::from_secs(2);

/// One line, or block of lines, with where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A part of the answer.
    Data(String),
    /// A remark.
    Note(String),
}

/// The lines for one event. `report` is what was heard before it; with `live`, what the bars show
/// is left out. `width` is the terminal's.
pub fn lines(event: &proto::Event, report: &Report, live: bool, width: Option<u16>) -> Vec<Line> {
    let database = clean(&event.database);
    let note = |text: String| if live { vec![] } else { vec![Line::Note(format!("{database}: {text}\n"))] };
    match &event.kind {
        Some(Kind::LockWaiting(waiting)) => {
            note(format!("waiting for the lock held by {}", clean(&waiting.holder)))
        }
        Some(Kind::StepRetrying(step)) => note(retrying(step)),
        Some(Kind::StepFinished(done)) => {
            let step = done.step.clone().unwrap_or_default();
            vec![Line::Data(step_done(&event.database, &step, done.duration_ms))]
        }
        Some(Kind::Notice(notice)) => {
            vec![Line::Note(warning(&event.database, &notice.version, &notice.message))]
        }
        Some(Kind::DatabaseFinished(result)) => finished(result, report, width),
        Some(kind) => operation_line(kind, event).map(Line::Note).into_iter().collect(),
        None => vec![],
    }
}

/// What is said of an operation as a whole: its states, its waves, its gates.
fn operation_line(kind: &Kind, event: &proto::Event) -> Option<String> {
    let of = |wave: &Option<proto::WaveOf>| {
        let proto::WaveOf { name, number, total } = wave.clone().unwrap_or_default();
        let name = clean(&name);
        format!("{number} of {total} ({name})")
    };
    Some(match kind {
        Kind::OperationStarted(begun) if begun.attempt > 1 => {
            format!("attempt {}: {}\n", begun.attempt, count(begun.databases.len(), "database"))
        }
        Kind::WaveStarted(begun) => {
            format!("wave {}: {}\n", of(&begun.wave), count(begun.databases as usize, "database"))
        }
        Kind::WaveFinished(done) if done.failed > 0 => {
            format!("wave {}: {} failed\n", of(&done.wave), done.failed)
        }
        Kind::GateChecked(gate) if gate.outcome() != proto::GateOutcome::Passed => {
            let did = match gate.outcome() {
                proto::GateOutcome::Inconclusive => "could not be decided",
                _ => "did not hold",
            };
            let (database, reason) = (clean(&event.database), sentence(&gate.reason));
            format!("{database}: the gate after wave {} {did}: {reason}\n", of(&gate.wave))
        }
        Kind::OperationChanged(changed) => {
            let why = sentence(&changed.why);
            let id = clean(&event.operation_id);
            match (changed.from(), changed.to()) {
                (_, OperationState::AwaitingApproval) => {
                    format!("{why}: nexusctl operation approve {id}\n")
                }
                (_, OperationState::Paused) => {
                    format!("paused: {why}; nexusctl operation resume {id} goes on\n")
                }
                (_, OperationState::Cancelling) => format!("{why}: stopping what is under way\n"),
                (OperationState::AwaitingApproval, OperationState::Pending)
                | (OperationState::Running, OperationState::Running) => format!("{why}\n"),
                (OperationState::Paused, OperationState::Running) => "resumed\n".to_owned(),
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// What was not told while the database was at work, and how it came out.
fn finished(result: &proto::DatabaseResult, report: &Report, width: Option<u16>) -> Vec<Line> {
    let database = result.database.as_str();
    // All of it is told now where the daemon tells an earlier outcome again.
    let is_unheard = |step: &proto::Step| !report.has_heard_step(database, step);
    let before = result.done_before.iter().filter(|step| is_unheard(step));
    let mut lines: Vec<_> = before
        .map(|step| {
            let what = what_was_done(step);
            Line::Data(format!("{}: {what} (before the operation changed hands)\n", clean(database)))
        })
        .collect();
    let done = result.done.iter().map(|done| (done.step.clone().unwrap_or_default(), done.duration_ms));
    let unheard = done.filter(|(step, _)| is_unheard(step));
    lines.extend(unheard.map(|(step, ms)| Line::Data(step_done(database, &step, ms))));
    let unheard = result.notices.iter().filter(|notice| !report.has_heard(database, notice));
    lines.extend(unheard.map(|notice| Line::Note(warning(database, "", notice))));
    match result.outcome() {
        DatabaseOutcome::UpToDate => {
            lines.push(Line::Data(format!("{}: {}\n", clean(database), nothing_to_do(report.verb))));
        }
        DatabaseOutcome::Planned => lines.push(Line::Data(plan::text(result, width))),
        _ => {}
    }
    if let Some(failure) = &result.failure {
        lines.push(Line::Note(failure::block(Some(database), failure)));
        if report.dry_run && !result.plan.is_empty() {
            lines.push(Line::Data(plan::text(result, width)));
        }
    }
    lines
}

fn what_was_done(step: &proto::Step) -> String {
    let version = clean(&step.version);
    match step.action() {
        StepAction::Unspecified => format!("done {version}"),
        StepAction::Apply => format!("applied {version}"),
        StepAction::Rollback => format!("rolled back {version}"),
        StepAction::ForgetAttempt => {
            format!("recovered {version}: nothing of it was kept, its row is removed")
        }
        StepAction::ClearMark => {
            format!("recovered {version}: it is still applied, its dirty mark is cleared")
        }
        StepAction::Undo => format!("recovered {version}: undone, its row is removed"),
        StepAction::Resume => format!("recovered {version}: gone on with, and applied"),
    }
}

fn step_done(database: &str, step: &proto::Step, ms: u64) -> String {
    let what = what_was_done(step);
    let took = duration(Duration::from_millis(ms));
    let source = match step.action() {
        StepAction::Rollback | StepAction::Undo => plan::source(step),
        _ => "",
    };
    let separator = if source.is_empty() { "" } else { ", " };
    format!("{}: {what} ({took}{separator}{source})\n", clean(database))
}

/// Why a step is tried again, and when.
pub fn retrying(step: &proto::StepRetrying) -> String {
    let cause = if step.sqlstate == "40P01" { "deadlock" } else { "lock timeout" };
    let wait = duration(Duration::from_millis(step.delay_ms));
    let mut text = format!("{}: {cause}, next try in {wait}", clean(&step.version));
    for (index, blocker) in step.blockers.iter().enumerate() {
        text.push_str(if index == 0 { "; blocked by " } else { ", " });
        text.push_str(&clean(blocker));
    }
    text
}

/// Something worth knowing that stopped nothing.
pub fn warning(database: &str, version: &str, message: &str) -> String {
    let about = if version.is_empty() || message.contains(version) {
        String::new()
    } else {
        format!("{}: ", clean(version))
    };
    format!("{YELLOW}warning:{YELLOW:#} {}: {about}{}\n", clean(database), sentence(message))
}

fn nothing_to_do(verb: Verb) -> &'static str {
    match verb {
        Verb::Apply => "up to date",
        Verb::Rollback => "nothing to roll back",
        Verb::Recover => "nothing to recover",
        Verb::Repair => "nothing to repair",
    }
}

/// That the events which `event` begins are those of an earlier run: where it is much older than the
/// request, which was sent at `sent`.
pub fn told_again(event: &proto::Event, sent: Timestamp) -> Option<String> {
    let began = timestamp(event.time.as_ref())?;
    let is_earlier =
        matches!(event.kind, Some(Kind::OperationStarted(_))) && sent.duration_since(began) > EARLIER;
    let at = time(event.time.as_ref());
    is_earlier.then(|| format!("this request had run before, at {at}: its outcome is told again\n"))
}

/// `recovered 1 migration, applied 2 migrations`, in the words given; empty where nothing is counted.
pub fn tally(tally: Tally, [recovered, rolled_back, applied]: [&str; 3]) -> String {
    let parts = [(recovered, tally.recovered), (rolled_back, tally.rolled_back), (applied, tally.applied)];
    let parts = parts.into_iter().filter(|(_, number)| *number > 0);
    parts
        .map(|(what, number)| format!("{what} {}", count(number, "migration")))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The last line: what was done in all, and how long it took, where that was now. One database with
/// nothing to do has said so already.
pub fn summary(report: &Report, took: Duration) -> String {
    let databases = &report.databases;
    let done = |result: &proto::DatabaseResult| -> Vec<StepAction> {
        let steps = result.done.iter().filter_map(|done| done.step.as_ref());
        result.done_before.iter().chain(steps).map(proto::Step::action).collect()
    };
    let counted: Tally = databases.iter().flat_map(done).collect();
    let worked = databases.iter().filter(|result| !done(result).is_empty()).count();
    let with = |outcome| databases.iter().filter(|result| result.outcome() == outcome).count();
    let (failed, idle) = (with(DatabaseOutcome::Failed), with(DatabaseOutcome::UpToDate));
    if report.dry_run || (databases.len() == 1 && worked == 0) {
        return String::new();
    }
    let nothing = match report.verb {
        Verb::Apply if counted.applied == 0 => "applied nothing",
        Verb::Rollback if counted.rolled_back == 0 => "rolled back nothing",
        Verb::Recover if counted == Tally::default() => "recovered nothing",
        _ => "",
    };
    let mut text = tally(counted, ["recovered", "rolled back", "applied"]);
    let is_idle = text.is_empty();
    if is_idle {
        text.push_str(nothing);
    }
    if worked > 0 {
        let _ = write!(text, " on {}", count(worked, "database"));
    }
    if report.earlier.is_none() {
        let _ = write!(text, " in {}", duration(took));
    }
    if !is_idle && !nothing.is_empty() {
        let _ = write!(text, "; {nothing}");
    }
    let rest = [
        ("up to date", idle),
        ("failed", failed),
        ("rolled back", with(DatabaseOutcome::RolledBack)),
        ("cancelled", with(DatabaseOutcome::Cancelled)),
        ("not begun", report.not_begun.len()),
    ];
    for (what, number) in rest.into_iter().filter(|(_, number)| *number > 0) {
        let _ = write!(text, "; {number} {what}");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(action: StepAction, source: proto::ScriptSource) -> proto::Step {
        proto::Step {
            version: "0010_add_products".into(),
            action: action.into(),
            source: source.into(),
            ..Default::default()
        }
    }

    fn event(kind: Kind) -> proto::Event {
        proto::Event { database: "orders".into(), kind: Some(kind), ..Default::default() }
    }

    fn texts(event: &proto::Event, report: &Report) -> Vec<String> {
        let text = |line| match line {
            Line::Data(text) | Line::Note(text) => anstream::adapter::strip_str(&text).to_string(),
        };
        lines(event, report, false, None).into_iter().map(text).collect()
    }

    #[test]
    fn steps() {
        let check = |action, source, expected: &str| {
            let done = proto::StepFinished { step: Some(step(action, source)), duration_ms: 12 };
            let report = Report::new(Verb::Apply, false);
            assert_eq!(texts(&event(Kind::StepFinished(done)), &report), [format!("orders: {expected}\n")]);
        };
        let (file, journal) = (proto::ScriptSource::File, proto::ScriptSource::Journal);
        check(StepAction::Apply, file, "applied 0010_add_products (12 ms)");
        check(StepAction::Rollback, file, "rolled back 0010_add_products (12 ms, down file)");
        check(
            StepAction::Rollback,
            journal,
            "rolled back 0010_add_products (12 ms, down kept in the journal)",
        );
    }

    #[test]
    fn waiting_and_retrying() {
        let report = Report::new(Verb::Apply, false);
        let waiting = proto::LockWaiting { holder: "pid 7 (nexusd)".into() };
        let expected = ["orders: waiting for the lock held by pid 7 (nexusd)\n"];
        assert_eq!(texts(&event(Kind::LockWaiting(waiting)), &report), expected);
        let retry = proto::StepRetrying {
            version: "0010_x".into(),
            attempt: 1,
            delay_ms: 1_500,
            blockers: vec!["pid 8 (psql)".into()],
            sqlstate: "55P03".into(),
        };
        let expected = ["orders: 0010_x: lock timeout, next try in 1.5 s; blocked by pid 8 (psql)\n"];
        assert_eq!(texts(&event(Kind::StepRetrying(retry)), &report), expected);
    }

    #[test]
    fn an_outcome_that_is_told_again_is_told_once() {
        let done = |version: &str, ms| proto::StepResult {
            step: Some(proto::Step {
                version: version.into(),
                ..step(StepAction::Apply, proto::ScriptSource::File)
            }),
            duration_ms: ms,
        };
        let (first, second) = (done("0009_heard", 1), done("0010_add_products", 2));
        let result = proto::DatabaseResult {
            database: "orders".into(),
            outcome: DatabaseOutcome::Succeeded.into(),
            done: vec![first.clone(), second],
            notices: vec!["heard".into(), "new".into()],
            ..Default::default()
        };
        let mut report = Report::new(Verb::Apply, false);
        report.take(&event(Kind::StepFinished(proto::StepFinished { step: first.step, duration_ms: 1 })));
        report.take(&event(Kind::Notice(proto::Notice { message: "heard".into(), ..Default::default() })));
        let finished = event(Kind::DatabaseFinished(result));
        let expected = ["orders: applied 0010_add_products (2 ms)\n", "warning: orders: new\n"];
        assert_eq!(texts(&finished, &report), expected);
        report.take(&finished);
        let summary = summary(&report, Duration::from_millis(34));
        assert_eq!(summary, "applied 2 migrations on 1 database in 34 ms\n");
    }

    #[test]
    fn what_was_done_before_the_operation_changed_hands_is_told_and_counted() {
        let before = |version: &str| proto::Step {
            version: version.into(),
            action: StepAction::Apply.into(),
            ..Default::default()
        };
        let done = proto::StepResult {
            step: Some(step(StepAction::Apply, proto::ScriptSource::File)),
            duration_ms: 2,
        };
        let result = proto::DatabaseResult {
            database: "orders".into(),
            outcome: DatabaseOutcome::Succeeded.into(),
            done: vec![done],
            done_before: vec![before("0008_heard"), before("0009_lost")],
            ..Default::default()
        };
        let mut report = Report::new(Verb::Apply, false);
        let heard = proto::Step {
            version: "0008_heard".into(),
            ..step(StepAction::Resume, proto::ScriptSource::File)
        };
        report.take(&event(Kind::StepFinished(proto::StepFinished { step: Some(heard), duration_ms: 1 })));
        let finished = event(Kind::DatabaseFinished(result));
        let expected = [
            "orders: applied 0009_lost (before the operation changed hands)\n",
            "orders: applied 0010_add_products (2 ms)\n",
        ];
        assert_eq!(texts(&finished, &report), expected);
        report.take(&finished);
        let summary = summary(&report, Duration::from_millis(34));
        assert_eq!(summary, "applied 3 migrations on 1 database in 34 ms\n");
    }

    #[test]
    fn every_failed_database_has_its_block_and_the_summary_counts_them() {
        let mut report = Report::new(Verb::Apply, false);
        let failure = proto::Failure { message: "No route".into(), ..Default::default() };
        for (database, outcome, failure) in
            [("orders", DatabaseOutcome::Failed, Some(failure)), ("users", DatabaseOutcome::UpToDate, None)]
        {
            let result = proto::DatabaseResult {
                database: database.into(),
                outcome: outcome.into(),
                failure,
                ..Default::default()
            };
            let finished = event(Kind::DatabaseFinished(result));
            let shown = texts(&finished, &report);
            let expected =
                if database == "orders" { "error: orders: No route\n" } else { "users: up to date\n" };
            assert_eq!(shown, [expected]);
            report.take(&finished);
        }
        let summary = summary(&report, Duration::from_millis(5));
        assert_eq!(summary, "applied nothing in 5 ms; 1 up to date; 1 failed\n");
    }

    #[test]
    fn steps_are_counted_by_what_they_did() {
        use StepAction::{Apply, ClearMark, ForgetAttempt, Resume, Rollback, Undo};
        let check = |verb, actions: &[StepAction], failure: Option<proto::Failure>, expected: &str| {
            let done = |&action| proto::StepResult {
                step: Some(step(action, proto::ScriptSource::File)),
                duration_ms: 1,
            };
            let outcome =
                if failure.is_some() { DatabaseOutcome::Failed } else { DatabaseOutcome::Succeeded }.into();
            let done = actions.iter().map(done).collect();
            let result = proto::DatabaseResult {
                database: "orders".into(),
                outcome,
                done,
                failure,
                ..Default::default()
            };
            let mut report = Report::new(verb, false);
            report.take(&event(Kind::DatabaseFinished(result)));
            assert_eq!(summary(&report, Duration::from_millis(7)), format!("{expected}\n"));
        };
        let failed = || Some(proto::Failure::default());
        let on = "on 1 database in 7 ms";
        check(Verb::Apply, &[Apply, Resume], None, &format!("applied 2 migrations {on}"));
        let expected = format!("recovered 1 migration {on}; applied nothing; 1 failed");
        check(Verb::Apply, &[ForgetAttempt], failed(), &expected);
        let expected = format!("recovered 2 migrations, applied 1 migration {on}");
        check(Verb::Apply, &[ClearMark, Undo, Apply], None, &expected);
        let expected = format!("recovered 1 migration {on}; rolled back nothing");
        check(Verb::Rollback, &[ForgetAttempt], None, &expected);
        check(Verb::Rollback, &[Rollback], None, &format!("rolled back 1 migration {on}"));
        check(Verb::Recover, &[Resume], None, &format!("applied 1 migration {on}"));
    }

    #[test]
    fn an_earlier_run_is_known_by_its_time() {
        let began = prost_types::Timestamp { seconds: 1_761_819_330, nanos: 0 };
        let kind = Some(Kind::OperationStarted(proto::OperationStarted::default()));
        let started = proto::Event { time: Some(began), kind, ..Default::default() };
        let after = |ms: i64| Timestamp::from_millisecond(1_761_819_330_000 + ms).expect("a time");
        let expected = "this request had run before, at 2025-10-30 10:15:30Z: its outcome is told again\n";
        assert_eq!(told_again(&started, after(2_001)).as_deref(), Some(expected));
        assert_eq!(told_again(&started, after(1_999)), None);
        assert_eq!(told_again(&started, after(-5_000)), None);
        let other = proto::Event { kind: Some(Kind::Notice(proto::Notice::default())), ..started };
        assert_eq!(told_again(&other, after(9_000)), None);
    }

    #[test]
    fn a_dry_run_tells_the_refusal_first() {
        let failure = proto::Failure { message: "It is dirty".into(), ..Default::default() };
        let result = proto::DatabaseResult {
            database: "orders".into(),
            outcome: DatabaseOutcome::Failed.into(),
            failure: Some(failure),
            plan: vec![step(StepAction::Apply, proto::ScriptSource::File)],
            ..Default::default()
        };
        let shown = texts(&event(Kind::DatabaseFinished(result)), &Report::new(Verb::Apply, true));
        assert_eq!(shown[0], "error: orders: It is dirty\n");
        assert!(shown[1].starts_with("orders: 1 step, but the plan would be refused\n"), "{shown:?}");
    }
}
