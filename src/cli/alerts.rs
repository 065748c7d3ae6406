//! `nexusctl alerts`: what is wrong now; `alerts ack` takes note of one.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    cli::{Exit, Refusal, args, render, session, session::Session},
    rpc::{
        client::{Client, ClientError},
        proto,
    },
};

/// The arguments of `alerts`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Go on, and show each alert again whenever its state changes
    #[arg(long)]
    watch: bool,
    /// Show also what is over, as long as the daemon remembers it
    #[arg(long, conflicts_with = "watch")]
    resolved: bool,
    /// Exit with 3 if an alert fires that nobody has taken note of
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

/// What is done about an alert.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take note of a firing alert: nobody is told again until it is over
    #[command(defer(args::of_no_database))]
    Ack(Ack),
}

/// Which alert, and why.
#[derive(Debug, clap::Args)]
struct Ack {
    /// The alert's id, or the beginning of it
    id: String,
    /// Why; everybody who looks at the alert sees it
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
    /// Fire again after this time, if it is not over by then
    #[arg(long = "for", value_name = "DURATION", value_parser = args::duration)]
    duration: Option<Duration>,
}

/// Shows alerts, or takes note of one.
pub async fn run(args: &Args, session: &mut Session) -> anyhow::Result<Exit> {
    let client = session.connect().await?;
    if let Some(Action::Ack(ack)) = &args.action {
        return acknowledge(ack, &client, session).await;
    }
    let databases = databases(&client, session).await?;
    if args.watch {
        return watch(databases, &client, session).await;
    }
    let request = proto::ListAlertsRequest { databases, resolved: args.resolved };
    let alerts = client.answer(client.alerts().list_alerts(request).await)?.alerts;
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::Alerts::from(alerts.as_slice()))?;
    } else {
        let width = console.width();
        console.data(&render::alerts::text(&alerts, width))?;
    }
    let fires = alerts.iter().any(|alert| alert.state() == proto::AlertState::Firing);
    Ok(if args.check && fires { Exit::Found } else { Exit::Done })
}

/// The names that are meant; those of labels are asked for, as alerts know of none.
async fn databases(client: &Client, session: &Session) -> Result<Vec<String>, ClientError> {
    if session.global.selector.is_empty() {
        return Ok(session.global.database.clone());
    }
    let request = proto::ListDatabasesRequest { selection: session.selection() };
    let known = client.answer(client.fleet().list_databases(request).await)?.databases;
    Ok(known.into_iter().map(|database| database.name).collect())
}

/// One line for each alert as it stands, and one for each change, until the daemon goes.
async fn watch(databases: Vec<String>, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let request = proto::WatchAlertsRequest { databases };
    let mut alerts = client.answer(client.alerts().watch_alerts(request).await)?;
    while let Some(told) = alerts.message().await.map_err(|status| client.error(&status))? {
        let Some(alert) = told.alert else { continue };
        let line = if session.console.is_json() {
            serde_json::to_string(&render::json::Alert::from(&alert))?
        } else {
            render::alerts::line(&alert)
        };
        session.console.data(&(line + "\n"))?;
    }
    Err(client.ended_early().into())
}

async fn acknowledge(ack: &Ack, client: &Client, session: &mut Session) -> anyhow::Result<Exit> {
    let until = ack.duration.map(|duration| {
        let until = jiff::SignedDuration::try_from(duration)
            .and_then(|duration| Timestamp::now().checked_add(duration))
            .map_err(|_| {
                Refusal::new("The time is too long", "leave --for out: it is quiet until it is over")
            })?;
        let (seconds, nanos) = (until.as_second(), until.subsec_nanosecond());
        Ok::<_, Refusal>(prost_types::Timestamp { seconds, nanos })
    });
    let request = proto::AcknowledgeAlertRequest {
        id: ack.id.clone(),
        reason: ack.reason.clone(),
        requested_by: session::requested_by(),
        until: until.transpose()?,
    };
    let answer = client.answer(client.alerts().acknowledge_alert(request).await)?;
    let alert = answer.alert.unwrap_or_default();
    if session.console.is_json() {
        session.console.json(&render::json::Alert::from(&alert))?;
    } else {
        session.console.data(&(render::alerts::line(&alert) + "\n"))?;
    }
    Ok(Exit::Done)
}
