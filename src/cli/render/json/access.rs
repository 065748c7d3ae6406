//! The documents of `context list` and `token create`.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::context::store;

/// What `context list` says.
#[derive(Debug, Serialize)]
pub struct Contexts {
    current: Option<String>,
    contexts: Vec<Context>,
}

#[derive(Debug, Serialize)]
struct Context {
    name: String,
    server: String,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl From<&store::Contexts> for Contexts {
    fn from(contexts: &store::Contexts) -> Self {
        let context = |(name, noted): (&String, &store::Noted)| {
            let store::Noted { server, ca, cert, key, token_file } = noted.clone();
            Context { name: name.clone(), server, ca, cert, key, token_file }
        };
        Self { current: contexts.current.clone(), contexts: contexts.by_name.iter().map(context).collect() }
    }
}

/// What `token create` made.
#[derive(Serialize)]
pub struct NewToken {
    /// The token, where it was written to no file.
    pub token: Option<String>,
    /// The file that it was written to.
    pub file: Option<PathBuf>,
    /// The entry of the daemon's file.
    pub entry: String,
}
