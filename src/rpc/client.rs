//! The client's side of the control plane: an address, a connection, and errors that carry the stable code.

mod address;
mod credentials;
mod health;

use std::{error::Error as _, time::Duration};

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::{
    migration::TraceContext,
    rpc::proto::{
        self, alert_service_client::AlertServiceClient, audit_log_service_client::AuditLogServiceClient,
        audit_service_client::AuditServiceClient, fleet_service_client::FleetServiceClient,
        migration_service_client::MigrationServiceClient, operation_service_client::OperationServiceClient,
    },
};

pub use address::{Address, AddressError, DEFAULT_ADDRESS};
pub use credentials::Credentials;

/// The type URL under which a status carries a whole [`proto::Failure`].
pub const FAILURE_TYPE_URL: &str = "type.googleapis.com/nexus.v1.Failure";

/// A status of 1,000 migrations on 100 databases takes 15 MiB; more than this is not believed.
const MAX_MESSAGE: usize = 64 << 20;

/// A silent daemon is not asked more often than this whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What rustls says of bytes that are no TLS.
const NO_TLS: &str = "InvalidContentType";

/// What h2 says where bytes without TLS are refused: by an alert, which as a frame would be longer than any
/// may be, or by the end of the connection.
const ONLY_TLS: [&str; 3] = ["frame with invalid size", "broken pipe", "connection reset"];

/// Why a call did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers at the address, or it is no daemon of ours.
    #[error("Cannot reach nexusd at {address}: {reason}")]
    Unreachable {
        /// Where it was tried.
        address: Address,
        /// What the system said.
        reason: String,
    },
    /// The connection broke, or fell silent, after the request was sent.
    #[error("The connection to nexusd at {address} was lost: {reason}")]
    Lost {
        /// The daemon.
        address: Address,
        /// What the system said.
        reason: String,
    },
    /// The daemon does not know who asks.
    #[error("nexusd at {address} did not accept who you are: {}", failure.message)]
    Unauthenticated {
        /// The daemon.
        address: Address,
        /// What it said.
        failure: Box<proto::Failure>,
    },
    /// A certificate, a key or a token is none.
    #[error("The credentials cannot be used: {reason}")]
    Credentials {
        /// What is wrong with them.
        reason: String,
    },
    /// A token would be read by whoever is on the way.
    #[error("A token is not sent to {address}: it would be readable on its way")]
    InTheClear {
        /// The daemon.
        address: Address,
    },
    /// The daemon understood the request and refused it.
    #[error("{}", .0.message)]
    Refused(Box<proto::Failure>),
}

impl ClientError {
    /// What is shown: the daemon's own failure, or one that says what to do about the connection.
    pub fn failure(&self) -> proto::Failure {
        let hint = match self {
            Self::Refused(failure) => return proto::Failure::clone(failure),
            Self::Unreachable { address, reason } | Self::Lost { address, reason }
                if address.is_tls() && reason.contains(NO_TLS) =>
            {
                "nexusd speaks no TLS there: name it with http:// in --server, NEXUS_SERVER or the context"
            }
            Self::Unreachable { address, reason } | Self::Lost { address, reason }
                if address.to_string().starts_with("http://")
                    && ONLY_TLS.iter().any(|words| reason.contains(words)) =>
            {
                "see whether nexusd still runs there; where it speaks TLS, name it with https:// in --server, NEXUS_SERVER or the context"
            }
            Self::Unreachable { address, .. } if address.is_tls() => {
                "is nexusd running there, with TLS? --ca names the authority of its certificate, where the system does not trust it"
            }
            Self::Unreachable { .. } => {
                "is nexusd running there? `nexusd serve --config nexus.toml` starts it; --server or NEXUS_SERVER names another address"
            }
            Self::Lost { .. } => "see whether nexusd still runs there, and ask again",
            Self::Unauthenticated { failure, .. } => {
                let hint = if failure.hint.is_empty() {
                    "see whether --server or NEXUS_SERVER names the daemon you mean"
                } else {
                    &failure.hint
                };
                let (message, hint) = (self.to_string(), hint.to_owned());
                return proto::Failure { message, hint, ..proto::Failure::clone(failure) };
            }
            Self::Credentials { .. } => "see --token-file, --cert, --key and --ca, or nexusctl context list",
            Self::InTheClear { .. } => {
                "use https://, or the Unix socket, or ssh -L to the machine's loopback"
            }
        };
        proto::Failure { message: self.to_string(), hint: hint.to_owned(), ..Default::default() }
    }
}

