//! The one task that writes the file, and the handle that everybody else has.
//!
//! Whoever needs a record to be there before they go on waits for the disk; what comes meanwhile goes to the
//! disk together. What nobody waits for is kept while the file cannot be written, and written when it can.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    auditlog::{Entry, Head, OpenError, file::LogFile, refusals::Refusals},
    migration::{Code, Failure},
};

/// How many records are kept while the file cannot be written.
const MOST_KEPT: usize = 10_000;

/// How many records go to the disk together, at most.
const MOST_AT_ONCE: usize = 256;

/// How often it is tried again to write, and looked whether there is something to sum up.
const TICK: Duration = Duration::from_secs(1);

/// For how long the disk may take its time over a record that somebody waits for. It may hang, as a network
/// file system does, and a lock in a database is not to be held as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is to say of the log itself; the daemon's metrics hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A record of this event is there, and this is its number.
    Recorded(&'static str, u64),
    /// The file could not be written.
    Failed,
    /// Somebody else has changed it, as a record says.
    Tampering,
}

/// What takes that.
type Hear = Arc<dyn Fn(Told) + Send + Sync>;

/// The audit log of this daemon. Clones are the same one.
#[derive(Clone)]
pub struct AuditLog {
    sender: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    resumed: Head,
    head: watch::Sender<Head>,
    /// Why it cannot be written; `None` where it can.
    trouble: Mutex<Option<String>>,
    refusals: Mutex<Refusals>,
}

enum Message {
    Write(Entry, Option<oneshot::Sender<Result<(), String>>>),
    Reopen(oneshot::Sender<Result<(), String>>),
    Close(oneshot::Sender<()>),
}

/// What writes it: [`Writer::run`] is a task.
pub struct Writer {
    receiver: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    instance: String,
    hear: Hear,
    /// `None` where it has to be opened anew.
    file: Option<LogFile>,
    /// It was asked to open its path anew, and could not: that is tried again.
    is_to_be_reopened: bool,
    waiting: VecDeque<Entry>,
    lost: u64,
    /// What others did to the file, and no record tells yet.
    seen: Vec<Entry>,
}

impl AuditLog {
    /// Opens the file, goes on with its chain, and writes a first record: whoever opens it knows that it
    /// can be written. From then on `hear` is told of each record.
    pub fn open(
        path: &Path,
        instance: &str,
        hear: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<(Self, Writer), OpenError> {
        let (mut file, mut entries) = LogFile::open(path, None)?;
        let resumed = file.head();
        for entry in &entries {
            warn_of(entry);
        }
        entries.push(
            Entry::new("opened").with("nexusd", env!("CARGO_PKG_VERSION")).with("pid", std::process::id()),
        );
        file.append(&entries, instance).map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            resumed,
            head: watch::Sender::new(file.head()),
            trouble: Mutex::default(),
            refusals: Mutex::default(),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            receiver,
            shared: shared.clone(),
            instance: instance.to_owned(),
            hear: Arc::new(hear),
            file: Some(file),
            is_to_be_reopened: false,
            waiting: VecDeque::new(),
            lost: 0,
            seen: Vec::new(),
        };
        writer.told(&entries);
        Ok((Self { sender, shared }, writer))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The record that this daemon went on behind.
    pub fn resumed(&self) -> Head {
        self.shared.resumed
    }

    /// The last record that the disk has, and its successors.
    pub fn heads(&self) -> watch::Receiver<Head> {
        self.shared.head.subscribe()
    }

    /// Refuses what changes something as long as the file cannot be written.
    pub fn is_writable(&self) -> Result<(), Failure> {
        match &*self.shared.trouble() {
            None => Ok(()),
            Some(reason) => Err(unwritable(reason)),
        }
    }

    /// Records something; comes back when the disk has it. Where the disk takes too long, nothing may be
    /// changed any more, and the record may still come.
    pub(super) async fn write_now(&self, entry: Entry) -> Result<(), Failure> {
        self.write_within(PATIENCE, entry).await
    }

    async fn write_within(&self, patience: Duration, entry: Entry) -> Result<(), Failure> {
        let (reply, replied) = oneshot::channel();
        // The writer outlives everybody who asks.
        drop(self.sender.send(Message::Write(entry, Some(reply))));
        match tokio::time::timeout(patience, replied).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(reason))) => Err(unwritable(&reason)),
            Ok(Err(_)) => Err(unwritable("nobody writes it any more: the daemon is stopping")),
            Err(_) => Err(self.stuck(patience)),
        }
    }

    /// From now on nothing is changed, until a record is written.
    fn stuck(&self, patience: Duration) -> Failure {
        let reason = format!("{}: its disk has taken no record for {patience:?}", self.shared.path.display());
        let failure = unwritable(&reason);
        if self.shared.trouble().replace(reason.clone()).is_some() {
            return failure;
        }
        tracing::error!(reason, "the audit log cannot be written: nothing is changed until it can");
        // Whoever writes it is to notice, also where that was over just now.
        self.write(Entry::noticed("the disk took too long over the records before this one"));
        failure
    }

    /// Records something, now or as soon as the file can be written.
    pub(super) fn write(&self, entry: Entry) {
        drop(self.sender.send(Message::Write(entry, None)));
    }

    /// Records that a call was refused, or counts it.
    pub(super) fn refuse(&self, entry: Entry, likeness: String, is_known: bool) {
        let entry = self.shared.refusals().take(entry, likeness, is_known);
        if let Some(entry) = entry {
            self.write(entry);
        }
    }

    /// Something was seen that does not fit the file: somebody else has changed it. From now on a record says so.
    pub fn tell_of_tampering(&self, text: impl Into<String>) {
        let entry = Entry::tampering(text);
        warn_of(&entry);
        self.write(entry);
    }

    /// Opens the path anew, after the file was moved away. Where that fails, the old file stays in use, and
    /// it is tried again every second.
    pub async fn reopen(&self) -> Result<(), String> {
        let (reply, replied) = oneshot::channel();
        drop(self.sender.send(Message::Reopen(reply)));
        match tokio::time::timeout(PATIENCE, replied).await {
            Ok(reopened) => reopened.unwrap_or_else(|_| Err("the daemon is stopping".to_owned())),
            Err(_) => Err("its disk does not answer: it is opened anew when that goes on".to_owned()),
        }
    }

    /// Writes what is left, and that the daemon ends. Nothing is recorded any more.
    pub async fn close(&self) {
        let (reply, replied) = oneshot::channel();
        drop(self.sender.send(Message::Close(reply)));
        drop(replied.await);
    }
}

