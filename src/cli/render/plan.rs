//! Plans: what will be done, in order, with what the files' headers say of it.

use std::fmt::Write as _;

use crate::{
    cli::render::text::{RED, bytes, clean, count, sentence, wrap},
    rpc::proto::{self, DatabaseOutcome, ScriptSource, StepAction},
};

/// One database's plan, on a terminal of `width` columns. Why a plan would be refused is not part of
/// it, and is shown before it.
pub fn text(result: &proto::DatabaseResult, width: Option<u16>) -> String {
    let database = clean(&result.database);
    let is_refused = result.failure.is_some() || result.outcome() == DatabaseOutcome::Failed;
    if result.plan.is_empty() {
        return if is_refused { String::new() } else { format!("{database}: nothing to do\n") };
    }
    let refused = if is_refused { ", but the plan would be refused" } else { "" };
    let mut text = format!("{database}: {}{refused}\n", count(result.plan.len(), "step"));
    let digits = result.plan.len().to_string().len();
    for (index, step) in result.plan.iter().enumerate() {
        let line = format!("  {:>digits$}. {}{}", index + 1, step_title(step), script(step));
        let _ = writeln!(text, "{}", wrap(&line, width, digits + 4));
        for (label, value) in remarks(step) {
            let line = wrap(&format!("  {:digits$}  {label}: {value}", ""), width, digits + 4);
            let _ = match label {
                "Data Loss" => {
                    writeln!(text, "{}", line.replacen("Data Loss:", &format!("{RED}Data Loss:{RED:#}"), 1))
                }
                _ => writeln!(text, "{line}"),
            };
        }
    }
    text
}

/// What a step does, in a few words.
pub fn step_title(step: &proto::Step) -> String {
    let version = clean(&step.version);
    match step.action() {
        StepAction::Unspecified => version,
        StepAction::Apply => format!("apply {version}"),
        StepAction::Rollback => format!("roll back {version}"),
        StepAction::ForgetAttempt => format!("recover {version}: remove its row, no SQL is run"),
        StepAction::ClearMark => format!("recover {version}: clear its dirty mark, no SQL is run"),
        StepAction::Undo => format!("recover {version}: run its down migration, remove its row"),
        StepAction::Resume => format!("recover {version}: go on after its last finished statement"),
    }
}

/// Where a step's SQL comes from; empty for a step that runs none.
pub fn source(step: &proto::Step) -> &'static str {
    match (step.source(), step.action()) {
        (ScriptSource::Unspecified, _) => "",
        (ScriptSource::Journal, _) => "down kept in the journal",
        (ScriptSource::File, StepAction::Rollback | StepAction::Undo) => "down file",
        (ScriptSource::File, _) => "up file",
    }
}

fn script(step: &proto::Step) -> String {
    if step.source() == ScriptSource::Unspecified {
        return String::new();
    }
    let mode = if step.transactional { "" } else { ", outside a transaction" };
    format!(" ({}, {}{mode})", source(step), bytes(step.size_bytes))
}

/// What the header says that matters in this direction, and why the step is there.
fn remarks(step: &proto::Step) -> Vec<(&'static str, String)> {
    let impact = match step.action() {
        StepAction::Rollback | StepAction::Undo => ("Rollback Impact", &step.rollback_impact),
        _ => ("Impact", &step.impact),
    };
    let headers = [("Description", &step.description), impact, ("Data Loss", &step.data_loss)];
    headers
        .into_iter()
        .chain([("Reason", &step.reason)])
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| (label, sentence(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_shows_what_is_lost() {
        let step = proto::Step {
            version: "0010_add_products".into(),
            action: StepAction::Rollback.into(),
            transactional: true,
            source: ScriptSource::Journal.into(),
            reason: "the file is gone".into(),
            description: "Creates products table".into(),
            impact: "none".into(),
            rollback_impact: "products vanish".into(),
            data_loss: "all products".into(),
            size_bytes: 412,
        };
        let forget = proto::Step {
            version: "0011_x".into(),
            action: StepAction::ForgetAttempt.into(),
            ..Default::default()
        };
        let result = proto::DatabaseResult {
            database: "orders".into(),
            outcome: DatabaseOutcome::Planned.into(),
            plan: vec![step, forget],
            ..Default::default()
        };
        let expected = "\
orders: 2 steps
  1. roll back 0010_add_products (down kept in the journal, 412 B)
     Description: Creates products table
     Rollback Impact: products vanish
     Data Loss: all products
     Reason: the file is gone
  2. recover 0011_x: remove its row, no SQL is run
";
        assert_eq!(anstream::adapter::strip_str(&text(&result, None)).to_string(), expected);
        let narrow = anstream::adapter::strip_str(&text(&result, Some(40))).to_string();
        assert!(narrow.contains("0010_add_products (down\n     kept in the journal, 412 B)\n"), "{narrow}");
        let nothing = proto::DatabaseResult { database: "orders".into(), ..Default::default() };
        assert_eq!(text(&nothing, None), "orders: nothing to do\n");
        let failure = Some(proto::Failure::default());
        let refused = proto::DatabaseResult { failure, outcome: DatabaseOutcome::Failed.into(), ..result };
        let shown = text(&refused, None);
        assert!(shown.starts_with("orders: 2 steps, but the plan would be refused\n  1. roll"), "{shown}");
    }
}
