//! PURE: one record of the chain as a line of text, and back.
//!
//! A line is `BODY,"hash":"HASH"}`, where HASH is the SHA-256 of BODY's bytes, and BODY begins with the
//! record's number and ends with the hash of the record before it: the chain can be followed with
//! `sha256sum` alone.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{auditlog::Entry, migration::Checksum};

/// What stands between a record's body and its hash.
const BEFORE_HASH: &str = ",\"hash\":\"";

/// What follows the hash.
const AFTER_HASH: &str = "\"}";

/// How many hexadecimal digits a hash has.
const DIGITS: usize = 64;

/// The end of a chain: its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which chain.
    pub chain: Uuid,
    /// The record's number, from 1; 0 where there is none yet.
    pub sequence: u64,
    /// The record's hash.
    pub hash: Checksum,
}

impl Head {
    /// The beginning of a new chain.
    #[allow(clippy::missing_panics_doc, reason = "it cannot: what it reads is written here")]
    pub fn of_new_chain(chain: Uuid) -> Self {
        // No record has this hash: nobody knows a text for it.
        let hash = Checksum::from_hex(&"0".repeat(DIGITS)).expect("these are 64 digits");
        Self { chain, sequence: 0, hash }
    }
}

/// A record as it was read, whose hash is that of its body.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Its place.
    pub head: Head,
    /// The hash of the record before it.
    pub previous: Checksum,
    /// All that it says.
    pub record: Map<String, Value>,
}

/// Why a line is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It does not end as a record does: it was never whole.
    Torn,
    /// Its hash is not that of its body.
    Altered,
    /// Its hash is right, and yet it has not what each record has.
    Malformed,
}

/// The record that follows `last`, as a line with its end, and its place.
pub(super) fn seal(last: &Head, entry: &Entry, instance: &str) -> (String, Head) {
    let sequence = last.sequence + 1;
    let text = |text: &str| Value::from(text).to_string();
    let mut body = format!(
        "{{\"sequence\":{sequence},\"time\":{},\"event\":{},\"instance\":{}",
        text(&format!("{:.6}", entry.time)),
        text(entry.event),
        text(instance)
    );
    for (key, value) in entry.redacted() {
        body.extend([",", &text(&key), ":", &value.to_string()]);
    }
    let (chain, previous) = (last.chain.to_string(), last.hash.hex());
    body.extend([",\"chain\":\"", &chain, "\",\"previous\":\"", &previous, "\""]);
    let hash = Checksum::of(body.as_bytes());
    let line = format!("{body}{BEFORE_HASH}{hash}{AFTER_HASH}\n");
    (line, Head { chain: last.chain, sequence, hash })
}

/// Reads a line without its end.
pub fn read(line: &[u8]) -> Result<Sealed, Flaw> {
    let (body, hash) = split(line).ok_or(Flaw::Torn)?;
    let own = Checksum::of(body);
    if own.hex().as_bytes() != hash {
        return Err(Flaw::Altered);
    }
    let parsed = || {
        let Value::Object(record) = serde_json::from_slice(line).ok()? else { return None };
        let text = |key: &str| record.get(key)?.as_str();
        let chain = Uuid::parse_str(text("chain")?).ok()?;
        let previous = Checksum::from_hex(text("previous")?)?;
        let sequence = record.get("sequence")?.as_u64().filter(|&it| it > 0)?;
        Some(Sealed { head: Head { chain, sequence, hash: own }, previous, record })
    };
    parsed().ok_or(Flaw::Malformed)
}

/// A line's body and its hash; `None` where it has not the form of a record.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_suffix(AFTER_HASH.as_bytes())?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    let is_hash = hash.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let body = rest.strip_suffix(BEFORE_HASH.as_bytes())?;
    is_hash.then_some((body, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> (String, Head) {
        let entry = Entry::new("call").with("who", "ana \"a\"").with("reason", "postgres://u:hunter2@h/d");
        seal(&Head::of_new_chain(Uuid::from_u128(7)), &entry, "i")
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (line, head) = first();
        let line = line.strip_suffix('\n').expect("it ends");
        let sealed = read(line.as_bytes()).expect("it is a record");
        assert_eq!((sealed.head, sealed.head.sequence), (head, 1));
        assert_eq!(sealed.previous.hex(), "0".repeat(64));
        assert_eq!(sealed.record["who"], "ana \"a\"");
        assert!(!line.contains("hunter2"), "{line}");
        let (body, hash) = line.split_once(BEFORE_HASH).expect("it has a hash");
        assert_eq!(Checksum::of(body.as_bytes()).hex(), hash.trim_end_matches(AFTER_HASH));
        let next = seal(&head, &Entry::new("call"), "i");
        assert_eq!(read(next.0.trim_end().as_bytes()).expect("it is a record").previous, head.hash);
    }

    #[test]
    fn what_is_no_record() {
        let (line, _) = first();
        let line = line.trim_end();
        let check = |text: &[u8], expected: Flaw| assert_eq!(read(text).err(), Some(expected), "{text:?}");
        check(line.replace("ana", "eve").as_bytes(), Flaw::Altered);
        check(line.replace("\"sequence\":1", "\"sequence\":2").as_bytes(), Flaw::Altered);
        for cut in 0..line.len() {
            check(&line.as_bytes()[..cut], Flaw::Torn);
        }
        check(&[0; 4096], Flaw::Torn);
        check(&line.to_uppercase().into_bytes(), Flaw::Torn);
        let sealed = |body: &str| format!("{body}{BEFORE_HASH}{}{AFTER_HASH}", Checksum::of(body.as_bytes()));
        check(sealed("{\"sequence\":1").as_bytes(), Flaw::Malformed);
        check(sealed("").as_bytes(), Flaw::Malformed);
    }
}
