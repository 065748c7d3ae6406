//! What somebody asks for, as the audit log tells it.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::redact;

/// What somebody asks for. What is empty is not told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Who they say that they are: that counts where nothing else says it.
    pub claimed: String,
    /// The request's id, as it was given.
    pub request_id: String,
    /// Names or globs of databases.
    pub databases: Vec<String>,
    /// Selectors.
    pub selectors: Vec<String>,
    /// Every database.
    pub all: bool,
    /// Why, in their words.
    pub reason: String,
    /// The digest of the plan that it is held to.
    pub plan: String,
    /// It asks only what would be done.
    pub dry_run: bool,
    /// What else there is to say: a version, a number of steps, the id of an alert.
    pub details: Vec<(&'static str, String)>,
}

/// The longest text of somebody's that is told.
const LONGEST: usize = 1_000;

/// How many names are told.
const MOST: usize = 100;

impl Asked {
    /// The same with something else to say.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.details.push((key, value.into()));
        self
    }

    /// As fields of a record.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
        let id = Uuid::parse_str(&self.request_id).map(|id| id.to_string());
        let texts =
            [("request_id", id.unwrap_or_else(|_| plain(&self.request_id))), ("plan", plain(&self.plan))];
        let texts = texts.into_iter().chain([("reason", plain(&self.reason))]);
        let details = self.details.iter().map(|(key, value)| (*key, plain(value)));
        for (key, text) in texts.chain(details).filter(|(_, text)| !text.is_empty()) {
            put(key, text.into());
        }
        if self.dry_run {
            put("dry_run", true.into());
        }
        let mut selection = Map::new();
        for (key, texts) in [("databases", &self.databases), ("selectors", &self.selectors)] {
            if !texts.is_empty() {
                selection.insert(key.to_owned(), names(texts));
            }
        }
        if self.all {
            selection.insert("all".to_owned(), true.into());
        }
        if !selection.is_empty() {
            put("selection", selection.into());
        }
        fields
    }
}

/// A list of names, which is not longer than it has to be.
pub(super) fn names(names: &[String]) -> Value {
    let more = names.len().saturating_sub(MOST);
    let told = names.iter().take(MOST).map(|name| plain(name));
    told.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

fn plain(text: &str) -> String {
    redact::plain(text, LONGEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cut_leaves_no_password() {
        let reason = format!("{} postgres://u:s3cr3t-of-mine@h/d", "x".repeat(LONGEST - 20));
        let fields = Asked { reason, ..Asked::default() }.fields();
        assert!(!fields["reason"].to_string().contains("s3cr"), "{fields:?}");
    }

    #[test]
    fn what_is_asked_is_told_in_few_words() {
        let asked = Asked {
            reason: format!("CHG-1\n{}", "x".repeat(2_000)),
            databases: (0..150).map(|number| format!("d{number}")).collect(),
            all: true,
            ..Asked::default()
        };
        let fields = asked.with("steps", "3").with("to", "").fields();
        assert_eq!(fields["reason"].as_str().map(str::len), Some(LONGEST));
        assert_eq!(fields["selection"]["databases"][100], "and 50 more");
        assert_eq!((&fields["steps"], fields.contains_key("to")), (&json!("3"), false));
        assert_eq!(Asked::default().fields(), Map::new());
    }
}
