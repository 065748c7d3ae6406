//! Who is let in: the file of `[access]` and the certificates, as they are now. Both are read anew when
//! their files change; what is wrong with them is told, and what was good last stays.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use nix::unistd::{Group, User, geteuid};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Authenticate, By, Grant, Identities, Identity},
    config::{self, AccessConfig, Config, IdentityConfig, Place, ServerConfig, ShownBy},
    daemon::{inventories::of_config, tls::Tls},
    fleet::{Fleet, ReloadFault},
    migration::{Code, Failure},
    redact::mask_text,
    runtime::Tasks,
    source::watch::FileWatch,
    telemetry::Metrics,
};

/// How often the files are read though nothing told of a change. They are few and small, and whoever takes
/// an entry away waits for it to count.
const POLL: Duration = Duration::from_secs(2);

/// How long something has to be wrong before an alert tells of it: of a certificate and its key, one is there
/// first.
const PATIENCE: Duration = Duration::from_secs(3);

/// What names the file of those who are let in.
const FILE: &str = "[access] file";

/// What names the certificates.
const SERVER: &str = "[server]";

/// What the kernel tells of users and groups that a user namespace does not have: they may be anybody.
const OVERFLOW: u32 = 65_534;

/// Who is let in, by what.
pub(super) struct Doors {
    config: AccessConfig,
    identities: RwLock<Arc<Identities>>,
    tls: Option<Arc<Tls>>,
    /// Held by whoever reads the files anew.
    turn: Mutex<()>,
    /// What is wrong with the files.
    faults: watch::Sender<Vec<ReloadFault>>,
}

impl Doors {
    /// Reads the files. Refused where they are not what the configuration says, or where nobody could come
    /// in by an address that others reach.
    pub(super) fn open(config: &Config) -> anyhow::Result<Arc<Self>> {
        let tls = Tls::load(&config.server)?;
        let identities = identities(&config.access).context(FILE)?;
        if let Some(file) = &config.access.file {
            refuse_shut(&config.server, &identities, file, tls.as_deref())?;
        }
        Ok(Arc::new(Self {
            config: config.access.clone(),
            identities: RwLock::new(Arc::new(identities)),
            tls,
            turn: Mutex::default(),
            faults: watch::Sender::default(),
        }))
    }

    /// TLS, where there is a certificate.
    pub(super) fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// Says who asks.
    pub(super) fn authenticate(self: &Arc<Self>) -> Authenticate {
        let doors = self.clone();
        Arc::new(move |peer, token| {
            let identities = doors.identities.read().unwrap_or_else(PoisonError::into_inner).clone();
            identities.authenticate(peer, token, Timestamp::now())
        })
    }

    /// Reads the files anew, now; says what is wrong with them.
    pub(super) async fn reload_now(self: &Arc<Self>) -> Vec<ReloadFault> {
        let doors = self.clone();
        // It reads files, and does nothing else that could fail.
        drop(tokio::task::spawn_blocking(move || doors.reload()).await);
        self.faults.borrow().clone()
    }

    /// Has what is wrong with the files told once more: to whom it is told now, it was not told before.
    pub(super) fn tell_again(&self) {
        self.faults.send_modify(|_| {});
    }

    /// Reads the files anew. What is wrong with them is told once.
    fn reload(&self) {
        // What was read later is what counts.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        let mut fault =
            |subject: &str, failure| faults.push(ReloadFault { subject: subject.to_owned(), failure });
        match identities(&self.config) {
            Ok(identities) => {
                *self.identities.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identities);
            }
            Err(error) => fault(FILE, of_file(&error)),
        }
        match self.tls.as_ref().map(|tls| tls.reload()) {
            Some(Ok(true)) => tracing::info!("the certificates were read anew"),
            Some(Err(error)) => {
                let text = format!("{:#}", anyhow::Error::new(error));
                let text = text.strip_prefix(SERVER).map_or(&*text, str::trim_start);
                fault(SERVER, Failure::new(Code::AccessUnreadable, text));
            }
            None | Some(Ok(false)) => {}
        }
        self.faults.send_if_modified(|told| {
            for ReloadFault { failure, .. } in faults.iter().filter(|fault| !told.contains(fault)) {
                let error = &failure.message;
                tracing::error!(error, "who is let in cannot be read anew: what was good last stays");
            }
            if faults.is_empty() && !told.is_empty() {
                tracing::info!("who is let in was read anew: nothing is wrong any more");
            }
            let is_new = *told != faults;
            *told = faults;
            is_new
        });
    }

    /// Begins to watch the files, and to tell what is wrong with them.
    pub(super) fn watch(
        self: &Arc<Self>,
        fleet: Arc<Fleet>,
        metrics: Metrics,
        tasks: &Tasks,
        stop: CancellationToken,
    ) {
        let mut faults = self.faults.subscribe();
        let is_over = stop.clone();
        tasks.spawn_vital("tell-access", async move {
            loop {
                let now = faults.borrow_and_update().clone();
                metrics.access_read(now.is_empty());
                let patience = if now.is_empty() { Duration::ZERO } else { PATIENCE };
                tokio::select! {
                    _ = faults.changed() => continue,
                    () = tokio::time::sleep(patience) => fleet.tell_access(&now),
                    () = is_over.cancelled() => return,
                }
                tokio::select! {
                    _ = faults.changed() => {}
                    () = is_over.cancelled() => return,
                }
            }
        });
        let files: BTreeSet<PathBuf> =
            self.config.file.iter().cloned().chain(self.tls.iter().flat_map(|tls| tls.files())).collect();
        if !files.is_empty() {
            tasks.spawn_vital("watch-access", watch(self.clone(), files, stop));
        }
    }
}

