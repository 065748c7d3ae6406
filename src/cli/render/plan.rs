//! Plans: what will be done, in order, with what the files' headers say of it.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{
    cli::render::text::{BOLD, RED, bytes, clean, count, sentence, wrap},
    rpc::proto::{self, DatabaseOutcome, ScriptSource, StepAction},
};

/// Up to so many databases each have their own plan, though several are the same.
const EACH: usize = 12;

/// How many names of databases with the same plan are shown.
const NAMES: usize = 6;

/// The plans of all databases, in their waves: those that are the same once. Then the digest.
pub fn fleet(plan: &proto::PlanResponse, width: Option<u16>) -> String {
    let results: BTreeMap<_, _> = plan.databases.iter().map(|it| (it.database.as_str(), it)).collect();
    let is_short = plan.databases.len() <= EACH;
    let mut text = String::new();
    if plan.waves.len() < 2 {
        text.push_str(&groups(plan.databases.iter(), is_short, width));
    }
    for wave in plan.waves.iter().filter(|_| plan.waves.len() > 1) {
        let databases = count(wave.databases.len(), "database");
        let _ = writeln!(text, "{}{BOLD}{}{BOLD:#}: {databases}", gap(&text), clean(&wave.name));
        let results = wave.databases.iter().filter_map(|name| results.get(name.as_str()).copied());
        text.push_str(&groups(results, is_short, width));
    }
    if !plan.digest.is_empty() {
        if plan.waves.len() > 1 {
            let strategy = format!("strategy: {}", clean(&plan.strategy));
            let _ = writeln!(text, "\n{}", wrap(&strategy, width, 10));
        }
        let _ = writeln!(text, "digest: {}", clean(&plan.digest));
    }
    text
}

fn gap(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "\n" }
}

/// Plans in the order of their first databases; the same ones together, unless there are few.
fn groups<'a>(
    results: impl Iterator<Item = &'a proto::DatabaseResult>,
    is_short: bool,
    width: Option<u16>,
) -> String {
    let mut groups: Vec<Vec<&proto::DatabaseResult>> = Vec::new();
    for result in results {
        let same = |group: &&mut Vec<&proto::DatabaseResult>| {
            let first = group.first().is_some_and(|first| {
                first.plan == result.plan && first.failure.is_none() && result.failure.is_none()
            });
            first && !is_short
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(result),
            None => groups.push(vec![result]),
        }
    }
    let group = |group: &Vec<&proto::DatabaseResult>| {
        let names: Vec<_> = group.iter().take(NAMES).map(|it| clean(&it.database)).collect();
        let names = match group.len().saturating_sub(NAMES) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        };
        group.first().map(|first| titled(&names, first, width)).unwrap_or_default()
    };
    groups.iter().map(group).collect()
}

/// One database's plan, on a terminal of `width` columns. Why a plan would be refused is not part of
/// it, and is shown before it.
pub fn text(result: &proto::DatabaseResult, width: Option<u16>) -> String {
    titled(&clean(&result.database), result, width)
}

fn titled(database: &str, result: &proto::DatabaseResult, width: Option<u16>) -> String {
    let is_refused = result.failure.is_some() || result.outcome() == DatabaseOutcome::Failed;
    if result.plan.is_empty() {
        let nothing = wrap(&format!("{database}: nothing to do"), width, 2);
        return if is_refused { String::new() } else { nothing + "\n" };
    }
    let refused = if is_refused { ", but the plan would be refused" } else { "" };
    let title = format!("{database}: {}{refused}", count(result.plan.len(), "step"));
    let mut text = wrap(&title, width, 2) + "\n";
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
    #[test]
    fn the_same_plans_are_shown_once() {
        let step = |version: &str| proto::Step {
            version: version.into(),
            action: StepAction::Apply.into(),
            transactional: true,
            ..Default::default()
        };
        let result = |name: String, steps: &[&str]| proto::DatabaseResult {
            database: name,
            outcome: DatabaseOutcome::Planned.into(),
            plan: steps.iter().map(|version| step(version)).collect(),
            ..Default::default()
        };
        let wave = |name: &str, databases: &[proto::DatabaseResult]| proto::Wave {
            name: name.into(),
            is_canary: false,
            databases: databases.iter().map(|it| it.database.clone()).collect(),
        };
        let mut databases: Vec<_> = (1..=14).map(|n| result(format!("db-{n:02}"), &["0001_a"])).collect();
        databases[0].plan = vec![step("0001_a"), step("0002_b")];
        databases[5].plan = Vec::new();
        databases[9].failure = Some(proto::Failure::default());
        let waves = vec![wave("canary", &databases[..1]), wave("wave 1", &databases[1..])];
        let (digest, strategy) = ("d1".to_owned(), "a canary of 1, then one wave".to_owned());
        let plan = proto::PlanResponse { databases, waves, digest, strategy };
        let shown = anstream::adapter::strip_str(&fleet(&plan, None)).to_string();
        let expected = "\
canary: 1 database
db-01: 2 steps
  1. apply 0001_a
  2. apply 0002_b

wave 1: 13 databases
db-02, db-03, db-04, db-05, db-07, db-08 and 5 more: 1 step
  1. apply 0001_a
db-06: nothing to do
db-10: 1 step, but the plan would be refused
  1. apply 0001_a

strategy: a canary of 1, then one wave
digest: d1
";
        assert_eq!(shown, expected);
        let few = proto::PlanResponse { databases: plan.databases[1..3].to_vec(), ..Default::default() };
        assert_eq!(fleet(&few, None), "db-02: 1 step\n  1. apply 0001_a\ndb-03: 1 step\n  1. apply 0001_a\n");
    }
}
