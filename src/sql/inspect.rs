//! The look at a whole file before anything of it is executed.

use std::io::Read;

use crate::{
    migration::{Code, Direction, Failure, Location, Mode, Version, checksum::Checksums},
    sql::{
        classify::{self, FirstLook, Refusal},
        groups::{Group, Groups, SplitError, Statement, Wrapper, wrapper_words},
        parse,
    },
};

/// The most refusals that are told of one file.
const MOST_REFUSALS: usize = 20;

/// What there is to know of a file that may be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// How many statements it has, without a wrapper's BEGIN and COMMIT.
    pub statements: u32,
    /// Whether all of it stands between one BEGIN and one COMMIT: execute it with
    /// [`Wrapper::Remove`], and say so.
    pub wrapped: bool,
    /// Its checksums.
    pub checksums: Checksums,
}

/// Reads a file once, to its end, and gives every reason why it cannot be a migration, in the
/// order of the lines, at most 20.
pub fn inspect(
    reader: impl Read,
    file_name: &str,
    direction: Direction,
    version: &Version,
    mode: Mode,
) -> Result<Inspection, Vec<Failure>> {
    let mut inspector = Inspector {
        file_name,
        version,
        mode,
        statements: 0,
        failures: Vec::new(),
        opened: None,
        closed: None,
    };
    let mut groups = Groups::new(reader, file_name, Wrapper::Keep);
    for group in &mut groups {
        match group {
            Ok(group) => inspector.group(&group),
            Err(error) => inspector.split_error(error),
        }
        if inspector.failures.len() >= MOST_REFUSALS {
            break;
        }
    }
    inspector.finish(direction, groups.checksums())
}

struct Inspector<'a> {
    file_name: &'a str,
    version: &'a Version,
    mode: Mode,
    statements: u32,
    failures: Vec<Failure>,
    /// The BEGIN that the file opens with: a refusal unless the file is wrapped.
    opened: Option<Failure>,
    /// The COMMIT after it: both are refusals where a statement follows.
    closed: Option<Failure>,
}