impl Shared {
    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes until it is told to close.
    pub async fn run(mut self) {
        let mut messages = Vec::new();
        loop {
            let is_due = self.is_in_trouble()
                || self.is_to_be_reopened
                || !self.waiting.is_empty()
                || self.shared.refusals().is_open();
            tokio::select! {
                count = self.receiver.recv_many(&mut messages, MOST_AT_ONCE) => if count == 0 {
                    return;
                },
                () = tokio::time::sleep(TICK), if is_due => {}
            }
            let summed_up = self.shared.refusals().lapse(Timestamp::now(), false);
            self.waiting.extend(summed_up);
            let (mut asked, mut reopening, mut closing) = (Vec::new(), Vec::new(), None);
            for message in messages.drain(..) {
                match message {
                    Message::Write(entry, Some(reply)) => asked.push((entry, reply)),
                    Message::Write(entry, None) => self.keep(entry),
                    Message::Reopen(reply) => reopening.push(reply),
                    Message::Close(reply) => closing = Some(reply),
                }
            }
            if closing.is_some() {
                let summed_up = self.shared.refusals().lapse(Timestamp::now(), true);
                self.waiting.extend(summed_up);
                self.waiting.push_back(Entry::new("closed"));
            }
            // The disk may take its time: nobody else waits for it on this thread.
            let written = tokio::task::spawn_blocking(move || {
                self.put(asked);
                if self.is_to_be_reopened || !reopening.is_empty() {
                    let reopened = self.reopen();
                    self.is_to_be_reopened = reopened.is_err();
                    for reply in reopening {
                        drop(reply.send(reopened.clone()));
                    }
                }
                self
            });
            match written.await {
                Ok(writer) => self = writer,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
            if let Some(reply) = closing {
                // Whoever asked may have gone.
                let _ = reply.send(());
                return;
            }
        }
    }

    fn is_in_trouble(&self) -> bool {
        self.shared.trouble().is_some()
    }

    fn keep(&mut self, entry: Entry) {
        self.waiting.push_back(entry);
        while self.waiting.len() > MOST_KEPT {
            self.waiting.pop_front();
            self.lost += 1;
        }
    }

    /// Writes what waits and what is asked for, and answers.
    fn put(&mut self, asked: Vec<(Entry, oneshot::Sender<Result<(), String>>)>) {
        let mut entries: Vec<_> = self.waiting.iter().cloned().collect();
        if self.lost > 0 {
            let notice =
                format!("{} records were lost: the file could not be written for too long", self.lost);
            entries.insert(0, Entry::noticed(notice));
        }
        let kept = entries.len();
        let (new, replies): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        entries.extend(new);
        if entries.is_empty() && self.is_in_trouble() {
            // Whoever waits until something can be changed again is not to try in vain.
            entries.push(Entry::noticed("the file could not be written before this record"));
        }
        if entries.is_empty() {
            return;
        }
        let written = self.append(&entries);
        if written.is_ok() {
            self.waiting.clear();
            self.lost = 0;
        } else {
            tracing::debug!(kept, "records wait for the audit log");
        }
        for reply in replies {
            drop(reply.send(written.clone()));
        }
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        let written = self.append_once(entries);
        let mut trouble = self.shared.trouble();
        match &written {
            Ok(()) => {
                if trouble.take().is_some() {
                    tracing::info!("the audit log can be written again");
                }
            }
            Err(reason) => {
                (self.hear)(Told::Failed);
                if trouble.as_ref() != Some(reason) {
                    tracing::error!(
                        reason,
                        "the audit log cannot be written: nothing is changed until it can"
                    );
                }
                *trouble = Some(reason.clone());
            }
        }
        written
    }

    fn append_once(&mut self, entries: &[Entry]) -> Result<(), String> {
        if self.file.as_ref().is_some_and(LogFile::is_deleted) {
            self.file = None;
            self.seen.push(Entry::tampering("the file before this record was deleted"));
        }
        let known = *self.shared.head.borrow();
        let mut all = Vec::new();
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (file, notices) =
                    LogFile::open(&self.shared.path, Some(known)).map_err(|error| error.to_string())?;
                notices.iter().for_each(warn_of);
                all = notices;
                none.insert(file)
            }
        };
        let written = file.look().and_then(|told| {
            told.iter().for_each(warn_of);
            self.seen.extend(told);
            all.extend_from_slice(&self.seen);
            all.extend_from_slice(entries);
            file.append(&all, &self.instance)
        });
        if let Err(cause) = written {
            self.file = None;
            let path = self.shared.path.clone();
            return Err(OpenError::Io { path, cause }.to_string());
        }
        self.seen.clear();
        let head = file.head();
        self.shared.head.send_replace(head);
        self.told(&all);
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), String> {
        if self.file.as_ref().is_some_and(|file| !file.is_moved()) {
            return Ok(());
        }
        let head = *self.shared.head.borrow();
        let (file, mut entries) =
            LogFile::open(&self.shared.path, Some(head)).map_err(|error| error.to_string())?;
        if file.is_empty() {
            // That it is new is meant.
            entries.clear();
        }
        self.file = Some(file);
        let continues =
            format!("record {} of the file before this one, whose hash is {}", head.sequence, head.hash);
        entries.push(Entry::new("reopened").with("continues", continues));
        self.append(&entries)
    }

    fn told(&self, entries: &[Entry]) {
        let last = self.shared.head.borrow().sequence;
        for (entry, before) in entries.iter().rev().zip(0..) {
            (self.hear)(Told::Recorded(entry.event, last.saturating_sub(before)));
            if entry.is_tampering() {
                (self.hear)(Told::Tampering);
            }
        }
    }
}