/// A connection to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    address: Address,
    headers: Headers,
}

/// Puts into every request the caller's place in a trace, as W3C's Trace Context has it, and their token.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    parent: Option<AsciiMetadataValue>,
    authorization: Option<AsciiMetadataValue>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = [("traceparent", &self.parent), ("authorization", &self.authorization)];
        for (name, value) in headers {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.clone());
            }
        }
        Ok(request)
    }
}

impl Client {
    /// Connects within `deadline`. A daemon that falls silent later is asked after as long whether it
    /// is there, and given up after as long again.
    pub async fn connect(
        address: &Address,
        credentials: &Credentials,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let headers = Headers { parent: None, authorization: credentials.authorization(address)? };
        let unreachable = |reason: String| ClientError::Unreachable { address: address.clone(), reason };
        let endpoint = Endpoint::from_shared(address.to_string())
            .map_err(|error| unreachable(innermost(&error)))?
            .user_agent(concat!("nexusctl/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| unreachable(innermost(&error)))?
            .connect_timeout(deadline)
            .http2_keep_alive_interval(deadline.max(KEEP_ALIVE))
            .keep_alive_timeout(deadline);
        let endpoint = credentials.secure(endpoint, address)?;
        match tokio::time::timeout(deadline, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(Self { channel, address: address.clone(), headers }),
            Ok(Err(error)) => Err(unreachable(innermost(&error))),
            Err(_) => Err(unreachable(format!("no answer within {}", humantime::format_duration(deadline)))),
        }
    }

    /// The same, with requests that belong to a trace.
    #[must_use]
    pub fn traced(self, context: TraceContext) -> Self {
        let headers = Headers { parent: context.to_string().parse().ok(), ..self.headers };
        Self { headers, ..self }
    }

    /// Where it is connected to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The service that works on migrations.
    pub fn migrations(&self) -> MigrationServiceClient<InterceptedService<Channel, Headers>> {
        MigrationServiceClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The service that tells of the daemon and its databases.
    pub fn fleet(&self) -> FleetServiceClient<InterceptedService<Channel, Headers>> {
        FleetServiceClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The service that tells of alerts.
    pub fn alerts(&self) -> AlertServiceClient<InterceptedService<Channel, Headers>> {
        AlertServiceClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The service that audits.
    pub fn audits(&self) -> AuditServiceClient<InterceptedService<Channel, Headers>> {
        AuditServiceClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The service that tells of the audit log.
    pub fn audit_log(&self) -> AuditLogServiceClient<InterceptedService<Channel, Headers>> {
        AuditLogServiceClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The service that tells of operations and steers them.
    pub fn operations(&self) -> OperationServiceClient<InterceptedService<Channel, Headers>> {
        OperationServiceClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// The message of a response, or what its status means.
    pub fn answer<T>(&self, response: Result<Response<T>, Status>) -> Result<T, ClientError> {
        response.map(Response::into_inner).map_err(|status| self.error(&status))
    }

    /// The events of a stream of responses.
    pub fn events<T>(
        &self,
        responses: Streaming<T>,
        event: fn(T) -> Option<proto::Event>,
    ) -> impl Stream<Item = Result<Option<proto::Event>, ClientError>> + use<T> {
        let client = self.clone();
        responses.map(move |response| response.map(event).map_err(|status| client.error(&status)))
    }

    /// What a status of this daemon means.
    pub fn error(&self, status: &Status) -> ClientError {
        let address = self.address.clone();
        let reason = || status.message().to_owned();
        if status.source().is_some() {
            return ClientError::Lost { address, reason: innermost(status) };
        }
        match (status.code(), failure_of(status)) {
            (Code::Unauthenticated, failure) => {
                let unknown = || proto::Failure { message: reason(), ..Default::default() };
                ClientError::Unauthenticated { address, failure: Box::new(failure.unwrap_or_else(unknown)) }
            }
            (_, Some(failure)) => ClientError::Refused(Box::new(failure)),
            (Code::Unavailable, None) => ClientError::Unreachable { address, reason: reason() },
            (Code::Unimplemented, None) => ClientError::Refused(Box::new(proto::Failure {
                message: format!("nexusd at {address} does not know this request"),
                hint: "compare the versions: nexusctl version".to_owned(),
                ..Default::default()
            })),
            (code, None) => ClientError::Refused(Box::new(proto::Failure {
                message: if status.message().is_empty() { code.to_string() } else { reason() },
                ..Default::default()
            })),
        }
    }

    /// The connection ended without the last event of an operation.
    pub fn ended_early(&self) -> ClientError {
        ClientError::Lost { address: self.address.clone(), reason: "the stream ended early".to_owned() }
    }
}

/// The failure that a status of ours carries: whole, as [`FAILURE_TYPE_URL`], or in the `ErrorInfo`,
/// whose reason is the code and whose metadata may hold `hint`, `version`, `sqlstate` and `details`.
fn failure_of(status: &Status) -> Option<proto::Failure> {
    let whole = tonic_types::Status::decode(status.details()).ok().and_then(|rich| {
        let any = rich.details.into_iter().find(|any| any.type_url == FAILURE_TYPE_URL)?;
        proto::Failure::decode(any.value.as_slice()).ok()
    });
    if whole.is_some() {
        return whole;
    }
    let mut info = status.get_details_error_info().filter(|info| info.domain == "nexus")?;
    let mut take = |key| info.metadata.remove(key).unwrap_or_default();
    Some(proto::Failure {
        hint: take("hint"),
        version: take("version"),
        sqlstate: take("sqlstate"),
        details: take("details").lines().map(str::to_owned).collect(),
        code: info.reason,
        message: status.message().to_owned(),
        ..Default::default()
    })
}

/// The last cause of an error: what the system said, without the layers that passed it on.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, pb};

    use super::*;

    fn client() -> Client {
        let channel = Endpoint::from_static(DEFAULT_ADDRESS).connect_lazy();
        let address = DEFAULT_ADDRESS.parse().expect("the default is an address");
        Client { channel, address, headers: Headers::default() }
    }

    #[tokio::test]
    async fn an_error_info_gives_code_and_hint() {
        let metadata = [("hint", "name them"), ("details", "orders\nusers")];
        let metadata: HashMap<_, _> = metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let details = ErrorDetails::with_error_info("NX0051", "nexus", metadata);
        let status = Status::with_error_details(Code::InvalidArgument, "Several databases", details);
        let failure = client().error(&status).failure();
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("NX0051", "Several databases"));
        assert_eq!((failure.hint.as_str(), failure.details.len()), ("name them", 2));
    }

    #[tokio::test]
    async fn a_whole_failure_is_taken_as_it_is() {
        let sent =
            proto::Failure { code: "NX0030".into(), message: "it failed".into(), ..Default::default() };
        let any = prost_types::Any { type_url: FAILURE_TYPE_URL.into(), value: sent.encode_to_vec() };
        let rich = pb::Status { code: 9, message: "it failed".into(), details: vec![any] };
        let status = Status::with_details(Code::FailedPrecondition, "it failed", rich.encode_to_vec().into());
        assert_eq!(client().error(&status).failure(), sent);
    }

    #[tokio::test]
    async fn what_is_not_ours_is_told_apart() {
        let error = |code, text| client().error(&Status::new(code, text));
        assert!(matches!(error(Code::Unavailable, "x"), ClientError::Unreachable { .. }));
        assert!(matches!(error(Code::Unauthenticated, "x"), ClientError::Unauthenticated { .. }));
        assert!(matches!(error(Code::NotFound, "x"), ClientError::Refused(_)));
        assert!(!error(Code::Internal, "").failure().message.is_empty());
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address: Address = listener.local_addr().expect("bound").to_string().parse().expect("an address");
        drop(listener);
        let error = Client::connect(&address, &Credentials::default(), Duration::from_secs(5))
            .await
            .expect_err("nobody listens");
        assert!(error.to_string().contains("Connection refused"), "{error}");
        let socket: Address = "unix:/nowhere/nexus.sock".parse().expect("an address");
        let error = Client::connect(&socket, &Credentials::default(), Duration::from_secs(5))
            .await
            .expect_err("no such socket");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
