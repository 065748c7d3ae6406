//! `nexusd demo`: a PostgreSQL of its own with three databases, a daemon on it, and a tour made
//! with `nexusctl`, over gRPC, as a user would make it.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail, ensure};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Overrides},
    daemon::{Daemon, args, signals},
    postgres::embedded::Embedded,
};

/// The databases, with their labels.
const DATABASES: [(&str, &str); 3] = [("shop-eu", "prod"), ("shop-us", "prod"), ("shop-staging", "staging")];

/// Starts everything, makes the tour, and serves on unless told to exit.
pub(super) async fn run(args: &args::Demo) -> anyhow::Result<()> {
    let nexusctl = nexusctl()?;
    ensure!(
        args.migrations.is_dir(),
        "{} is not a directory: run the demo where the sample migrations are, or name one with --migrations",
        args.migrations.display()
    );
    say("Starting PostgreSQL with three databases …");
    let starting = tokio::task::spawn_blocking(|| Embedded::start(&[]));
    let server = starting.await.context("the start of PostgreSQL ended unexpectedly")?;
    let server = server.context("cannot start PostgreSQL")?;
    let toured = tour(args, &nexusctl, &server).await;
    toured.and(server.stop().context("cannot stop PostgreSQL"))
}

async fn tour(args: &args::Demo, nexusctl: &Path, server: &Embedded) -> anyhow::Result<()> {
    for (name, _) in DATABASES {
        server.create_database(name).await.context("cannot create a database")?;
    }
    let config = Config::parse(&configuration(server, &args.migrations)?, None, [], &Overrides::default())?;
    crate::telemetry::log::init(tracing::Level::WARN, None)?;
    let stop = CancellationToken::new();
    signals::stop(stop.clone())?;
    let daemon = Daemon::start(config, None, super::new_instance(), stop.clone()).await?;
    let (log, audit_log) = (daemon.log.clone(), daemon.audit_log.clone());
    signals::hangup(log, audit_log, daemon.inventories.clone(), daemon.doors.clone())?;
    let address = daemon.addresses.grpc;
    let log = daemon.config.log.file.clone();
    say(&format!("nexusd serves on {address}; its migration log is {}\n", log.display()));

    let serving = crate::runtime::spawn_owned(daemon.run());
    let shown = tokio::select! {
        shown = show(nexusctl, address) => shown,
        () = stop.cancelled() => Ok(()),
    };
    if shown.is_err() || args.exit {
        stop.cancel();
    } else if !stop.is_cancelled() {
        say(&next(address, &server.url(DATABASES[0].0)));
    }
    serving.await.context("the daemon ended unexpectedly")??;
    shown
}

/// The configuration that a user would write, but for the ports where the usual ones are taken.
fn configuration(server: &Embedded, migrations: &Path) -> anyhow::Result<String> {
    let migrations = migrations.canonicalize().context("cannot find the migrations")?;
    let port = |usual: u16| if TcpListener::bind(("127.0.0.1", usual)).is_ok() { usual } else { 0 };
    let mut toml = format!(
        "[server]\ngrpc = \"127.0.0.1:{}\"\nhttp = \"127.0.0.1:{}\"\n\n[defaults]\nmigrations = {:?}\n",
        port(7421),
        port(7422),
        migrations.display().to_string()
    );
    for (name, env) in DATABASES {
        write!(
            toml,
            "\n[[database]]\nname = {name:?}\nurl = {:?}\nlabels = {{ env = {env:?} }}\n",
            server.url(name)
        )?;
    }
    Ok(toml)
}

/// `nexusctl`, built beside this binary.
fn nexusctl() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find nexusd's own path")?;
    let nexusctl = this.with_file_name("nexusctl");
    ensure!(
        nexusctl.is_file(),
        "nexusctl is not beside nexusd ({}): build both with cargo build --bins",
        nexusctl.display()
    );
    Ok(nexusctl)
}

/// The tour: what a user does on the first day. Each command must succeed.
async fn show(nexusctl: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let commands: [&[&str]; 7] = [
        &["databases"],
        &["plan", "--database", "shop-staging"],
        &["apply", "--selector", "env=staging"],
        &["apply", "--all"],
        &["rollback", "--steps=2", "--database", "shop-staging", "--yes"],
        &["apply", "--database", "shop-staging"],
        &["status", "--check"],
    ];
    for arguments in commands {
        say(&format!("$ nexusctl {}", arguments.join(" ")));
        let status = tokio::process::Command::new(nexusctl)
            .args(arguments)
            .env("NEXUS_SERVER", address.to_string())
            .stdin(Stdio::null())
            .status()
            .await
            .context("cannot run nexusctl")?;
        say("");
        if !status.success() {
            bail!("nexusctl {} ended with {status}", arguments.join(" "));
        }
    }
    Ok(())
}

/// What to try next.
fn next(address: SocketAddr, url: &str) -> String {
    let server =
        if address.port() == 7421 { String::new() } else { format!("export NEXUS_SERVER={address}\n  ") };
    let bin = nexusctl().map_or_else(|_| "nexusctl".to_owned(), |path| path.display().to_string());
    format!(
        "Try next, in another terminal:\n  \
         {server}alias nexusctl={bin}\n  \
         nexusctl status --database shop-eu\n  \
         nexusctl rollback --steps=2 --database shop-eu\n  \
         nexusctl new add_reviews && nexusctl plan --all\n  \
         nexusctl history --database shop-staging\n  \
         psql '{url}' -c 'select version, dirty from schema_migrations'\n\n\
         Ctrl-C ends the daemon and PostgreSQL, and leaves nothing behind."
    )
}

/// The demo's own words go to stdout: they are what it is for.
fn say(text: &str) {
    // A closed stdout must not end the demo before it has stopped its server.
    let _ = writeln!(std::io::stdout(), "{text}");
}