fn unwritable(reason: &str) -> Failure {
    Failure::new(Code::AuditLogUnwritable, reason)
}

fn warn_of(entry: &Entry) {
    let fields = entry.redacted();
    let noticed = fields.get("noticed").and_then(serde_json::Value::as_str).unwrap_or_default();
    tracing::warn!(noticed, "about the audit log");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        access::Permit,
        auditlog::{Asked, call::Allowed},
    };

    /// A log in a directory that goes with it, and nobody yet who writes it.
    fn log() -> (tempfile::TempDir, AuditLog, Writer) {
        let directory = tempfile::tempdir().expect("a directory is made");
        let opened = AuditLog::open(&directory.path().join("audit.jsonl"), "i", |_| {});
        let (log, writer) = opened.expect("it is opened");
        (directory, log, writer)
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_nobody_up() {
        let (_directory, log, writer) = log();
        let refused = log.write_within(Duration::from_millis(1), Entry::new("call")).await;
        let refused = refused.expect_err("nobody writes it");
        assert_eq!(refused.code, Code::AuditLogUnwritable);
        assert!(refused.message.ends_with("its disk has taken no record for 1ms"), "{refused}");
        assert_eq!(log.is_writable().map_err(|failure| failure.message), Err(refused.message));
        // The disk goes on, and with it everything else.
        let asked = async {
            log.write_now(Entry::new("call")).await.expect("it is written");
            log.is_writable().expect("it is writable again");
            log.close().await;
        };
        tokio::join!(writer.run(), asked);
        let text = fs::read_to_string(log.path()).expect("it is read");
        assert_eq!(text.matches(r#""event":"call""#).count(), 2, "{text}");
        assert!(text.contains("the disk took too long"), "{text}");
    }

    #[tokio::test]
    async fn a_call_that_is_let_go_has_an_end() {
        let (_directory, log, writer) = log();
        let asked = async {
            let permit = Permit::of_the_daemon();
            drop(log.call(&permit, &Asked::default()));
            let call = log.call(&permit, &Asked::default());
            call.allow(&Allowed::default()).await.expect("it is written");
            drop(call);
            // Whether that was obeyed, nobody knows.
            let call = log.call(&permit, &Asked::default());
            call.allow(&Allowed::default()).await.expect("it is written");
            call.answered(Err(&Failure::new(Code::OwnerSilent, "no answer")));
            drop(call);
            log.close().await;
        };
        tokio::join!(writer.run(), asked);
        let text = fs::read_to_string(log.path()).expect("it is read");
        let ends = text.lines().filter_map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let end = ["decision", "result"].map(|key| record[key].as_str().unwrap_or_default().to_owned());
            (record["event"] == "call" || record["event"] == "result").then_some(end.concat())
        });
        assert_eq!(ends.collect::<Vec<_>>(), ["none", "allowed", "unknown", "allowed", "unknown"]);
    }
}
