//! What a record says, before it has its place in the chain.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::redact::redact_json;

/// The field of records that tell of somebody else's changes.
pub(super) const TAMPERING: &str = "tampering";

/// What a record says.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What happened, in a word.
    pub(super) event: &'static str,
    /// When.
    pub(super) time: Timestamp,
    fields: Map<String, Value>,
}

/// A file that a change uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedFile {
    /// The migration.
    pub version: String,
    /// What is done with it.
    pub action: String,
    /// Its name; empty where no script is run.
    pub file: String,
    /// The SHA-256 of its bytes, in hexadecimal digits; empty where no script is run.
    pub sha256: String,
}

impl Entry {
    /// Something that happens now.
    pub(super) fn new(event: &'static str) -> Self {
        Self { event, time: Timestamp::now(), fields: Map::new() }
    }

    /// Something about the file itself.
    pub(super) fn noticed(text: impl Into<String>) -> Self {
        Self::new("noticed").with("noticed", text.into())
    }

    /// Something about the file that nexusd does not do: somebody else has changed it. `verify` finds no file well
    /// that tells so.
    pub(super) fn tampering(text: impl Into<String>) -> Self {
        Self::noticed(text).with(TAMPERING, true)
    }

    /// Whether it is one of those.
    pub(super) fn is_tampering(&self) -> bool {
        self.fields.contains_key(TAMPERING)
    }

    /// The same with a field. What is empty is left out.
    #[must_use]
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let is_empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.fields.insert(key.to_owned(), value);
        }
        self
    }

    /// The same with the fields of another one, whose own come first.
    #[must_use]
    pub(super) fn with_all(mut self, fields: &Map<String, Value>) -> Self {
        self.fields.extend(fields.iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    /// Its fields, without anything secret.
    pub(super) fn redacted(&self) -> Map<String, Value> {
        let mut fields = Value::Object(self.fields.clone());
        redact_json(&mut fields);
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// The same files, as a field has them.
    pub(super) fn files(files: &[UsedFile]) -> Value {
        let file = |it: &UsedFile| {
            let UsedFile { version, action, file, sha256 } = it;
            let fields = [("version", version), ("action", action), ("file", file), ("sha256", sha256)];
            let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
            Value::Object(given.map(|(key, text)| (key.to_owned(), text.as_str().into())).collect())
        };
        files.iter().map(file).collect()
    }
}
