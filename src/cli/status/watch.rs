//! `status --watch`: on a terminal the picture is drawn anew in its place; elsewhere each change is a
//! line, or a document.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::{
    cli::{
        Exit,
        render::{self, text::clean},
        session::Session,
        status::{Args, read, text},
    },
    rpc::{client::Client, proto::DatabaseStatus},
};

/// How long after a reading the next one begins; longer where a reading takes long, so that watching
/// takes a fifth of the time at most.
const PAUSE: Duration = Duration::from_secs(2);

/// Shows how databases stand until Ctrl-C, which is how it is meant to end, or until the daemon is
/// gone.
pub(super) async fn run(args: &Args, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let is_live = session.console.begin_picture()?;
    let ended = tokio::select! {
        ended = follow(args, client, session, is_live) => ended,
        () = interrupted() => Ok(()),
    };
    if is_live {
        session.console.end_picture()?;
    }
    ended.map(|()| Exit::Done)
}

async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn follow(args: &Args, client: &Client, session: &mut Session, is_live: bool) -> anyhow::Result<()> {
    let mut last = String::new();
    loop {
        let started = Instant::now();
        let answer = read(args, client, session).await?;
        let databases = &answer.databases;
        let findings = render::status::findings(databases);
        let console = &mut session.console;
        if is_live {
            let text = text(args, databases, &findings, console.width());
            let at = Timestamp::now().strftime("%H:%M:%SZ");
            console.picture(&format!("{at}, Ctrl-C ends\n\n{text}{}", failures(databases)))?;
        } else {
            let document = render::json::Status::new(&answer, &findings);
            let state = document.state();
            if state != last {
                if console.is_json() {
                    console.data(&(serde_json::to_string(&document)? + "\n"))?;
                } else {
                    console.data(&line(databases))?;
                }
                last = state;
            }
        }
        if session.console.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE.max(started.elapsed() * 4)).await;
    }
}

/// Why databases could not be read, in a line each.
fn failures(databases: &[DatabaseStatus]) -> String {
    let failures = databases.iter().filter_map(|it| Some((it, it.failure.as_ref()?))).take(10);
    let lines =
        failures.map(|(it, failure)| [&clean(&it.database), ": ", &clean(&failure.message), "\n"].concat());
    lines.collect()
}

/// A change, in a line.
fn line(databases: &[DatabaseStatus]) -> String {
    let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let summary = render::status::summary(databases);
    let mut versions: Vec<_> = render::fleet::skew(databases);
    let more = versions.len().saturating_sub(4);
    versions.truncate(4);
    let versions = versions.iter().map(|(version, skew)| {
        let version = if version.is_empty() { "none".to_owned() } else { clean(version) };
        format!("{} at {version}", skew.databases.len())
    });
    let mut versions: Vec<_> = versions.collect();
    versions.extend((more > 0).then(|| format!("{more} more versions")));
    let summary = if summary.is_empty() { failures(databases) } else { summary };
    match databases.len() {
        0 | 1 => format!("{at} {}\n", summary.trim_end()),
        _ => format!("{at} {}; {}\n", summary.trim_end(), versions.join(", ")),
    }
}
