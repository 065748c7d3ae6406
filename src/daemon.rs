//! The daemon: binds first, wires everything, runs until it is told to stop.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, future::ready as ready_now};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;

use crate::{
    alert::Alerts,
    auditlog::AuditLog,
    config::Config,
    fleet::{Fleet, Gate, audit::Audits, inventory::Inventory},
    http::{self, HttpState, Readiness, Watched},
    migration::{Event, EventKind},
    redact::redact_json,
    runtime::Tasks,
    telemetry::{Metrics, Traces, jsonl::JsonlLog},
};

mod accept;
mod access;
mod alerts;
pub mod args;
mod auditlog;
mod backlog;
mod connection;
mod control;
mod demo;
mod descriptors;
mod grpc;
mod inventories;
mod leading;
mod listen;
mod places;
mod service_manager;
mod signals;
mod strategies;
mod tls;
mod wire;

use access::Doors;
use backlog::Backlog;
use inventories::{Inventories, Reread};
use leading::Leading;
use listen::Listeners;

/// How often idle connections are looked for.
const EVICTION_PERIOD: Duration = Duration::from_secs(5);

/// How long the last spans may take to be exported when the daemon ends.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// How long the tasks that are left may take to end.
const LAST_TASKS: Duration = Duration::from_secs(5);

/// How long one step of the end may take that waits for somebody else: the service manager, or a disk.
const LAST_STEP: Duration = Duration::from_secs(2);

/// How long the start waits for the control database.
const CONTROL_PATIENCE: Duration = Duration::from_secs(5);

/// What a stop may take after the running steps have had their time: they are cancelled, and what is
/// left is told and kept. A service manager, a container's too, has to wait that long.
const LAST_WORDS: Duration = {
    let steps = [
        crate::fleet::CANCELLING,
        crate::alert::SHUTDOWN,
        LAST_TASKS,
        LAST_STEP,
        LAST_STEP,
        LAST_STEP,
        LAST_SPANS,
    ];
    let (mut sum, mut index) = (Duration::from_secs(2), 0);
    while index < steps.len() {
        sum = sum.saturating_add(steps[index]);
        index += 1;
    }
    sum
};

/// Runs what the command line asks for.
pub async fn main(args: args::Args) -> anyhow::Result<()> {
    match args.command {
        args::Command::Serve(serve) => {
            let (path, overrides) = (serve.config.clone(), serve.overrides());
            let reread: Reread =
                Arc::new(move || Config::load(Some(&path), crate::config::process_environment(), &overrides));
            let config = reread()?;
            let instance = new_instance();
            let traces = Traces::start(&wire::traces(&config.telemetry), &instance)?;
            begin_log(&config, traces.as_ref())?;
            let stop = CancellationToken::new();
            signals::stop(stop.clone())?;
            let daemon = Daemon::start(config, Some(reread), instance, stop).await?;
            let (log, audit_log) = (daemon.log.clone(), daemon.audit_log.clone());
            signals::hangup(log, audit_log, daemon.inventories.clone(), daemon.doors.clone())?;
            // Not before a SIGHUP is heard: it would end the daemon.
            service_manager::ready().await;
            let ended = daemon.run().await;
            if let Some(traces) = traces {
                traces.stop(LAST_SPANS).await;
            }
            ended
        }
        args::Command::CheckConfig(check) => {
            use std::io::Write as _;
            let config = read(&check.config, &crate::config::Overrides::default())?;
            begin_log(&config, None)?;
            wire::check(&config)?;
            strategies::named(&config)?;
            Doors::open(&config)?;
            let audits = wire::audits(&config)?;
            // What is found is not known here: nothing is connected to.
            if config.discoveries.is_empty() {
                wire::warn_of_idle(&audits, &wire::named(&config)?);
            }
            std::io::stdout().write_all(config.to_masked_toml().as_bytes()).context("cannot write to stdout")
        }
        args::Command::Demo(demo) => demo::run(&demo).await,
    }
}