async fn watch(doors: Arc<Doors>, files: BTreeSet<PathBuf>, stop: CancellationToken) {
    let watch = FileWatch::new();
    loop {
        // First the watch, then the look: what happens in between rings.
        watch.arm(files.clone()).await;
        drop(doors.reload_now().await);
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep(POLL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What is wrong with the file of those who are let in, without its lines: more people are told than may read it.
fn of_file(error: &anyhow::Error) -> Failure {
    match error.downcast_ref() {
        Some(error) => of_config(Code::AccessUnreadable, error),
        None => Failure::new(Code::AccessUnreadable, mask_text(&format!("{error:#}"))),
    }
}

/// Those that the file lets in.
fn identities(config: &AccessConfig) -> anyhow::Result<Identities> {
    let own_uid = geteuid().as_raw();
    // As that user come all whom the system does not know.
    anyhow::ensure!(
        config.file.is_none() || own_uid != OVERFLOW,
        "nexusd runs as the user {OVERFLOW}, as whom everybody comes in by the socket whom the system does not know: run it as another one"
    );
    let Some(file) = &config.file else { return Ok(Identities::open(own_uid)) };
    let entries = config::read_identities(file, own_uid)?;
    let known: anyhow::Result<Vec<_>> = entries.into_iter().map(|entry| identity(entry, config)).collect();
    Ok(Identities::of(own_uid, known?))
}

fn identity(entry: IdentityConfig, config: &AccessConfig) -> anyhow::Result<Identity> {
    let IdentityConfig { name, shown_by, role, databases, selector, max_rollback_steps, place } = entry;
    let by = match shown_by {
        ShownBy::Token { sha256, expires } => By::Token { digest: sha256, expires },
        ShownBy::Certificate(san) => By::Certificate(san),
        ShownBy::User(user) => By::User(number_of("user", &user, &place, |name| {
            Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
        })?),
        ShownBy::Group(group) => By::Group(number_of("group", &group, &place, |name| {
            Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
        })?),
    };
    let steps = max_rollback_steps.unwrap_or(config.max_rollback_steps);
    let selectors: Vec<_> = selector.into_iter().collect();
    let grant = Grant::new(role, &databases, &selectors, Some(steps)).with_context(|| place.to_string())?;
    Ok(Identity { name, by, grant })
}

/// The number of a user or a group, which may be given as such.
fn number_of(
    what: &str,
    text: &str,
    place: &Place,
    look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>,
) -> anyhow::Result<u32> {
    let number = match text.parse() {
        Ok(number) => number,
        Err(_) => look_up(text)
            .with_context(|| format!("{place}: cannot look up the {what} {text:?}"))?
            .with_context(|| format!("{place}: the system knows no {what} {text:?}"))?,
    };
    if number == OVERFLOW {
        bail!(
            "{place}: the {what} {text:?} stands for everybody whom the system cannot name here: nothing is granted to it"
        );
    }
    Ok(number)
}

/// Refuses to listen where others reach it and nobody could come in.
fn refuse_shut(
    server: &ServerConfig,
    identities: &Identities,
    file: &std::path::Path,
    tls: Option<&Tls>,
) -> anyhow::Result<()> {
    let file = file.display();
    let asks = tls.is_some_and(Tls::asks_for_certificates);
    if !server.grpc.ip().is_loopback() && !identities.has_one_for_tcp(asks) {
        bail!(
            "{file}: nobody could come in by [server] grpc = \"{}\": give a [[token]] (nexusctl token create), or tls_client_ca in [server] and a [[certificate]]",
            server.grpc
        );
    }
    Ok(())
}
