//! What must never be read by the wrong eyes: secrets, credentials in URLs, values in SQL messages.
//!
//! Masking errs on the side of hiding: a text that cannot be told apart from a credential goes too.

mod file;
mod sql;
mod text;

pub use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

pub use self::{
    file::{GuardedFile, open_for_its_owner, refuse_others, refuse_others_in},
    sql::{mask_sql, safe_nested_message, safe_sql_message, safe_text, without_quoted_sql},
    text::{TOKEN_PREFIX, mask_sink_url, mask_text, mask_url, plain},
};

/// What stands in JSON in the place of a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Hides secrets in a JSON value, at any depth: the values of secret keys (see [`is_secret_key`])
/// become [`REDACTED`], and every other string loses the credentials in it (see [`mask_text`]).
pub fn redact_json(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if is_secret_key(key) {
                    *field = Value::String(REDACTED.to_owned());
                } else {
                    redact_json(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact_json),
        Value::String(text) => *text = mask_text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a key names a secret: one of the runbook's (password, secret, token, key,
/// connectionString, `DATABASE_URL`) or a compound of one, in any spelling.
///
/// Whole words count, after `camelCase` and `snake_case` are split: `api_key` is one, `monkey` is not.
pub fn is_secret_key(key: &str) -> bool {
    let words = words(key);
    let joined = words.concat();
    words.iter().any(|word| is_secret_word(word))
        || joined.contains("connectionstring")
        || joined.contains("databaseurl")
}

fn is_secret_word(word: &str) -> bool {
    const WORDS: [&str; 8] =
        ["key", "keys", "pwd", "tokens", "secrets", "authorization", "credential", "credentials"];
    const ENDINGS: [&str; 5] = ["password", "passwd", "passphrase", "secret", "token"];
    const KEYS: [&str; 7] =
        ["apikey", "accesskey", "secretkey", "privatekey", "signingkey", "encryptionkey", "authkey"];
    WORDS.contains(&word) || KEYS.contains(&word) || ENDINGS.iter().any(|ending| word.ends_with(ending))
}

/// The words of a key, in lower case: `dbPassword`, `DB_PASSWORD` and `db-password` have the same two.
fn words(key: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut previous = ' ';
    let mut letters = key.chars().peekable();
    while let Some(letter) = letters.next() {
        let humped = letter.is_uppercase()
            && (previous.is_lowercase()
                || previous.is_uppercase() && letters.peek().is_some_and(|next| next.is_lowercase()));
        if humped || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_alphanumeric()) {
            word.extend(letter.to_lowercase());
        }
        previous = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_in_any_spelling() {
        for key in [
            "password",
            "PASSWORD",
            "secret",
            "token",
            "key",
            "connectionString",
            "connection_string",
            "connection-string",
            "ConnectionString",
            "connectionstring",
            "DATABASE_URL",
            "databaseUrl",
            "database_url",
            "DatabaseURL",
            "api_key",
            "apiKey",
            "apikey",
            "APIKey",
            "PGPASSWORD",
            "access-token",
            "accessToken",
            "clientSecret",
            "db.password",
            "sslpassword",
            "authorization",
            "DBPassword",
        ] {
            assert!(is_secret_key(key), "{key} is a secret's key");
        }
        for key in [
            "checksum",
            "monkey",
            "keyspace",
            "turkey",
            "tokenizer",
            "version",
            "database",
            "message",
            "duration_ms",
            "sqlstate",
            "timestamp",
            "passed",
            "secretary",
            "keyboard",
            "url",
            "operation",
            "",
        ] {
            assert!(!is_secret_key(key), "{key} is not a secret's key");
        }
    }

    #[test]
    fn json_at_any_depth() {
        let mut value = json!({
            "message": "Migration applied successfully",
            "checksum": "a1b2",
            "password": "p1",
            "nested": [{"db": {"connection_string": "postgres://u:p2@h", "tokens": ["p3"], "port": 5432}}],
            "error": "cannot reach postgres://app:p4@db:5432/shop?sslmode=require",
        });
        redact_json(&mut value);
        assert_eq!(
            value,
            json!({
                "message": "Migration applied successfully",
                "checksum": "a1b2",
                "password": "[REDACTED]",
                "nested": [{"db": {"connection_string": "[REDACTED]", "tokens": "[REDACTED]", "port": 5432}}],
                "error": "cannot reach postgres://app:***@db:5432/shop?sslmode=require",
            })
        );
    }
}
