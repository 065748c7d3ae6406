//! `nexusctl status`: how databases stand; with `--check`, an exit code for scripts; with `--watch`,
//! again and again.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    cli::{
        Exit,
        console::Console,
        render::{self, status::Finding},
        session::Session,
    },
    rpc::{
        client::{Client, ClientError},
        proto::{self, DatabaseStatus},
    },
};

mod watch;

/// Of how many databases each remark is told.
const FAILURES: usize = 20;

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Exit with 3 if anything is dirty, drifted, pending, missing, out of order or unreadable
    #[arg(long)]
    check: bool,
    /// Show every migration of a database, not only the newest clean ones, and every database of many
    #[arg(long)]
    full: bool,
    /// Show what the daemon itself saw last, and how old that is; no database is connected to
    #[arg(long)]
    cached: bool,
    /// Only databases in which this migration is not in place
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    missing: String,
    /// Show it again and again, until Ctrl-C
    #[arg(long, conflicts_with = "check")]
    watch: bool,
}

/// Shows the status.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    if args.watch {
        return watch::run(args, &client, session).await;
    }
    let answer = read(args, &client, session).await?;
    let findings = render::status::findings(&answer.databases);
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Status::new(&answer, &findings))?;
    } else {
        let mut text = text(args, &answer.databases, &findings, console.width());
        if !answer.databases.is_empty() {
            text.push_str(render::status::store(answer.store()));
        }
        console.data(&text)?;
    }
    let databases = answer.databases;
    remarks(&databases, console);
    let unreadable =
        databases.iter().any(|database| database.failure.is_some() || database.catalog_failure.is_some());
    Ok(match (args.check, unreadable) {
        (true, _) if findings.iter().any(Finding::fails_check) => Exit::Found,
        (false, true) => Exit::Failed,
        _ => Exit::Done,
    })
}

/// What there is to say of the directories, and why databases could not be read; of many databases, each
/// remark once, and not more than a person reads.
fn remarks(databases: &[DatabaseStatus], console: &mut Console) {
    let mut told = BTreeSet::new();
    let notices = databases.iter().flat_map(|database| {
        render::status::notices(database).map(|notice| (database.database.as_str(), notice))
    });
    for (database, notice) in notices {
        if databases.len() <= FAILURES || told.insert(notice) {
            console.note(&render::event::warning(database, "", notice));
        }
    }
    let failures = databases.iter().flat_map(|database| {
        let failures = database.failure.iter().chain(&database.catalog_failure);
        failures.map(|failure| (database.database.as_str(), failure))
    });
    let (mut shown, mut hidden) = (0, 0);
    for (database, failure) in failures {
        if shown < FAILURES {
            console.note(&render::failure::block(Some(database), failure));
            shown += 1;
        } else {
            hidden += 1;
        }
    }
    if hidden > 0 {
        let more = render::text::count(hidden, "more database");
        console.note(&format!("… and {more} could not be read (-o json has them)\n"));
    }
}

/// Asks the daemon. People are not told what is well of each of many databases; programs are.
async fn read(args: &Args, client: &Client, session: &Session) -> Result<proto::StatusResponse, ClientError> {
    let request = proto::StatusRequest {
        selection: session.selection(),
        cached: args.cached,
        brief: !args.full && !session.console.is_json(),
        missing: args.missing.clone(),
    };
    client.answer(client.migrations().status(request).await)
}

fn text(args: &Args, databases: &[DatabaseStatus], findings: &[Finding], width: Option<u16>) -> String {
    if databases.is_empty() && !args.missing.is_empty() {
        return format!("{} is in place everywhere\n", render::text::clean(&args.missing));
    }
    let view = render::status::View { full: args.full, pending: args.check, width };
    let mut text = render::status::text(databases, findings, view);
    if args.cached {
        text.push_str(&render::fleet::age(databases, Timestamp::now()));
    }
    text
}
