//! The scripts of a plan: all of them inspected before the first step, each read again, in whole
//! statements, when its step is run. Reading happens beside the runtime's threads.

use std::{io::Read, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    engine::{
        Run,
        failure::{of_session, several},
    },
    migration::{
        Code, Direction, Failure, Mode, Plan, Script, ScriptReader, Step, StepAction, Version,
        checksum::Checksums, plan::Source,
    },
    postgres::{journal, session::Session, tracking::Shape},
    sql::{self, Group, Inspection, Wrapper},
};

/// The largest down script that the journal keeps.
const MAX_KEPT_DOWN: u64 = 1024 * 1024;

/// The script of one step, found fit to be run.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// Where its text is; `None` where the step runs no SQL.
    pub(super) text: Option<Text>,
    /// How many statements it has.
    pub(super) statements: u32,
    /// Whether it stands between a BEGIN and a COMMIT, which are left out.
    wrapped: bool,
    /// The up file's checksum, as hexadecimal digits; empty where the file is gone.
    pub(super) checksum: String,
    /// The down file, to be kept in the journal.
    down: Option<Script>,
}

/// Where a script's text is.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// In the directory.
    File(Box<Script>),
    /// Read from the journal.
    Kept {
        /// The name that it is shown under.
        name: String,
        /// The text.
        text: Arc<str>,
    },
}

impl Prepared {
    /// The checksum that the row has or had: the file's where its up script is run, else the row's.
    pub(super) fn checksum_for(&self, step: &Step) -> String {
        match step.action.direction() {
            Some(Direction::Up) => self.checksum.clone(),
            _ => step.row_checksum.clone(),
        }
    }
}

impl Text {
    /// The name to show in messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::File(script) => &script.file_name,
            Self::Kept { name, .. } => name,
        }
    }

    fn open(&self, reader: &dyn ScriptReader) -> Result<Box<dyn Read + Send>, Failure> {
        match self {
            Self::File(script) => reader.open(script).map_err(|error| unreadable(script, &error)),
            Self::Kept { text, .. } => Ok(Box::new(std::io::Cursor::new(text.as_bytes().to_vec()))),
        }
    }
}

fn unreadable(script: &Script, error: &std::io::Error) -> Failure {
    Failure::new(Code::FileUnreadable, format!("{} cannot be read: {error}", script.path.display()))
}

/// Inspects every script that the plan runs, and the down file of every migration that it applies.
/// Refuses all of them together, before anything is done. What is not run as it stands is said in
/// the plan's notices.
pub(super) async fn prepare(
    run: &Run,
    plan: &mut Plan,
    session: &Session,
    shape: Shape,
) -> Result<Vec<Prepared>, Failure> {
    let mut texts = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        texts.push(find(run, step, session, shape).await?);
    }
    let (inspecting, steps) = (run.clone(), plan.steps.clone());
    let inspect_all = move || {
        let (mut prepared, mut failures) = (Vec::with_capacity(steps.len()), Vec::new());
        for (step, text) in steps.iter().zip(texts) {
            match inspect(&inspecting, step, text) {
                Ok(fit) => prepared.push(fit),
                Err(found) => failures.extend(found),
            }
        }
        several(failures).map_or(Ok(prepared), Err)
    };
    let inspected = tokio::task::spawn_blocking(inspect_all).await;
    let prepared = inspected.map_err(|_| internal("inspecting the scripts"))??;
    let wrapped = plan.steps.iter().zip(&prepared).filter(|(_, prepared)| prepared.wrapped);
    let notices: Vec<_> =
        wrapped.map(|(step, _)| format!("{}: its own BEGIN and COMMIT are left out", step.version)).collect();
    plan.notices.extend(notices);
    let large = plan.steps.iter().filter(|step| step.action == StepAction::Apply).filter(|step| {
        let down = run.catalog.script(&step.version, Direction::Down);
        down.is_some_and(|down| down.size > MAX_KEPT_DOWN)
    });
    let notices: Vec<_> = large
        .map(|step| format!("{}: its down file is too large to be kept in the journal", step.version))
        .collect();
    plan.notices.extend(notices);
    Ok(prepared)
}

fn internal(doing: &str) -> Failure {
    Failure::new(Code::Internal, format!("A task ended unexpectedly while {doing}"))
}

/// Where the SQL of a step is.
async fn find(run: &Run, step: &Step, session: &Session, shape: Shape) -> Result<Option<Text>, Failure> {
    let (Some(direction), Some(source)) = (step.action.direction(), step.source) else { return Ok(None) };
    if source == Source::File {
        return Ok(run
            .catalog
            .script(&step.version, direction)
            .cloned()
            .map(|script| Text::File(Box::new(script))));
    }
    let gone = || Failure::new(Code::NoDown, format!("No down migration is kept for {}", step.version));
    if !shape.journal {
        return Err(gone());
    }
    let kept = journal::kept_down(session, &step.version).await;
    let kept = kept.map_err(|error| of_session(error, "reading the kept down script"))?.ok_or_else(gone)?;
    let name = format!("{} (kept in the journal)", step.version.file_name(direction));
    Ok(Some(Text::Kept { name, text: kept.into() }))
}

