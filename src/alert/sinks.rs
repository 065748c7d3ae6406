//! Who is told: one task for each sink, which looks up what the sink has not been told yet, sends
//! it, and after a failure tries again later and later.

mod alertmanager;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::BackoffBuilder as _;
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, StatusCode, Url, redirect};
use tokio::sync::watch;

use crate::{
    alert::{
        Shared,
        life::{Audience, Telling},
    },
    migration::{EventKind, Severity},
    redact::{ExposeSecret as _, SecretString},
};

/// How long after the end was asked for a sink is still talked to.
const FLUSH: Duration = Duration::from_secs(3);

/// After a failure, a sink is left alone for so long at most.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A sink as it is configured.
pub struct SinkSettings {
    /// Its name: the only thing that logs and metrics call it by.
    pub name: String,
    /// Where it is. It may hold credentials, and a webhook's path is often one itself.
    pub url: SecretString,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// The least severity that it is told of.
    pub least: Severity,
    /// What it is.
    pub kind: SinkKind,
}

/// What a sink is.
pub enum SinkKind {
    /// Anything that takes JSON; with a secret, what is sent is signed.
    Webhook {
        /// The key of the signature.
        secret: Option<SecretString>,
    },
    /// Prometheus's Alertmanager.
    Alertmanager,
}

