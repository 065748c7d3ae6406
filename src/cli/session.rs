//! What a command works with: its global arguments, the console, and the daemon once it is connected.

use nix::unistd::{User, geteuid, gethostname};
use uuid::Uuid;

use crate::{
    cli::{args::Global, console::Console},
    migration::TraceContext,
    rpc::{
        client::{Address, Client, ClientError, Credentials},
        proto,
    },
};

/// One run of `nexusctl`.
pub struct Session {
    /// The arguments that every command takes.
    pub global: Global,
    /// Where the answer goes.
    pub console: Console,
    /// The id of the request, so that its outcome can be asked for again.
    pub request_id: Uuid,
    /// Why it is made, where somebody said so.
    pub reason: String,
    /// The trace of the command, once it runs.
    pub trace: Option<TraceContext>,
}

impl Session {
    /// A session that is not connected yet.
    pub fn new(global: Global) -> Self {
        let request_id = global.request_id.unwrap_or_else(Uuid::now_v7);
        let (console, reason) = (Console::new(global.output), String::new());
        Self { console, request_id, reason, trace: None, global }
    }

    /// Connects to the daemon.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let (address, credentials) = self.target()?;
        Ok(self.connect_to(&address, &credentials).await?)
    }

    /// Connects to a daemon.
    pub async fn connect_to(
        &self,
        address: &Address,
        credentials: &Credentials,
    ) -> Result<Client, ClientError> {
        let client = Client::connect(address, credentials, self.global.timeout).await?;
        Ok(match self.trace {
            Some(trace) => client.traced(trace),
            None => client,
        })
    }

    /// The databases that the request is about.
    #[allow(clippy::unnecessary_wraps, reason = "messages are optional in proto's requests")]
    pub fn selection(&self) -> Option<proto::Selection> {
        Some(self.global.selection())
    }

    /// What a mutating request says of itself.
    #[allow(clippy::unnecessary_wraps, reason = "messages are optional in proto's requests")]
    pub fn context(&self) -> Option<proto::RequestContext> {
        Some(proto::RequestContext {
            request_id: self.request_id.to_string(),
            requested_by: requested_by(),
            reason: self.reason.clone(),
        })
    }
}

/// `user@host`, for the journal and for acknowledgements: by the process's effective user, not by what the environment claims.
pub fn requested_by() -> String {
    let uid = geteuid();
    let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    let host =
        gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned());
    format!("{user}@{host}")
}
