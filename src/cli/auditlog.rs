//! `nexusctl auditlog`: whether the records of the audit log are those that were written, and what they say.
//! The files are read here; the daemon is asked for its last record only, and only on request.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    auditlog::{
        self,
        verify::{Anchor, Fault, Summary, Verifier},
    },
    cli::{Exit, Refusal, args, render, session::Session},
    migration::Checksum,
    rpc::proto,
};

/// What a check that knows of no record from elsewhere cannot see.
const UNANCHORED: &str = "whether records are missing at the end cannot be seen: no .head lies beside the file, and \
                          neither --daemon nor --expect tells of a record";

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Check that no record was altered, taken out or put in: exit code 0 if all are as they were written,
    /// else 1 and the file and line of the first that is not
    #[command(defer(args::of_no_database))]
    Verify(Verify),
    /// Show what the records say, oldest first, without checking them
    #[command(defer(args::of_no_daemon))]
    List(List),
}

/// Where the records are.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// The files, oldest first, - for stdin; rotated ones belong together
    #[arg(value_name = "FILE", default_value = "logs/audit.jsonl")]
    files: Vec<PathBuf>,
}

/// The arguments of `auditlog verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    #[command(flatten)]
    files: Files,
    /// A record with this hash has to be there, such as one that was noted before; may be repeated
    #[arg(long, value_name = "HASH", value_parser = hash)]
    expect: Vec<Checksum>,
    /// The last record that the daemon knows has to be there, too: a file whose end was cut off is found
    #[arg(long)]
    daemon: bool,
}

/// The arguments of `auditlog list`.
#[derive(Debug, clap::Args)]
pub struct List {
    #[command(flatten)]
    files: Files,
    /// Only what was recorded since then: a time such as 2026-11-23T10:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
    /// Only what belongs to this operation, or to an id that begins so
    #[arg(long, value_name = "ID")]
    operation: Option<String>,
}

fn hash(text: &str) -> Result<Checksum, String> {
    Checksum::from_hex(text).ok_or_else(|| "expected the 64 hexadecimal digits of a record's hash".to_owned())
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = args::duration(text).map_err(|_| "expected a time, or how long ago, such as 2h".to_owned())?;
    Timestamp::now().checked_sub(ago).map_err(|_| "that is too long ago".to_owned())
}

/// Does it.
pub async fn run(action: &Action, session: &mut Session) -> anyhow::Result<Exit> {
    match action {
        Action::Verify(verify) => {
            let anchors = anchors(verify, session).await?;
            let is_anchored = !anchors.is_empty();
            let mut result = read_all(&verify.files.files, anchors)?;
            if let (Ok(summary), false) = (&mut result, is_anchored) {
                summary.notes.push(UNANCHORED.to_owned());
            }
            verified(&result, session)
        }
        Action::List(list) => listed(list, session),
    }
}

/// The records that have to be there. They are asked for before the files are read, which grow meanwhile.
async fn anchors(verify: &Verify, session: &Session) -> anyhow::Result<Vec<Anchor>> {
    let expected =
        verify.expect.iter().map(|hash| Anchor { hash: *hash, place: None, from: "--expect".into() });
    let mut anchors: Vec<_> = expected.collect();
    // The end of the chain is that of the last file.
    if let Some(path) = verify.files.files.last()
        && let Some(head) = auditlog::read_head(path)
    {
        let from = auditlog::head_path(path).display().to_string();
        anchors.push(Anchor { hash: head.hash, place: Some((head.chain, head.sequence)), from });
    }
    if verify.daemon {
        let client = session.connect().await?;
        let request = proto::GetAuditLogHeadRequest {};
        let head = client.answer(client.audit_log().get_audit_log_head(request).await)?;
        let place = Uuid::parse_str(&head.chain).ok().map(|chain| (chain, head.sequence));
        let hash = Checksum::from_hex(&head.hash).ok_or_else(|| {
            Refusal::new(
                "The daemon tells no hash of its last record",
                "compare the versions: nexusctl version",
            )
        })?;
        anchors.push(Anchor { hash, place, from: format!("the daemon at {}", client.address()) });
    }
    Ok(anchors)
}

fn read_all(files: &[PathBuf], anchors: Vec<Anchor>) -> anyhow::Result<Result<Summary, Fault>> {
    let mut verifier = Verifier::new(anchors);
    for path in files {
        let file = open(path)?;
        if let Err(fault) =
            verifier.read(&path.display().to_string(), file).map_err(|error| unreadable(path, &error))?
        {
            return Ok(Err(fault));
        }
    }
    Ok(verifier.end())
}

fn verified(result: &Result<Summary, Fault>, session: &mut Session) -> anyhow::Result<Exit> {
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::VerifiedLog::from(result))?;
    }
    match result {
        Ok(summary) => {
            for note in &summary.notes {
                console.note(&format!("note: {note}\n"));
            }
            if !console.is_json() {
                console.data(&render::auditlog::verified(summary))?;
            }
            Ok(Exit::Done)
        }
        Err(fault) => {
            let failure = proto::Failure {
                message: fault.to_string(),
                hint: "whatever stands after it may not be what was written either; docs/auditlog.md says what to do"
                    .to_owned(),
                ..Default::default()
            };
            console.note(&render::failure::block(None, &failure));
            Ok(Exit::Failed)
        }
    }
}

fn listed(list: &List, session: &mut Session) -> anyhow::Result<Exit> {
    let mut records = Vec::new();
    for path in &list.files.files {
        for (line, number) in open(path)?.split(b'\n').zip(1_u64..) {
            let line = line.map_err(|error| unreadable(path, &error))?;
            match serde_json::from_slice::<Value>(&line) {
                Ok(record) if list.is_meant(&record) => records.push(record),
                Ok(_) => {}
                Err(_) => {
                    let message = "the line is no record: nexusctl auditlog verify tells more";
                    session.console.note(&format!("note: {}:{number}: {message}\n", path.display()));
                }
            }
        }
    }
    let console = &mut session.console;
    if console.is_json() {
        console.json(&render::json::AuditRecords { records })?;
    } else {
        let width = console.width();
        console.data(&render::auditlog::list(&records, width))?;
    }
    Ok(Exit::Done)
}

impl List {
    fn is_meant(&self, record: &Value) -> bool {
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
        let is_recent = |since: &Timestamp| text("time").parse().is_ok_and(|time: Timestamp| time >= *since);
        self.since.as_ref().is_none_or(is_recent)
            && (!self.refused || text("decision") == "refused")
            && self.operation.as_ref().is_none_or(|id| text("operation").starts_with(id.as_str()))
    }
}

/// A file, or stdin.
fn open(path: &Path) -> Result<Box<dyn BufRead>, Refusal> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    // As long as it is now: what is written meanwhile may not be whole yet.
    let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
    Ok(Box::new(BufReader::new(file.take(length))))
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let message = format!("Cannot read the audit log {}: {error}", path.display());
    Refusal::new(
        message,
        "name the file that [log] audit_file of the daemon names; only the daemon's user may read it",
    )
}