impl Inspector<'_> {
    fn group(&mut self, group: &Group) {
        for command in &group.meta_commands {
            let line = &group.text[command.clone()];
            let name = line.split_whitespace().next().unwrap_or(line);
            let message = format!("`{name}` is a psql meta-command, not SQL");
            let location = group.location(self.file_name, command.start, 0);
            self.failures.push(self.failure(Refusal::new(Code::MetaCommand, message), location));
        }
        let mut undecided = Vec::new();
        for statement in &group.statements {
            if self.closed.is_some() {
                self.failures.extend(self.opened.take().into_iter().chain(self.closed.take()));
            }
            let text = group.statement(statement);
            match classify::first_look(text) {
                FirstLook::Harmless => {}
                FirstLook::Undecided => undecided.push(statement),
                FirstLook::Savepoint if self.mode == Mode::Transactional => {}
                FirstLook::Savepoint => self.control("a savepoint", group, statement),
                FirstLook::Control(what) => self.control(what, group, statement),
            }
            self.statements = self.statements.saturating_add(1);
        }
        self.undecided(group, &undecided);
    }

    /// Takes a statement that controls transactions: half of a wrapper, or a refusal.
    fn control(&mut self, what: &str, group: &Group, statement: &Statement) {
        let failure = self.failure(
            classify::control(what, self.mode),
            group.location(self.file_name, statement.range.start, 0),
        );
        let is_first = self.statements == 0;
        let is_half = self.mode == Mode::Transactional
            && (is_first || self.opened.is_some())
            && wrapper_words(group.statement(statement), is_first).is_some();
        match is_half {
            true if is_first => self.opened = Some(failure),
            true => self.closed = Some(failure),
            false => self.failures.push(failure),
        }
    }

    /// Has the parser decide.
    fn undecided(&mut self, group: &Group, statements: &[&Statement]) {
        let (large, parsable): (Vec<&Statement>, Vec<&Statement>) =
            statements.iter().partition(|statement| parse::is_too_large(group.statement(statement)));
        let at = |statement: &Statement| group.location(self.file_name, statement.range.start, 0);
        let too_deep = "the statement is too large or too deeply nested to be checked";
        let too_deep =
            large.iter().map(|large| self.failure(Refusal::new(Code::TooDeep, too_deep), at(large)));
        let mut failures: Vec<_> = too_deep.collect();
        if !parsable.is_empty() {
            let mode = self.mode;
            let refusal = |statement: &&Statement| {
                let tree = parse::statement(group.statement(statement))?;
                classify::refusal(&tree, mode)
            };
            match parse::on_big_stack(|| parsable.iter().map(refusal).collect::<Vec<_>>()) {
                Some(refusals) => failures.extend(
                    parsable
                        .iter()
                        .zip(refusals)
                        .filter_map(|(statement, refusal)| Some(self.failure(refusal?, at(statement)))),
                ),
                None => failures.push(self.failure(
                    Refusal::new(
                        Code::Internal,
                        "the statements cannot be parsed: the parser's thread failed",
                    ),
                    at(parsable[0]),
                )),
            }
        }
        self.failures.append(&mut failures);
    }

    fn split_error(&mut self, error: SplitError) {
        let failure = match error {
            SplitError::Read(error) => {
                let message = format!("cannot read {}: {error}", self.file_name);
                Failure::new(Code::FileUnreadable, message).version(self.version)
            }
            SplitError::InvalidUtf8(location) => {
                self.failure(Refusal::new(Code::InvalidUtf8, "the file is not valid UTF-8"), location)
            }
            SplitError::Unterminated { what, begin } => {
                let message = format!("the {what} that begins here has no end");
                self.failure(Refusal::new(Code::Unterminated, message), begin)
            }
            SplitError::NulByte(location) => {
                self.failure(Refusal::new(Code::NulByte, "the file holds a NUL byte"), location)
            }
        };
        self.failures.push(failure);
    }

    fn failure(&self, refusal: Refusal, location: Location) -> Failure {
        Failure::new(refusal.code, refusal.message).hint(refusal.hint).version(self.version).at(location)
    }

    fn finish(
        mut self,
        direction: Direction,
        checksums: Option<Checksums>,
    ) -> Result<Inspection, Vec<Failure>> {
        let wrapped = self.opened.is_some() && self.closed.is_some();
        if !wrapped && checksums.is_some() {
            self.failures.extend(self.opened.take());
        }
        let statements = self.statements - if wrapped { 2 } else { 0 };
        match checksums {
            Some(checksums) if self.failures.is_empty() && statements > 0 => {
                return Ok(Inspection { statements, wrapped, checksums });
            }
            _ if self.failures.is_empty() => {
                let message = match direction {
                    Direction::Up => format!("Migration {} is empty", self.version),
                    Direction::Down => format!("Migration {} is empty: {}", self.version, self.file_name),
                };
                let start =
                    Location { file: self.file_name.into(), line: 1, column: 1, excerpt: String::new() };
                self.failures.push(self.failure(Refusal::new(Code::EmptyMigration, message), start));
            }
            _ => {}
        }
        self.failures
            .sort_by_key(|failure| failure.location.as_ref().map(|place| (place.line, place.column)));
        self.failures.retain(outside_of_rows());
        self.failures.truncate(MOST_REFUSALS);
        Err(self.failures)
    }
}

/// Passes over the backslashes among the rows below a COPY FROM STDIN: that it is refused is enough.
fn outside_of_rows() -> impl FnMut(&Failure) -> bool {
    let mut in_rows = false;
    move |failure| {
        let is_row = in_rows && failure.code == Code::MetaCommand;
        let is_end = is_row && failure.location.as_ref().is_some_and(|place| place.excerpt.trim() == "\\.");
        in_rows = (in_rows && !is_end) || failure.code == Code::CopyStream;
        !is_row
    }
}

#[cfg(test)]
mod tests;
