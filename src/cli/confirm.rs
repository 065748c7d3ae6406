//! The question before something is undone: asked on a terminal only, and never of a script.

use std::io;

use crate::{
    cli::{
        Refusal,
        console::Console,
        render::{self, text::count},
        session::Session,
    },
    rpc::proto,
};

/// Whether a question has to be asked: on a terminal, without `--yes`.
pub fn is_wanted(session: &Session) -> bool {
    !session.global.yes && session.console.can_ask()
}

/// Shows what will be done and asks. Where no plan holds a step nothing is asked: the daemon's own
/// answer then says why.
pub async fn plans(session: &mut Session, plans: &[proto::DatabaseResult], verb: &str) -> anyhow::Result<()> {
    let concerned: Vec<_> = plans.iter().filter(|plan| !plan.plan.is_empty()).collect();
    if concerned.is_empty() {
        return Ok(());
    }
    for plan in &concerned {
        session.console.note(&render::plan::text(plan));
    }
    let steps = concerned.iter().map(|plan| plan.plan.len()).sum();
    let (steps, databases) = (count(steps, "migration"), count(concerned.len(), "database"));
    ask(&mut session.console, &format!("{verb} {steps} on {databases}?")).await
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
