//! The question before something is undone: asked on a terminal only, and never of a script.

use std::io;

use crate::{
    cli::{
        Refusal,
        console::Console,
        render::{self, text::count},
        report::Tally,
        session::Session,
    },
    rpc::proto,
};

/// Whether a question has to be asked: on a terminal, without `--yes`.
pub fn is_wanted(session: &Session) -> bool {
    !session.global.yes && session.console.can_ask()
}

/// Shows what will be done and asks. Where no plan holds a step that would be done nothing is asked:
/// the daemon's own answer then says why.
pub async fn plans(session: &mut Session, mut plan: proto::PlanResponse) -> anyhow::Result<()> {
    let Some(question) = question(&plan.databases) else { return Ok(()) };
    let console = &mut session.console;
    let width = console.width();
    for database in &plan.databases {
        if let Some(failure) = &database.failure {
            console.note(&render::failure::block(Some(&database.database), failure));
        }
    }
    plan.databases.retain(|database| !database.plan.is_empty());
    plan.digest.clear();
    console.note(&render::plan::fleet(&plan, width));
    ask(console, &question).await
}

/// What is asked about plans; none where nothing would be done.
fn question(plans: &[proto::DatabaseResult]) -> Option<String> {
    let concerned: Vec<_> =
        plans.iter().filter(|plan| plan.failure.is_none() && !plan.plan.is_empty()).collect();
    if concerned.is_empty() {
        return None;
    }
    let steps: Tally = concerned.iter().flat_map(|plan| &plan.plan).map(proto::Step::action).collect();
    let mut what = render::event::tally(steps, ["recover", "roll back", "apply"]);
    match what.get_mut(..1) {
        Some(first) => first.make_ascii_uppercase(),
        // Steps of a newer daemon.
        None => what.push_str("Go on"),
    }
    Some(format!("{what} on {}?", count(concerned.len(), "database")))
}

/// Asks one question; anything but yes ends the command.
pub async fn ask(console: &mut Console, question: &str) -> anyhow::Result<()> {
    console.note(&format!("{question} [y/N] "));
    // Off the runtime's only thread, which answers the daemon's pings meanwhile.
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    })
    .await??;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    if !answer.ends_with('\n') {
        console.note("\n");
    }
    Err(Refusal::new("Nothing was done", "answer y, or give --yes").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::StepAction;

    #[test]
    fn the_question_says_what_would_be_done() {
        let plan = |actions: &[StepAction], failure| proto::DatabaseResult {
            plan: actions
                .iter()
                .map(|&action| proto::Step { action: action.into(), ..Default::default() })
                .collect(),
            failure,
            ..Default::default()
        };
        let steps = [StepAction::ForgetAttempt, StepAction::Rollback, StepAction::Rollback];
        let refused = plan(&steps, Some(proto::Failure::default()));
        let plans = [plan(&steps, None), refused.clone(), plan(&[], None)];
        let expected = "Recover 1 migration, roll back 2 migrations on 1 database?";
        assert_eq!(question(&plans).as_deref(), Some(expected));
        assert_eq!(question(&[refused]), None, "the daemon says why");
    }
}
