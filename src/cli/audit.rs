//! `nexusctl audit`: read-only checks of databases, now or on the daemon's schedules, as text, JSON,
//! JUnit and SARIF.

use clap::{Subcommand, ValueEnum};

use crate::{
    cli::{Exit, args, render, session::Session},
    rpc::proto,
};

/// What to do with audits.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Check databases now: everything that may be wrong, with indexes and constraints; takes no lock
    #[command(defer(args::of_reading))]
    Run(View),
    /// List the audits that the daemon remembers, newest first, and its schedules
    #[command(defer(args::of_no_database))]
    List(List),
    /// Show one audit that the daemon remembers
    #[command(defer(args::of_no_database))]
    Show(Show),
}

/// How an audit is shown, and what is made of it.
#[derive(Debug, clap::Args)]
pub struct View {
    /// Exit with 3 if a finding is as grave as --fail-on, or a database could not be read
    #[arg(long)]
    check: bool,
    /// How grave a finding has to be for --check, and to be a failure in JUnit
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Threshold::Warning)]
    fail_on: Threshold,
    /// A report for other tools, in place of the answer; with --output json, a refusal is still JSON
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Report>,
}

/// The arguments of `audit list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// At most this many audits
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// The arguments of `audit show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Its id, or the beginning of it where that is enough; the newest without one
    #[arg(value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    #[command(flatten)]
    view: View,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Threshold {
    /// Anything
    Info,
    /// What is to be seen to in working hours
    Warning,
    /// What is to be seen to at once
    Critical,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Report {
    /// JUnit XML: a test suite for each database
    Junit,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

impl From<Threshold> for proto::Severity {
    fn from(threshold: Threshold) -> Self {
        match threshold {
            Threshold::Info => Self::Info,
            Threshold::Warning => Self::Warning,
            Threshold::Critical => Self::Critical,
        }
    }
}

/// Does it.
pub async fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    match action {
        Action::Run(view) => {
            let request = proto::RunAuditRequest { selection: session.selection() };
            let audit = client.answer(client.audits().run_audit(request).await)?.audit;
            shown(&audit.unwrap_or_default(), view, session)
        }
        Action::Show(Show { id, view }) => {
            let request = proto::GetAuditRequest { id: id.clone() };
            let audit = client.answer(client.audits().get_audit(request).await)?.audit;
            shown(&audit.unwrap_or_default(), view, session)
        }
        Action::List(List { limit }) => {
            let request = proto::ListAuditsRequest { limit: *limit };
            let listed = client.answer(client.audits().list_audits(request).await)?;
            let console = &mut session.console;
            if console.is_json() {
                console.json(&render::json::Audits::from(&listed))?;
            } else {
                let width = console.width();
                console.data(&render::audit::list(&listed, width))?;
            }
            Ok(Exit::Done)
        }
    }
}

fn shown(audit: &proto::Audit, view: &View, session: &mut Session) -> anyhow::Result<Exit> {
    let least = view.fail_on.into();
    let console = &mut session.console;
    match view.format {
        Some(Report::Junit) => console.data(&render::junit::report(audit, least)?)?,
        Some(Report::Sarif) => console.json(&render::sarif::Log::new(audit))?,
        None if console.is_json() => console.json(&render::json::Audited::from(audit))?,
        None => {
            let width = console.width();
            console.data(&render::audit::text(audit, width))?;
        }
    }
    let fails = audit.databases.iter().any(|database| render::audit::fails(database, least));
    Ok(if view.check && fails { Exit::Found } else { Exit::Done })
}
