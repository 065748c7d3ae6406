//! PURE: whether the records of one or several files are those that were written, all of them, in order.
//!
//! What it can see is what does not fit together: a record that was altered, taken out, put in or moved.
//! Whoever may write the file can also write a new chain that fits; and a file that ends too early fits.
//! Both are seen by an [`Anchor`] only: a record that is known from elsewhere.

use std::{
    fmt,
    io::{self, BufRead, Read as _},
};

use serde_json::Value;
use uuid::Uuid;

use crate::{
    auditlog::{
        Head,
        chain::{Flaw, Sealed, read},
        entry::TAMPERING,
    },
    migration::Checksum,
};

/// The longest record that is read.
const LONGEST: u64 = 256 << 20;

/// A record that is known from elsewhere, and has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its hash.
    pub hash: Checksum,
    /// Its chain and its number, where those are known.
    pub place: Option<(Uuid, u64)>,
    /// Who knows of it, as it is told: "the daemon".
    pub from: String,
}

/// What is wrong, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A record's hash is not that of its text.
    Altered,
    /// Records are missing between two others.
    Missing,
    /// A record is not the one that the next one was written after.
    Replaced,
    /// A record is there twice, or not in its order.
    OutOfOrder,
    /// The file ends in the middle of a record.
    Torn,
    /// A line is no record.
    Malformed,
    /// A record is of another chain.
    OtherChain,
    /// Records are missing at the end.
    Truncated,
    /// There is no record at all.
    Empty,
    /// A record tells that somebody else has changed the file.
    Tampering,
}

impl Wrong {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::OutOfOrder => "out_of_order",
            Self::Torn => "torn",
            Self::Malformed => "malformed",
            Self::OtherChain => "other_chain",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::Tampering => "tampering",
        }
    }
}

/// The first thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// What.
    pub wrong: Wrong,
    /// The same in a sentence.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// What was found to be well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many records there are.
    pub records: u64,
    /// The number of the first one: others came before it where that is not 1.
    pub first: u64,
    /// The last one.
    pub last: Head,
    /// What is worth knowing of a file that is well.
    pub notes: Vec<String>,
}

/// Reads files one after the other.
#[derive(Debug, Default)]
pub struct Verifier {
    file: String,
    line: u64,
    records: u64,
    first: u64,
    last: Option<Head>,
    /// Lines that are no records, which the next record has to tell of.
    torn: Vec<(u64, Checksum, usize)>,
    notes: Vec<String>,
    /// The first record that tells of somebody else's change.
    tampering: Option<Fault>,
    anchors: Vec<(Anchor, bool)>,
}

impl Verifier {
    /// Wants these records to be there.
    pub fn new(anchors: impl IntoIterator<Item = Anchor>) -> Self {
        let anchors = anchors.into_iter().map(|anchor| (anchor, false)).collect();
        Self { anchors, ..Self::default() }
    }

