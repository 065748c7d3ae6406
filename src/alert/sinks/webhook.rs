//! A webhook: one request for each alert that fires or is over, as JSON of the schema that
//! docs/alerts.md describes, signed where a secret is configured.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use serde::Serialize;
use sha2::Sha256;

use crate::{
    alert::{life::Telling, sinks::Sink},
    redact::{ExposeSecret as _, SecretString},
};

/// The version of the body's schema.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Body<'a> {
    schema: u32,
    delivery: &'a str,
    alert: Told<'a>,
}

#[derive(Serialize)]
struct Told<'a> {
    id: String,
    state: &'static str,
    kind: &'static str,
    severity: &'static str,
    database: Option<&'a str>,
    subject: Option<&'a str>,
    summary: &'a str,
    evidence: &'a [String],
    remedy: &'static str,
    runbook_url: String,
    started_at: String,
    fired_at: Option<String>,
    resolved_at: Option<String>,
    flaps: u32,
}

/// The request that tells of one alert. Whoever gets it twice knows it by its delivery id: each
/// attempt to tell the same has the same.
pub(super) fn request(
    sink: &Sink,
    secret: Option<&SecretString>,
    telling: &Telling,
    now: Timestamp,
) -> RequestBuilder {
    let delivery = format!("{}-{}", telling.alert.id, telling.revision);
    let body = body(sink, telling, &delivery);
    let time = now.as_second().to_string();
    let mut request = sink
        .client
        .post(sink.url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header("X-Nexus-Delivery", &delivery)
        .header("X-Nexus-Timestamp", &time);
    if let Some(secret) = secret {
        request = request.header("X-Nexus-Signature", signature(secret, &time, &body));
    }
    request.body(body)
}

fn body(sink: &Sink, telling: &Telling, delivery: &str) -> Vec<u8> {
    let alert = &telling.alert;
    let finding = &alert.finding;
    let time = |time: Timestamp| format!("{time:.3}");
    let told = Told {
        id: alert.id.to_string(),
        state: alert.state.name(),
        kind: finding.kind.name(),
        severity: finding.kind.severity().name(),
        database: given(&alert.database),
        subject: given(&finding.subject),
        summary: &finding.message,
        evidence: &finding.evidence,
        remedy: finding.kind.remedy(),
        runbook_url: sink.runbook(telling),
        started_at: time(alert.started),
        fired_at: alert.fired.map(time),
        resolved_at: alert.resolved.map(time),
        flaps: alert.flaps,
    };
    serde_json::to_vec(&Body { schema: SCHEMA, delivery, alert: told })
        .expect("texts and numbers are always JSON")
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// `sha256=` and the HMAC-SHA256 of the time, a full stop and the body, in hexadecimal digits.
pub(super) fn signature(secret: &SecretString, time: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checked with `printf '1761819330.{}' | openssl dgst -sha256 -hmac hunter2`.
    #[test]
    fn a_signature_is_what_openssl_says() {
        let secret = SecretString::from("hunter2");
        let expected = "sha256=a9e183154fd1a6982cdb071082fbfa9fab24f2f6a1d9f4fac24a5191b84a0dff";
        assert_eq!(signature(&secret, "1761819330", b"{}"), expected);
    }
}