fn read(path: &Path, overrides: &crate::config::Overrides) -> anyhow::Result<Config> {
    Ok(Config::load(Some(path), crate::config::process_environment(), overrides)?)
}

fn begin_log(config: &Config, traces: Option<&Traces>) -> anyhow::Result<()> {
    crate::telemetry::log::init(config.log.level, traces)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// The name of this run of the daemon, in the journal and in traces.
fn new_instance() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A daemon that has bound its ports and answers, but for SIGTERM.
struct Daemon {
    config: Arc<Config>,
    fleet: Arc<Fleet>,
    inventories: Arc<Inventories>,
    doors: Arc<Doors>,
    alerts: Alerts,
    log: Arc<JsonlLog>,
    audit_log: AuditLog,
    tasks: Tasks,
    /// The daemon was told to stop: no new mutations.
    stop: CancellationToken,
    /// What it cannot do without has failed: it stops, too.
    failed: CancellationToken,
    /// Everything has been told: the servers close.
    close: CancellationToken,
    readiness: watch::Sender<Readiness>,
    health: grpc::Health,
    addresses: listen::Addresses,
    telling: CancellationToken,
}

impl Daemon {
    /// Makes sure of the configuration, binds every port, opens the log, wires the layers, and begins to serve.
    #[allow(clippy::too_many_lines, reason = "the wiring of everything, in the order in which it begins")]
    async fn start(
        config: Config,
        reread: Option<Reread>,
        instance: String,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        wire::check(&config)?;
        let scheduled = wire::audits(&config)?;
        let strategies = Arc::new(strategies::named(&config)?);
        let config = Arc::new(config);
        let doors = Doors::open(&config)?;
        let listeners = Listeners::bind(&config.server).await?;
        let log = Arc::new(JsonlLog::open(&config.log.file, redact_json)?);
        let metrics = Metrics::new();
        let (audit_log, writer) = auditlog::open(&config.log.audit_file, &instance, &metrics)?;
        let (events, received) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let gate = gate(&log, &audit_log, &backlog);
        let failed = CancellationToken::new();
        let tasks = Tasks::new(failed.clone());
        // Not one of those that are waited for: it ends when they have, and nothing is left to be recorded.
        Tasks::new(failed.clone()).spawn_vital("audit-log", writer.run());
        let control = control::start(&config, &instance, &tasks, &stop)?;
        let witness = auditlog::witness(&audit_log);
        let settings = wire::fleet(&config, gate.clone(), instance, control.clone(), witness);
        let of_fleet = Tasks::new(failed.clone());
        let fleet = Fleet::new(Inventory::default(), of_fleet, events.clone(), settings);
        let alerts = alerts::start(&config, control.clone(), Tasks::new(failed.clone()), events, &metrics)?;
        fleet.ask_for_alerts(alerts::open(&alerts));
        let telling = CancellationToken::new();
        let ears = Ears::new(&log, &audit_log, &metrics, &alerts, &fleet, backlog);
        // Nobody is to work who cannot tell of it.
        let (questions, asked) = mpsc::channel(1);
        tasks.spawn_vital("tell", tell(received, asked, ears, telling.clone()));
        service_manager::watch(&tasks, questions);
        let (readiness, ready) = watch::channel(Readiness::Starting);
        let (addresses, http, incoming) =
            listeners.accept(&tasks, doors.tls().as_ref(), wire::terms(&config.limits), &metrics);
        let refresh = count_connections(fleet.clone(), metrics.clone());
        let inventories = Inventories::new(
            fleet.clone(),
            tasks.clone(),
            stop.clone(),
            config.clone(),
            reread,
            control.clone(),
        );
        let audits = Audits::new(fleet.clone(), scheduled.clone(), control.clone());
        if let Some((control, config)) = control.zip(config.control.as_ref()) {
            let leading = Leading {
                control,
                fleet: fleet.clone(),
                inventories: inventories.clone(),
                alerts: alerts.clone(),
                audits: audits.clone(),
                doors: doors.clone(),
                metrics: metrics.clone(),
                keep_days: config.settings.keep_days,
            };
            let copy =
                auditlog::copy(audit_log.clone(), leading.control.clone(), metrics.clone(), telling.clone());
            tasks.spawn_vital("copy-audit-log", copy);
            tasks.spawn_vital("lead", leading.run(stop.clone()));
        }
        let state = HttpState {
            metrics: metrics.clone(),
            readiness: ready,
            gate: Watched::new(gate),
            authenticate: doors.authenticate(),
            open_metrics: config.access.open_metrics,
            refused: auditlog::refusals(&audit_log),
            refresh,
        };
        let close = CancellationToken::new();
        let pages = http.filter_map(|it| ready_now(it.ok().map(|it| (it.peer().clone(), it))));
        let http = http::serve(tasks.clone(), pages, state, config.limits.handshake_timeout, close.clone());
        tasks.spawn_vital("http", http);
        inventories.start().await;
        wire::warn_of_idle(&scheduled, &fleet.inventory());
        fleet.share(CONTROL_PATIENCE).await;
        let ends = grpc::Ends { close: close.clone(), failed: failed.clone() };
        let services = grpc::Services {
            fleet: fleet.clone(),
            alerts: alerts.clone(),
            audits: audits.clone(),
            reload: inventories.reload_on_request(doors.clone()),
            strategies,
            authenticate: doors.authenticate(),
            audit_log: audit_log.clone(),
            bounds: wire::bounds(&config.limits),
            max_age: config.limits.max_connection_age,
        };
        let health = grpc::start(&tasks, services, incoming, metrics.clone(), &ends).await?;
        audits.start();
        doors.watch(fleet.clone(), metrics.clone(), &tasks, stop.clone());
        let evict = evict_idle(fleet.clone(), config.limits.idle_connection, stop.clone());
        tasks.spawn_vital("evict-idle", evict);
        fleet.watch(config.watch.poll, config.watch.max_connections as usize);
        readiness.send_replace(Readiness::Serving);
        health.tell(ServingStatus::Serving).await;
        tell_serving(&addresses, &fleet);
        Ok(Self {
            config,
            fleet,
            inventories,
            doors,
            alerts,
            log,
            audit_log,
            tasks,
            stop,
            failed,
            close,
            readiness,
            health,
            addresses,
            telling,
        })
    }

    /// Serves until told to stop, or until something fails that it cannot do without; then drains: new
    /// mutations are refused, running steps end within their deadline or are cancelled on the server,
    /// everything that happened is told, and then the servers close.
    async fn run(self) -> anyhow::Result<()> {
        tokio::select! {
            () = self.stop.cancelled() => tracing::info!("stopping"),
            () = self.failed.cancelled() => {
                tracing::error!("stopping: a part has failed without which nothing may go on");
                self.stop.cancel();
            }
        }
        let drain = self.config.server.shutdown_timeout;
        last_step("the service manager is told", service_manager::stopping(drain + LAST_WORDS)).await;
        self.readiness.send_replace(Readiness::Draining);
        self.health.tell(ServingStatus::NotServing).await;
        let drained = self.fleet.shutdown(drain).await;
        self.alerts.shutdown().await;
        self.telling.cancel();
        self.close.cancel();
        let joined = self.tasks.join(LAST_TASKS).await;
        last_step("the alerts are kept", self.alerts.keep()).await;
        last_step("the audit log is closed", self.audit_log.close()).await;
        self.addresses.clean_up();
        if !drained || !joined {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!("stopped");
        ensure!(!self.failed.is_cancelled(), "a part of nexusd failed: its log says which");
        Ok(())
    }
}

/// Refuses what changes something as long as one of the logs cannot be written.
fn gate(log: &Arc<JsonlLog>, audit_log: &AuditLog, backlog: &Arc<Backlog>) -> Gate {
    let (log, audit_log, backlog) = (log.clone(), audit_log.clone(), backlog.clone());
    Arc::new(move || {
        backlog.admit()?;
        log.is_writable().map_err(|failure| *failure)?;
        audit_log.is_writable()
    })
}

/// Says where it serves.
fn tell_serving(addresses: &listen::Addresses, fleet: &Fleet) {
    let databases = fleet.inventory().members().count();
    tracing::info!(grpc = %addresses.grpc, http = %addresses.http, databases, "serving");
}

/// Waits for a step of the end, but not for ever: what comes after it matters more.
async fn last_step(what: &'static str, step: impl Future<Output = ()>) {
    if tokio::time::timeout(LAST_STEP, step).await.is_err() {
        tracing::warn!(what, "a step of the end did not end in time: it is given up");
    }
}

/// Whoever is told of what happens, in this order.
struct Ears {
    log: Arc<JsonlLog>,
    audit_log: AuditLog,
    metrics: Metrics,
    /// What becomes of alerts comes back as events of its own.
    alerts: Alerts,
    fleet: Arc<Fleet>,
    backlog: Arc<Backlog>,
}

impl Ears {
    fn new(
        log: &Arc<JsonlLog>,
        audit_log: &AuditLog,
        metrics: &Metrics,
        alerts: &Alerts,
        fleet: &Arc<Fleet>,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self {
            log: log.clone(),
            audit_log: audit_log.clone(),
            metrics: metrics.clone(),
            alerts: alerts.clone(),
            fleet: fleet.clone(),
            backlog,
        }
    }

    fn hear(&self, event: Event) {
        // The last look at a database that is gone may end after it went: there is nobody to be told.
        if let EventKind::Observed(seen) = &event.kind
            && !seen.database.is_empty()
            && self.fleet.inventory().get(&seen.database).is_none()
        {
            return;
        }
        if let Err(error) = self.log.write(&event) {
            self.metrics.log_write_failed();
            tracing::error!(%error, "the migration log cannot be written");
        }
        self.audit_log.observe(&event);
        self.metrics.observe(&event);
        self.alerts.observe(&event);
        self.fleet.publish(event);
    }
}

/// Hands every event on. One receiver, so that nobody is told of what the log has not. Whoever asks
/// whether it still does is answered between two events.
async fn tell(
    mut events: mpsc::UnboundedReceiver<Event>,
    mut asked: mpsc::Receiver<service_manager::Question>,
    ears: Ears,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    ears.backlog.is(events.len());
                    ears.hear(event);
                }
                None => return,
            },
            // Whoever asked may have gone.
            Some(question) = asked.recv() => drop(question.send(())),
            () = stop.cancelled() => break,
        }
    }
    while let Ok(event) = events.try_recv() {
        ears.hear(event);
    }
}

/// Tells the metrics how many connections there are: asked when somebody scrapes, as nobody tells.
fn count_connections(fleet: Arc<Fleet>, metrics: Metrics) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        let inventory = fleet.inventory();
        let servers = inventory.connections();
        metrics.connections(servers.into_iter().map(|(server, it)| (server, it.idle, it.in_use)));
    })
}

async fn evict_idle(fleet: Arc<Fleet>, idle: Duration, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVICTION_PERIOD.min(idle.max(Duration::from_secs(1))));
    loop {
        tokio::select! {
            _ = ticks.tick() => fleet.evict_idle(idle),
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_takes_as_long_as_the_files_for_service_managers_allow() {
        // TimeoutStopSec, stop_grace_period, terminationGracePeriodSeconds and docs/deploy.md say 75 s.
        assert_eq!(LAST_WORDS, Duration::from_secs(40));
    }

    #[tokio::test]
    async fn a_step_of_the_end_that_hangs_is_given_up() {
        last_step("it hangs", std::future::pending()).await;
    }
}