/// A sink cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Its address is none.
    #[error("the sink {name} has a URL that cannot be used: {reason}")]
    Url {
        /// Its name.
        name: String,
        /// What is wrong with it; never the URL.
        reason: String,
    },
    /// The machine has no means to talk to it.
    #[error("the sink {name} cannot be talked to: {reason}")]
    Client {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// A sink that is ready to be told.
pub(super) struct Sink {
    pub(super) audience: Audience,
    client: Client,
    url: Url,
    kind: SinkKind,
    runbook_base: String,
}

/// What a sink's answer means.
enum Answer {
    /// It has been told.
    Sent,
    /// It will never want it: the same would be refused again.
    Refused(String),
}

/// It may want it later.
struct Later(String);

impl Sink {
    /// Makes sure of the address. Redirects are not followed: they would carry what is told, and its
    /// signature, to somebody who is not configured.
    pub(super) fn new(settings: SinkSettings, runbook_base: &str) -> Result<Self, SinkError> {
        // Whoever comes first installs it; a second one is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let name = settings.name;
        let url = Url::parse(settings.url.expose_secret())
            .map_err(|error| SinkError::Url { name: name.clone(), reason: error.to_string() })?;
        let client = Client::builder()
            .user_agent(concat!("nexusd/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(settings.timeout)
            .build()
            .map_err(|error| SinkError::Client { name: name.clone(), reason: innermost(&error) })?;
        let audience = Audience { name, least: settings.least };
        let runbook_base = runbook_base.trim_end_matches('/').to_owned();
        Ok(Self { audience, client, url, kind: settings.kind, runbook_base })
    }

    /// Where the page of an alert's finding is.
    fn runbook(&self, telling: &Telling) -> String {
        format!("{}/{}.md", self.runbook_base, telling.alert.finding.kind)
    }

    /// How often the sink is told again what it knows.
    fn refresh(&self) -> Duration {
        match self.kind {
            SinkKind::Webhook { .. } => Duration::from_hours(24),
            SinkKind::Alertmanager => alertmanager::REFRESH,
        }
    }

    /// Tells what there is to tell, or `whole`: all that stands too; stops at the first failure.
    async fn round(&self, shared: &Shared, whole: bool) -> Result<(), Later> {
        let mut due = shared.lives().due(&self.audience);
        // Who leads next would tell what is not kept once more, as another alert.
        shared.keep_beside().await.map_err(|failure| Later(failure.message))?;
        match &self.kind {
            SinkKind::Webhook { secret } => {
                for telling in due {
                    let request = webhook::request(self, secret.as_ref(), &telling, Timestamp::now());
                    self.deliver(shared, request, &[telling]).await?;
                }
            }
            SinkKind::Alertmanager => {
                if whole {
                    due.retain(|telling| telling.alert.resolved.is_some());
                    due.extend(shared.lives().standing(&self.audience));
                }
                for batch in due.chunks(alertmanager::BATCH) {
                    let request = alertmanager::request(self, batch, Timestamp::now());
                    self.deliver(shared, request, batch).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends one request and tells of it. What was refused for good is not sent again.
    async fn deliver(&self, shared: &Shared, request: RequestBuilder, told: &[Telling]) -> Result<(), Later> {
        let _telling = shared.telling.read().await;
        if !shared.leads() {
            return Err(Later("this daemon does not lead any more".to_owned()));
        }
        let answer = self.send(request).await;
        let outcome = match &answer {
            Ok(Answer::Sent) => "sent",
            Ok(Answer::Refused(reason)) => {
                tracing::warn!(
                    sink = self.audience.name,
                    reason,
                    "the sink refused an alert: it is not sent again"
                );
                "dropped"
            }
            Err(_) => "failed",
        };
        shared.emit("", EventKind::AlertSent { sink: self.audience.name.clone(), outcome });
        answer?;
        for telling in told {
            shared.delivered(&self.audience, telling);
        }
        shared.keep_beside().await.map_err(|failure| Later(failure.message))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Later> {
        let status = match request.send().await {
            Ok(response) => response.status(),
            Err(error) if error.is_timeout() => return Err(Later("it does not answer in time".into())),
            Err(error) => return Err(Later(innermost(&error.without_url()))),
        };
        let reason = format!("it answers {status}");
        match status {
            _ if status.is_success() => Ok(Answer::Sent),
            // About what was sent: sending it again would change nothing. All else may pass.
            StatusCode::BAD_REQUEST
            | StatusCode::GONE
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Ok(Answer::Refused(reason)),
            _ => Err(Later(reason)),
        }
    }
}

/// Tells one sink until the end, and then once more. A round that is under way at the end and the last one
/// have one deadline together.
pub(super) async fn run(sink: Sink, shared: Arc<Shared>, mut changed: watch::Receiver<()>) {
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times();
    let mut delays = None;
    let mut refreshed: Option<Instant> = None;
    let mut end = std::pin::pin!(async {
        shared.stop.cancelled().await;
        tokio::time::sleep(FLUSH).await;
    });
    let mut leads = shared.leads.subscribe();
    loop {
        let is_last = shared.stop.is_cancelled();
        if !*leads.borrow_and_update() {
            (delays, refreshed) = (None, None);
            tokio::select! {
                _ = leads.changed() => continue,
                () = shared.stop.cancelled() => return,
            }
        }
        changed.borrow_and_update();
        let whole = refreshed.is_none_or(|at| at.elapsed() >= sink.refresh());
        let told = tokio::select! {
            told = sink.round(&shared, whole) => told,
            () = &mut end => return,
        };
        if is_last {
            return;
        }
        let name = &sink.audience.name;
        let pause = match (told, &mut delays) {
            (Ok(()), before) => {
                if before.take().is_some() {
                    tracing::info!(sink = name, "the sink of alerts is back");
                }
                if whole {
                    refreshed = Some(Instant::now());
                }
                sink.refresh().saturating_sub(refreshed.map_or(Duration::ZERO, |at| at.elapsed()))
            }
            (Err(Later(reason)), before) => {
                if before.is_none() && shared.leads() {
                    tracing::warn!(
                        sink = name,
                        reason,
                        "the sink of alerts cannot be told; it is tried again"
                    );
                }
                before.get_or_insert_with(|| backoff.build()).next().unwrap_or(LONGEST_PAUSE)
            }
        };
        tokio::select! {
            _ = changed.changed(), if delays.is_none() => {}
            _ = leads.wait_for(|leads| !leads) => {}
            () = tokio::time::sleep(pause) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// The last cause of an error, which says what happened without naming the URL.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}
