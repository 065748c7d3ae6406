//! The layer that knows who asks, and lets nothing through that they may not do. It is the one place: a
//! service finds the [`Permit`] with the request, and asks it where databases are resolved.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    access::{Authenticate, Caller, Peer, Permit, identity::bearer, rule},
    auditlog::AuditLog,
    migration::{Code, Failure},
    rpc::status::of_failure,
};

/// Lets in who may come in.
#[derive(Clone)]
pub struct AccessLayer {
    authenticate: Authenticate,
    audit_log: AuditLog,
}

impl AccessLayer {
    /// Asks `authenticate` who asks, and has `audit_log` know whom it refuses.
    pub fn new(authenticate: Authenticate, audit_log: AuditLog) -> Self {
        Self { authenticate, audit_log }
    }

    /// The permit of a request; a status that refuses it.
    fn permit<B>(&self, request: &http::Request<B>) -> Result<Permit, Status> {
        let path = request.uri().path();
        // First, so that no names that clients make up are counted as methods.
        let Some(rule) = rule::of(path) else {
            return Err(Status::unimplemented(format!("nexusd knows no {path}")));
        };
        let peer = request.extensions().get::<Peer>().ok_or_else(|| {
            of_failure(&Failure::new(Code::NoCredential, "It is not known where the request comes from"))
        })?;
        if rule.least.is_none() {
            // Nobody has to say who they are, so that nothing that they say is wrong.
            return Ok(Permit::nothing(peer.from));
        }
        let header = request.headers().get(http::header::AUTHORIZATION);
        let token = bearer(header.map(|header| header.to_str().unwrap_or_default()));
        let refused = |caller: Option<&Caller>, failure: &Failure| {
            self.audit_log.refused(rule.path, caller, peer.from, failure);
            of_failure(failure)
        };
        let (caller, grants) = (self.authenticate)(peer, token).map_err(|failure| refused(None, &failure))?;
        Permit::new(caller.clone(), grants, rule).map_err(|failure| refused(Some(&caller), &failure))
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
                Box::pin(self.inner.call(request))
            }
            Err(status) => {
                let response = status.into_http();
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}

/// The permit of a request. One that has none did not come through the layer, and may do nothing.
pub(super) fn permit<T>(request: &tonic::Request<T>) -> Result<Permit, Status> {
    request
        .extensions()
        .get::<Permit>()
        .cloned()
        .ok_or_else(|| of_failure(&Failure::new(Code::NoCredential, "Nothing says who asks")))
}
