//! The layer that knows who asks, and lets nothing through that they may not do. It is the one place: a
//! service finds the [`Permit`] with the request, and asks it where databases are resolved.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    access::{
        Authenticate, Peer, Permit,
        admit::{Refusal, admit},
        rule,
    },
    auditlog::AuditLog,
    migration::{Code, Failure},
    rpc::{
        pace::Pace,
        status::{of_failure, of_failure_for},
    },
};

/// How much is asked of the daemon at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long a request may take until its answer begins.
    pub timeout: Duration,
    /// How many requests that change something one caller makes in a minute.
    pub changes_per_minute: NonZeroU32,
}

/// Lets in who may come in.
#[derive(Clone)]
pub struct AccessLayer {
    authenticate: Authenticate,
    audit_log: AuditLog,
    pace: Arc<Pace>,
    timeout: Duration,
}

impl AccessLayer {
    /// Asks `authenticate` who asks, and has `audit_log` know whom it refuses.
    pub fn new(authenticate: Authenticate, audit_log: AuditLog, bounds: Bounds) -> Self {
        let pace = Arc::new(Pace::new(bounds.changes_per_minute));
        Self { authenticate, audit_log, pace, timeout: bounds.timeout }
    }

    /// The permit of a request; a status that refuses it.
    fn permit<B>(&self, request: &http::Request<B>) -> Result<Permit, Status> {
        let path = request.uri().path();
        // First, so that no names that clients make up are counted as methods.
        let Some(rule) = rule::of(path) else {
            return Err(Status::unimplemented(format!("nexusd knows no {path}")));
        };
        let peer = request.extensions().get::<Peer>();
        let header = request.headers().get(http::header::AUTHORIZATION);
        let permit = admit(&self.authenticate, peer, header.map(http::HeaderValue::as_bytes), rule).map_err(
            |refusal| {
                let Refusal { caller, from, failure } = *refusal;
                self.audit_log.refused(rule.path, caller.as_ref(), from, &failure);
                of_failure(&failure)
            },
        )?;
        self.pace.keep(rule, permit.caller()).map_err(|(failure, wait)| {
            self.audit_log.refused(rule.path, Some(permit.caller()), permit.caller().from, &failure);
            of_failure_for(&failure, wait)
        })?;
        Ok(permit)
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> AccessService<S> {
        AccessService { inner, layer: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct AccessService<S> {
    inner: S,
    layer: AccessLayer,
}

impl<S, B> Service<http::Request<B>> for AccessService<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        match self.layer.permit(&request) {
            Ok(permit) => {
                // What it was shown by goes no further than this.
                request.headers_mut().remove(http::header::AUTHORIZATION);
                request.extensions_mut().insert(permit);
                let (limit, answer) = (self.layer.timeout, self.inner.call(request));
                Box::pin(async move {
                    let timed_out = |_| Ok(of_failure(&timed_out(limit)).into_http());
                    tokio::time::timeout(limit, answer).await.unwrap_or_else(timed_out)
                })
            }
            Err(status) => {
                let response = status.into_http();
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}

fn timed_out(limit: Duration) -> Failure {
    let limit = humantime::format_duration(limit);
    Failure::new(Code::RequestTimedOut, format!("The request took longer than {limit}"))
}

/// The permit of a request. One that has none did not come through the layer, and may do nothing.
pub(super) fn permit<T>(request: &tonic::Request<T>) -> Result<Permit, Status> {
    request
        .extensions()
        .get::<Permit>()
        .cloned()
        .ok_or_else(|| of_failure(&Failure::new(Code::NoCredential, "Nothing says who asks")))
}
