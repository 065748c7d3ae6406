//! A migration file in groups of whole statements, so that a file of any size costs neither the
//! daemon nor the server more than a group at a time.

use std::{
    io::{self, Read},
    ops::Range,
};

use crate::{
    migration::{
        Location,
        checksum::{Checksums, Hasher},
    },
    sql::{
        lexer::{Kind, Lexer},
        position::Position,
        splitter::{Piece, Splitter},
    },
};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// What becomes of the BEGIN and the COMMIT that a whole file is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapper {
    /// They are statements like others.
    Keep,
    /// They are overwritten with spaces and are no statements: for a file that
    /// [`inspect`](crate::sql::inspect) has found to be wrapped.
    Remove,
}

/// One statement of a [`Group`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Its bytes in the group's text, from its first to its last token, without the final `;`.
    pub range: Range<usize>,
    /// Its line in the file, from 1.
    pub line: u32,
    /// Its column in characters, from 1.
    pub column: u32,
}

/// Some whole statements that follow each other in a file; at least one.
#[derive(Debug, Clone)]
pub struct Group {
    /// The text, comments and white space included, without a byte-order mark.
    pub text: String,
    /// The statements in it: PostgreSQL completes as many commands for the text.
    pub statements: Vec<Statement>,
    pub(super) meta_commands: Vec<Range<usize>>,
    start: Position,
}

impl Group {
    /// The place in `file` that is `characters` after the byte `from` of this group's text.
    ///
    /// PostgreSQL counts characters from 1 in what it was sent: the whole text (`from` is 0), or
    /// one statement (`from` is the start of its range).
    pub fn location(&self, file: &str, from: usize, characters: usize) -> Location {
        let rest = self.text.get(from..).unwrap_or_default();
        let offset = rest.char_indices().nth(characters).map_or(self.text.len(), |(index, _)| from + index);
        self.start.locate(file, self.text.as_bytes(), offset)
    }

    /// The text of one of its statements.
    pub fn statement(&self, statement: &Statement) -> &str {
        &self.text[statement.range.clone()]
    }
}

/// Why a file cannot be split to its end.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// It cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    /// It is not UTF-8.
    #[error("the file is not valid UTF-8 at {0}")]
    InvalidUtf8(Location),
    /// It holds a NUL byte.
    #[error("the file holds a NUL byte at {0}")]
    NulByte(Location),
}

/// How big the pieces are that a file is read and cut into, in bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    read: usize,
    least: usize,
    most: usize,
}

const SIZES: Sizes = Sizes { read: 64 << 10, least: 256 << 10, most: 1 << 20 };

/// The groups of a file, read as they are asked for.
///
/// What is left of the file makes one group where that is at most 1 MiB: a file of up to that size
/// is one group. Otherwise a group ends with the statement that reaches 256 KiB.
pub struct Groups<R> {
    reader: R,
    file: String,
    wrapper: Wrapper,
    sizes: Sizes,
    hasher: Option<Hasher>,
    checksums: Option<Checksums>,
    /// What has been read and not yet given; the first `valid` bytes are UTF-8 without NUL.
    buffer: Vec<u8>,
    valid: usize,
    /// Whether `buffer` ends where the file, or its valid part, does.
    whole: bool,
    error: Option<SplitError>,
    splitter: Splitter,
    start: Position,
    given: usize,
}

impl<R: Read> Groups<R> {
    /// Splits what `reader` gives; `file` is its name for messages.
    pub fn new(reader: R, file: impl Into<String>, wrapper: Wrapper) -> Self {
        Self {
            reader,
            file: file.into(),
            wrapper,
            sizes: SIZES,
            hasher: Some(Hasher::default()),
            checksums: None,
            buffer: Vec::new(),
            valid: 0,
            whole: false,
            error: None,
            splitter: Splitter::default(),
            start: Position::default(),
            given: 0,
        }
    }

    /// The checksums of the whole file; `None` until the last group has been given, and where it
    /// could not be read to its end.
    pub fn checksums(&self) -> Option<Checksums> {
        self.checksums
    }