fn inspect(run: &Run, step: &Step, text: Option<Text>) -> Result<Prepared, Vec<Failure>> {
    let migration = run.catalog.get(&step.version);
    let checksum = migration.map(|it| it.up.checksums.raw.hex()).unwrap_or_default();
    let (Some(text), Some(direction)) = (text, step.action.direction()) else {
        return Ok(Prepared { text: None, statements: 0, wrapped: false, checksum, down: None });
    };
    let inspected = inspect_text(&*run.reader, &text, direction, &step.version, step.mode);
    let down = migration.and_then(|it| it.down.clone()).filter(|_| direction == Direction::Up);
    let kept = down.as_ref().map(|down| {
        let text = Text::File(Box::new(down.clone()));
        inspect_text(&*run.reader, &text, Direction::Down, &step.version, down.header.mode())
    });
    match (inspected, kept.transpose()) {
        (Ok(inspection), Ok(_)) => {
            let down = down.filter(|down| down.size <= MAX_KEPT_DOWN);
            let Inspection { statements, wrapped, .. } = inspection;
            Ok(Prepared { text: Some(text), statements, wrapped, checksum, down })
        }
        (first, second) => Err(first.err().into_iter().chain(second.err()).flatten().collect()),
    }
}

fn inspect_text(
    reader: &dyn ScriptReader,
    text: &Text,
    direction: Direction,
    version: &Version,
    mode: Mode,
) -> Result<Inspection, Vec<Failure>> {
    let opened = text.open(reader).map_err(|failure| vec![failure])?;
    let inspection = sql::inspect(opened, text.name(), direction, version, mode)?;
    match text {
        Text::File(script) => {
            unchanged(script, Some(&inspection.checksums)).map_err(|failure| vec![failure])?;
        }
        Text::Kept { .. } => {}
    }
    Ok(inspection)
}

fn unchanged(script: &Script, read: Option<&Checksums>) -> Result<(), Failure> {
    if read.is_some_and(|read| read.raw == script.checksums.raw) {
        return Ok(());
    }
    Err(Failure::new(
        Code::FileChanged,
        format!("{} was changed while the run was under way", script.file_name),
    ))
}

/// What reading a script for its step gives, in this order: the down script to keep, the groups,
/// the end.
#[derive(Debug)]
pub(super) enum Feed {
    /// The down script to keep in the journal.
    Down(Option<String>),
    /// Some whole statements.
    Group(Group),
    /// The file was read to its end and is what it was when the plan was made.
    End,
    /// It could not be read, or was changed.
    Failed(Failure),
}

/// The failure where a feed ends without its end.
pub(super) fn ended_unexpectedly() -> Failure {
    internal("reading a script")
}

/// Up to this size a script is read at once, in less time than it takes to wake another thread.
const READ_AT_ONCE: u64 = 64 * 1024;

/// What reading a script of one group gives: the down script, the group, the end.
const FEEDS_OF_ONE_GROUP: usize = 3;

/// Reads the script of a step: a small one at once, a larger one a little ahead of who runs it.
pub(super) fn feed(run: &Run, step: &Step, prepared: &Prepared) -> mpsc::Receiver<Feed> {
    let (reader, prepared, action) = (run.reader.clone(), prepared.clone(), step.action);
    let kept_size = prepared.down.as_ref().map_or(0, |down| down.size);
    if step.size + kept_size <= READ_AT_ONCE {
        let (sender, receiver) = mpsc::channel(FEEDS_OF_ONE_GROUP + 1);
        read_to_end(&*reader, &prepared, action, |feed| sender.try_send(feed).is_ok());
        return receiver;
    }
    let (sender, receiver) = mpsc::channel(1);
    // Ends by itself when the receiver is dropped: nothing waits for it.
    drop(tokio::task::spawn_blocking(move || {
        read_to_end(&*reader, &prepared, action, |feed| sender.blocking_send(feed).is_ok());
    }));
    receiver
}

fn read_to_end(
    reader: &dyn ScriptReader,
    prepared: &Prepared,
    action: StepAction,
    send: impl Fn(Feed) -> bool,
) {
    let last = match read(reader, prepared, action, &send) {
        Ok(()) => Feed::End,
        Err(failure) => Feed::Failed(failure),
    };
    // False where nobody listens any more: the step has ended.
    send(last);
}

fn read(
    reader: &dyn ScriptReader,
    prepared: &Prepared,
    action: StepAction,
    send: impl Fn(Feed) -> bool,
) -> Result<(), Failure> {
    let Some(text) = &prepared.text else { return Ok(()) };
    let down = match (&prepared.down, action.direction()) {
        (Some(down), Some(Direction::Up)) => Some(read_down(reader, down)?),
        _ => None,
    };
    if !send(Feed::Down(down)) {
        return Ok(());
    }
    let wrapper = if prepared.wrapped { Wrapper::Remove } else { Wrapper::Keep };
    let mut groups = sql::Groups::new(text.open(reader)?, text.name(), wrapper);
    for group in groups.by_ref() {
        let group =
            group.map_err(|error| Failure::new(Code::FileUnreadable, format!("{}: {error}", text.name())))?;
        if !send(Feed::Group(group)) {
            return Ok(());
        }
    }
    match text {
        Text::File(script) => unchanged(script, groups.checksums().as_ref()),
        Text::Kept { .. } => Ok(()),
    }
}

fn read_down(reader: &dyn ScriptReader, down: &Script) -> Result<String, Failure> {
    let mut bytes = Vec::with_capacity(usize::try_from(down.size).unwrap_or_default());
    let mut opened = reader.open(down).map_err(|error| unreadable(down, &error))?;
    opened.read_to_end(&mut bytes).map_err(|error| unreadable(down, &error))?;
    unchanged(down, Some(&Checksums::of(&bytes)))?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(Code::InvalidUtf8, format!("{} is not UTF-8", down.file_name)))
}
