//! What a discovery has found, as JSON: for the daemons that do not look themselves.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{control::failures::KeptFailure, fleet::discovery::Found, migration::Failure};

/// How a discovery stands.
pub(super) struct Discovered {
    /// What it found when it last found something that could be taken over.
    pub(super) found: Option<Vec<Found>>,
    /// What is wrong with it now.
    pub(super) fault: Option<Failure>,
    /// When it was last asked to look.
    pub(super) asked: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    found: Option<Vec<KeptFound>>,
    fault: Option<KeptFailure>,
    asked: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct KeptFound {
    name: String,
    dbname: String,
    schema: String,
    labels: BTreeMap<String, String>,
}

/// What a daemon asks of the one that leads.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    discover: Timestamp,
}

/// A discovery, to be kept.
pub(super) fn discovered(of: Discovered) -> String {
    let found = |Found { name, dbname, schema, labels }| KeptFound { name, dbname, schema, labels };
    json(&Kept {
        found: of.found.map(|all| all.into_iter().map(found).collect()),
        fault: of.fault.as_ref().map(KeptFailure::from),
        asked: of.asked,
    })
}

/// A discovery that was kept.
pub(super) fn revive(document: &str) -> Option<Discovered> {
    let Kept { found, fault, asked } = serde_json::from_str(document).ok()?;
    let of_kept = |KeptFound { name, dbname, schema, labels }| Found { name, dbname, schema, labels };
    let found = found.map(|all| all.into_iter().map(of_kept).collect());
    Some(Discovered { found, fault: fault.map(Failure::from), asked })
}

/// Asks that databases are looked for; now, by the clock of whoever asks.
pub(super) fn ask(now: Timestamp) -> String {
    json(&Asked { discover: now })
}

/// When it is asked to look for databases; `None` where something else is asked.
pub(super) fn asked(document: &str) -> Option<Timestamp> {
    serde_json::from_str(document).ok().map(|Asked { discover }| discover)
}

fn json(of: &impl Serialize) -> String {
    serde_json::to_string(of).expect("texts and times are always JSON")
}