    /// Reads and checks the next bytes.
    fn read(&mut self) {
        let is_first = self.hasher.is_some() && self.given == 0 && self.buffer.is_empty();
        let old = self.buffer.len();
        let count = match (&mut self.reader).take(self.sizes.read as u64).read_to_end(&mut self.buffer) {
            Ok(count) => count,
            Err(error) => return self.fail(SplitError::Read(error)),
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.buffer[old..]);
        }
        if is_first && self.buffer.starts_with(BOM) {
            self.buffer.drain(..BOM.len());
        }
        let new = &self.buffer[self.valid..];
        let (sound, is_sound) = match std::str::from_utf8(new) {
            Ok(_) => (new.len(), true),
            Err(error) => (error.valid_up_to(), error.error_len().is_none() && count > 0),
        };
        let nul = new[..sound].iter().position(|&byte| byte == 0);
        self.valid += nul.unwrap_or(sound);
        if nul.is_some() || !is_sound {
            let location = self.start.locate(&self.file, &self.buffer, self.valid);
            self.fail(if nul.is_some() { SplitError::NulByte } else { SplitError::InvalidUtf8 }(location));
        } else if count == 0 {
            self.whole = true;
            self.checksums = self.hasher.take().map(Hasher::finish);
        }
    }

    /// The file ends here; what stands before is still given.
    fn fail(&mut self, error: SplitError) {
        self.buffer.truncate(self.valid);
        self.hasher = None;
        self.whole = true;
        self.error = Some(error);
    }

    /// Takes the first `end` bytes of the buffer out of it.
    fn cut(&mut self, end: usize, pieces: Vec<Piece>) -> Group {
        // The line's end belongs to the statement before it, so that a group begins with a line.
        let blanks =
            self.buffer[end..self.valid].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        let newline = end + blanks.count();
        let end = if self.buffer[..self.valid].get(newline) == Some(&b'\n') { newline + 1 } else { end };

        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        self.buffer.shrink_to(self.sizes.most + self.sizes.read);
        self.valid -= end;
        self.splitter.seek(0);
        let mut group = Group { text, statements: Vec::new(), meta_commands: Vec::new(), start: self.start };
        let mut seen = 0;
        for piece in pieces {
            match piece {
                Piece::Meta(range) => group.meta_commands.push(range),
                Piece::Statement(range) => {
                    self.start = self.start.after(&group.text[seen..range.start]);
                    seen = range.start;
                    let Position { line, column } = self.start;
                    self.given += 1;
                    if self.wrapper == Wrapper::Keep || !unwrap(&mut group.text, &range, self.given == 1) {
                        group.statements.push(Statement { range, line, column });
                    }
                }
            }
        }
        self.start = self.start.after(&group.text[seen..]);
        group
    }
}

impl<R: Read> Iterator for Groups<R> {
    type Item = Result<Group, SplitError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut pieces = Vec::new();
            while !self.whole && self.buffer.len() <= self.sizes.most {
                self.read();
            }
            let end = loop {
                let Some(piece) = self.splitter.next(&self.buffer[..self.valid], self.whole) else {
                    if self.whole {
                        break self.valid;
                    }
                    self.read();
                    continue;
                };
                pieces.push(piece);
                let is_last = self.whole && self.valid <= self.sizes.most;
                if !is_last && self.splitter.position() >= self.sizes.least {
                    break self.splitter.position();
                }
            };
            let is_end = self.whole && end == self.valid;
            if end > 0 {
                let group = self.cut(end, pieces);
                if !group.statements.is_empty() || !group.meta_commands.is_empty() {
                    return Some(Ok(group));
                }
            }
            if is_end {
                return self.error.take().map(Err);
            }
        }
    }
}

/// Blanks the words of a statement that is one of a wrapper's two, and says whether it is. Only
/// words: each is as long in characters as in bytes, and a comment between them stays.
fn unwrap(text: &mut String, statement: &Range<usize>, is_first: bool) -> bool {
    let Some(words) = wrapper_words(&text[statement.clone()], is_first) else { return false };
    for word in words {
        let range = statement.start + word.start..statement.start + word.end;
        text.replace_range(range, &" ".repeat(word.len()));
    }
    true
}

/// The words of a statement that opens (or, where it is not the first of its file, closes) a
/// wrapper: BEGIN or COMMIT without anything that gives the transaction other properties.
pub(super) fn wrapper_words(statement: &str, is_first: bool) -> Option<Vec<Range<usize>>> {
    let mut lexer = Lexer::default();
    let tokens = std::iter::from_fn(|| lexer.next(statement.as_bytes(), true)).take(3);
    let words: Option<Vec<_>> =
        tokens.map(|token| (token.kind == Kind::Word).then_some(token.range)).collect();
    let words = words?;
    let is = |index: usize, wanted: &[&str]| {
        let word: Option<&Range<usize>> = words.get(index);
        word.is_some_and(|word| {
            wanted.iter().any(|wanted| statement[word.clone()].eq_ignore_ascii_case(wanted))
        })
    };
    let is_known = match words.len() {
        1 if is_first => is(0, &["begin"]),
        1 => is(0, &["commit", "end"]),
        2 if is_first && is(0, &["start"]) => is(1, &["transaction"]),
        2 => is(0, if is_first { &["begin"] } else { &["commit", "end"] }) && is(1, &["work", "transaction"]),
        _ => false,
    };
    is_known.then_some(words)
}
