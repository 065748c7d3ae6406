//! Looks for planted secrets in whatever a system tells, in whatever encoding it tells them.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

/// What a canary is written as, so that a command or a name that holds one can be reported.
const STANDS_FOR: &str = "CANARY";

/// The ways in which a canary is looked for. Letters and digits stay themselves in URLs and JSON: these two
/// are about text in which everything is escaped.
pub(super) const ENCODINGS: [&str; 7] =
    ["plain, in any case", "base64", "base64url", "hex", "URL-encoded", "\\u-escaped", "list of bytes"];

/// One secret, and where it was planted.
pub(super) struct Canary {
    /// What it is.
    pub(super) what: &'static str,
    pub(super) value: String,
    /// What it looks like in the encodings that change letters and digits.
    needles: Vec<(&'static str, String)>,
}

impl Canary {
    fn new(what: &'static str, value: String) -> Self {
        let needles = needles(&value);
        Self { what, value, needles }
    }

    /// The encodings in which it is in a text, which is also given in lower case.
    fn found_in(&self, text: &str, lower: &str) -> Vec<&'static str> {
        let is_there = |(encoding, needle): &&(&'static str, String)| {
            let text = if encoding.starts_with("base64") { text } else { lower };
            text.contains(needle.as_str())
        };
        let mut encodings: Vec<_> = self.needles.iter().filter(is_there).map(|(name, _)| *name).collect();
        encodings.dedup();
        encodings
    }
}

fn needles(value: &str) -> Vec<(&'static str, String)> {
    let bytes = value.as_bytes();
    let each = |form: &dyn Fn(u8) -> String, between: &str| {
        bytes.iter().map(|byte| form(*byte)).collect::<Vec<_>>().join(between)
    };
    let mut needles = vec![(ENCODINGS[0], value.to_ascii_lowercase())];
    for (name, engine) in [(ENCODINGS[1], STANDARD), (ENCODINGS[2], URL_SAFE)] {
        // Where it begins among the groups of three is not known; the letters that its neighbours share in are cut.
        for shift in 0..3 {
            let encoded = engine.encode([vec![0; shift], bytes.to_vec()].concat());
            let whole = (shift + bytes.len()) / 3 * 4;
            needles.push((name, encoded[[0, 2, 3][shift]..whole].to_owned()));
        }
    }
    needles.extend([
        (ENCODINGS[3], each(&|byte| format!("{byte:02x}"), "")),
        (ENCODINGS[4], each(&|byte| format!("%{byte:02x}"), "")),
        (ENCODINGS[5], each(&|byte| format!("\\u{byte:04x}"), "")),
        (ENCODINGS[6], each(&|byte| byte.to_string(), ", ")),
    ]);
    needles
}

/// Something that was told, and to whom.
pub(super) struct Place {
    /// Of what kind it is: the log, an answer, the metrics.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// A canary that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) what: &'static str,
    pub(super) kind: &'static str,
    pub(super) place: String,
    pub(super) encodings: Vec<&'static str>,
}

/// The secrets that are planted, and the places where they are looked for.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) canaries: Vec<Canary>,
    pub(super) places: Vec<Place>,
}

impl Scan {
    /// A new secret of letters and digits.
    pub(super) fn plant(&mut self, what: &'static str) -> String {
        let value = format!("cnry{:02}{:014x}", self.canaries.len(), fastrand::u64(..) >> 8);
        self.plant_own(what, &value);
        value
    }

    /// A secret that somebody else has made.
    pub(super) fn plant_own(&mut self, what: &'static str, value: &str) {
        self.canaries.push(Canary::new(what, value.to_owned()));
    }

    /// Notes what was told.
    pub(super) fn told(&mut self, kind: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let named = self
            .canaries
            .iter()
            .fold(name.into(), |name: String, canary| name.replace(&canary.value, STANDS_FOR));
        self.places.push(Place { kind, name: named, bytes: bytes.into() });
    }

    /// Every canary in every place.
    pub(super) fn found(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for place in &self.places {
            let text = String::from_utf8_lossy(&place.bytes);
            let lower = text.to_ascii_lowercase();
            for canary in &self.canaries {
                let encodings = canary.found_in(&text, &lower);
                if !encodings.is_empty() {
                    let (what, kind, place) = (canary.what, place.kind, place.name.clone());
                    found.push(Found { what, kind, place, encodings });
                }
            }
        }
        found
    }

    /// The places that held nothing: that a secret is not in them says nothing.
    pub(super) fn empty(&self) -> Vec<&str> {
        self.places.iter().filter(|place| place.bytes.is_empty()).map(|place| place.name.as_str()).collect()
    }

    /// What was planted, where was looked, and what was found, `control` and what is `meant` apart.
    pub(super) fn report(&self, control: &str, meant: &[(&str, &str)]) -> String {
        let found = self.found();
        let is_meant = |it: &Found| meant.contains(&(it.what, it.kind));
        let leaks: Vec<_> = found.iter().filter(|it| it.what != control && !is_meant(it)).collect();
        let mut text = format!(
            "{} secrets planted, each looked for in {} places, {} bytes, as: {}\n\nPlanted:\n",
            self.canaries.len() - 1,
            self.places.len(),
            self.places.iter().map(|place| place.bytes.len()).sum::<usize>(),
            ENCODINGS.join("; ")
        );
        let mut lines: Vec<_> = self
            .canaries
            .iter()
            .filter(|it| it.what != control)
            .map(|it| format!("  {}\n", it.what))
            .collect();
        lines.push("\nPlaces (bytes, what was found):\n".to_owned());
        for place in &self.places {
            let here = leaks.iter().filter(|it| it.place == place.name && it.kind == place.kind);
            let here: Vec<_> =
                here.map(|it| format!("LEAK: {} ({})", it.what, it.encodings.join(", "))).collect();
            let here = if here.is_empty() { "-".to_owned() } else { here.join("; ") };
            lines.push(format!("  {:<24} {:>9}  {}  {here}\n", place.kind, place.bytes.len(), place.name));
        }
        text.extend(lines);
        let mut kinds = BTreeMap::<_, usize>::new();
        for it in found.iter().filter(|it| it.what == control) {
            *kinds.entry(it.kind).or_default() += 1;
        }
        let _ = writeln!(text, "\nControl: {control}, which may be told, was found in");
        for (kind, places) in kinds {
            let _ = writeln!(text, "  {kind}: {places} places");
        }
        let _ = writeln!(text, "\nMeant to be there, and found there and nowhere else:");
        for (what, kind) in meant {
            let places = found.iter().filter(|it| (it.what, it.kind) == (*what, *kind)).count();
            let _ = writeln!(text, "  {what} in {kind}: {places} places");
        }
        let _ = writeln!(text, "\nResult: {} leaks, {} empty places", leaks.len(), self.empty().len());
        text
    }
}
