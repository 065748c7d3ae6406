//! Which daemon is meant, and what it is shown: by the options, else by a context.

use std::{fs, path::Path};

use crate::{
    cli::{
        Refusal,
        context::{
            known,
            store::{Contexts, Noted},
        },
        session::Session,
    },
    redact::{GuardedFile, SecretString, mask_text},
    rpc::client::{Address, Credentials, DEFAULT_ADDRESS},
};

impl Session {
    /// The daemon, and what it is shown. Where `--server` names one, the current context does not count, and
    /// one that is named too has to be that daemon's: what one daemon is shown is no other's business.
    pub fn target(&self) -> anyhow::Result<(Address, Credentials)> {
        let global = &self.global;
        let named = global.context.as_deref().filter(|name| !name.is_empty());
        let noted = match (named, &global.server) {
            (Some(name), _) => Some(known(&Contexts::read()?, name)?.clone()),
            (None, Some(_)) => None,
            (None, None) => {
                let contexts = Contexts::read()?;
                contexts.current.as_ref().map(|name| known(&contexts, name).cloned()).transpose()?
            }
        };
        if let (Some(name), Some(noted), Some(server)) = (named, &noted, &global.server)
            && !noted
                .server
                .parse()
                .is_ok_and(|of_context: Address| of_context.to_string() == server.to_string())
        {
            let message = format!("The context {name:?} is for {}, and not for {server}", noted.server);
            let hint = "leave out --server (NEXUS_SERVER) or --context (NEXUS_CONTEXT): what one daemon is shown is no other's business";
            return Err(Refusal::new(message, hint).into());
        }
        let noted = noted.unwrap_or_else(|| Noted {
            server: DEFAULT_ADDRESS.to_owned(),
            ca: None,
            cert: None,
            key: None,
            token_file: None,
        });
        let address = match &global.server {
            Some(server) => server.clone(),
            None => noted.server.parse().map_err(|error| {
                Refusal::new(format!("The context's server {:?}: {error}", noted.server), "add it again")
            })?,
        };
        let noted = Noted {
            server: address.to_string(),
            ca: global.ca.clone().or(noted.ca),
            cert: global.cert.clone().or(noted.cert),
            key: global.key.clone().or(noted.key),
            token_file: global.token_file.clone().or(noted.token_file),
        };
        Ok((address, self.credentials_of(&noted)?))
    }

    /// What the files of a context hold.
    pub fn credentials_of(&self, noted: &Noted) -> anyhow::Result<Credentials> {
        let certificate = match (&noted.cert, &noted.key) {
            (Some(cert), Some(key)) => Some((public(cert)?, secret(key)?)),
            (None, None) => None,
            _ => {
                return Err(
                    Refusal::new("A certificate and its key go together", "give --cert and --key").into()
                );
            }
        };
        Ok(Credentials {
            authorities: noted.ca.as_deref().map(public).transpose()?,
            certificate,
            token: noted.token_file.as_deref().map(secret).transpose()?,
        })
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    let message = format!("Cannot read {}: {error}", mask_text(&path.display().to_string()));
    Refusal::new(message, "see --token-file, --cert, --key and --ca, or nexusctl context list")
}

fn public(path: &Path) -> Result<Vec<u8>, Refusal> {
    fs::read(path).map_err(|error| unreadable(path, &error))
}

/// A file that is for its owner only.
fn secret(path: &Path) -> Result<SecretString, Refusal> {
    let file = GuardedFile::read_whatever(path).map_err(|error| unreadable(path, &error))?;
    file.refuse_others().map_err(|message| Refusal::new(message, "what says who you are is for you only"))?;
    let text = file.into_text().map_err(|error| unreadable(path, &error))?;
    Ok(text.trim().to_owned().into())
}
