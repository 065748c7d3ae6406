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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/json-output.md");

    fn check(command: &str, document: &impl Serialize) {
        let document = serde_json::to_string_pretty(document).expect("it is a document");
        let section =
            PAGE.split(&format!("## `{command}`\n")).nth(1).and_then(|rest| rest.split("\n## ").next());
        let shown = format!("```json\n{document}\n```");
        assert!(
            section.is_some_and(|section| section.contains(&shown)),
            "{command} should read:\n{document}"
        );
    }

    #[test]
    fn documents_are_those_of_the_page() {
        let noted = store::Noted {
            server: "https://nexus.example.com:7421".into(),
            ca: Some("/etc/nexus/ca.pem".into()),
            cert: None,
            key: None,
            token_file: Some("/home/ana/.config/nexus/prod.token".into()),
        };
        let contexts =
            store::Contexts { current: Some("prod".into()), by_name: [("prod".to_owned(), noted)].into() };
        check("context list", &Contexts::from(&contexts));
        let entry = "[[token]]\nname = \"ci\"\n".to_owned();
        let made = NewToken { token: None, file: Some("ci.token".into()), entry };
        check("token create", &made);
    }
}