    /// Reads the next file, as far as it is well. The outer error is the disk's, the inner one the file's.
    pub fn read(&mut self, file: &str, mut text: impl BufRead) -> io::Result<Result<(), Fault>> {
        // What the file before ends with cannot be told of in another one.
        if let Err(fault) = self.refuse_torn() {
            return Ok(Err(fault));
        }
        (self.file, self.line) = (file.to_owned(), 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            if text.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                return Ok(Ok(()));
            }
            self.line += 1;
            let Some(whole) = line.strip_suffix(b"\n") else {
                let message = "the file ends in the middle of a record";
                return Ok(Err(self.fault(Wrong::Torn, message)));
            };
            if let Err(fault) = self.take(whole) {
                return Ok(Err(fault));
            }
        }
    }

    /// Nothing more is read: what is missing now is missing.
    pub fn end(self) -> Result<Summary, Fault> {
        self.refuse_torn()?;
        let Some(last) = self.last else { return Err(self.fault(Wrong::Empty, "there is no record")) };
        for (anchor, is_there) in &self.anchors {
            if !is_there {
                return Err(self.without(anchor, &last));
            }
        }
        if let Some(fault) = self.tampering {
            return Err(fault);
        }
        Ok(Summary { records: self.records, first: self.first, last, notes: self.notes })
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Fault> {
        let sealed = match read(line) {
            Ok(sealed) => sealed,
            Err(Flaw::Torn) => {
                self.torn.push((self.line, Checksum::of(line), line.len()));
                return Ok(());
            }
            Err(Flaw::Altered) => {
                let message = "the record was altered: its hash is not that of its text";
                return Err(self.fault(Wrong::Altered, message));
            }
            Err(Flaw::Malformed) => {
                return Err(
                    self.fault(Wrong::Malformed, "the line is no record, and nexusd has not written it")
                );
            }
        };
        self.follow(&sealed)?;
        if !self.torn.is_empty() {
            if !tells_of(&sealed, &self.torn) {
                return self.refuse_torn();
            }
            let (first, count) = (self.torn[0].0, self.torn.len());
            let what = if count == 1 { "a line that is" } else { "lines that are" };
            self.notes.push(format!(
                "{}:{first}: {what} no record; the record after it tells of it: nexusd ended in the middle of writing",
                self.file
            ));
            self.torn.clear();
        }
        for (anchor, is_there) in &mut self.anchors {
            let is_place = |(chain, sequence)| (chain, sequence) == (sealed.head.chain, sealed.head.sequence);
            *is_there |= anchor.hash == sealed.head.hash && anchor.place.is_none_or(is_place);
        }
        if let Some(note) = sealed.record.get("noticed").and_then(Value::as_str) {
            if sealed.record.get(TAMPERING).is_some() {
                let fault = self.fault(Wrong::Tampering, format!("nexusd noticed tampering: {note}"));
                self.tampering.get_or_insert(fault);
            }
            self.notes.push(format!("{}:{}: {note}", self.file, self.line));
        }
        self.last = Some(sealed.head);
        self.records += 1;
        Ok(())
    }

    /// Whether a record is the one after the last.
    fn follow(&mut self, sealed: &Sealed) -> Result<(), Fault> {
        let Head { chain, sequence, .. } = sealed.head;
        let Some(last) = self.last else {
            self.first = sequence;
            if sequence == 1 && sealed.previous != Head::of_new_chain(chain).hash {
                let message = "the first record of a chain says that there is one before it";
                return Err(self.fault(Wrong::Malformed, message));
            }
            if sequence > 1 {
                self.notes.push(format!(
                    "{}:{}: it begins with record {sequence}: those before it are in an earlier file, which was not given",
                    self.file, self.line
                ));
            }
            return Ok(());
        };
        if chain != last.chain {
            let message = format!("the record is of another chain, {chain}, than those before it");
            return Err(self.fault(Wrong::OtherChain, message));
        }
        if sequence <= last.sequence {
            let message = format!("record {sequence} comes after record {}", last.sequence);
            return Err(self.fault(Wrong::OutOfOrder, message));
        }
        if sequence > last.sequence + 1 {
            let (from, to) = (last.sequence + 1, sequence - 1);
            let message = if from == to {
                format!("record {from} is missing before this one")
            } else {
                format!("records {from} to {to} are missing before this one")
            };
            return Err(self.fault(Wrong::Missing, message));
        }
        if sealed.previous != last.hash {
            let message = format!(
                "record {sequence} was written after another record {} than the one before it: that one was replaced, or this one",
                last.sequence
            );
            return Err(self.fault(Wrong::Replaced, message));
        }
        Ok(())
    }

    fn refuse_torn(&self) -> Result<(), Fault> {
        let Some((line, ..)) = self.torn.first() else { return Ok(()) };
        let message = "the line is no record: it was cut off, or put there, and no record tells of it";
        Err(Fault { line: *line, ..self.fault(Wrong::Torn, message) })
    }

    fn without(&self, anchor: &Anchor, last: &Head) -> Fault {
        let from = &anchor.from;
        match anchor.place {
            Some((chain, _)) if chain != last.chain => {
                let message = format!("{from} knows of another chain, {chain}: these are not its records");
                self.fault(Wrong::OtherChain, message)
            }
            Some((_, sequence)) if sequence > last.sequence => {
                let (next, at) = (last.sequence + 1, last.sequence);
                let message = format!(
                    "the file ends with record {at}, and {from} knows of record {sequence}: {next} to {sequence} are missing at the end"
                );
                self.fault(Wrong::Truncated, message)
            }
            Some((_, sequence)) => {
                let message =
                    format!("record {sequence} is another one than {from} knows: the file was rewritten");
                self.fault(Wrong::Replaced, message)
            }
            None => {
                let message = format!(
                    "no record has the hash {}, which {from} knows: the file was cut off before it, or rewritten",
                    anchor.hash
                );
                self.fault(Wrong::Truncated, message)
            }
        }
    }

    fn fault(&self, wrong: Wrong, message: impl Into<String>) -> Fault {
        Fault { file: self.file.clone(), line: self.line, wrong, message: message.into() }
    }
}

/// Whether a record tells of these lines, which are none.
fn tells_of(sealed: &Sealed, torn: &[(u64, Checksum, usize)]) -> bool {
    let told = sealed.record.get("torn").and_then(Value::as_array);
    let told = told
        .into_iter()
        .flatten()
        .filter_map(|it| Some((it.get("sha256")?.as_str()?.to_owned(), it.get("bytes")?.as_u64()?)));
    told.eq(torn.iter().map(|(_, sha256, bytes)| (sha256.hex(), *bytes as u64)))
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
