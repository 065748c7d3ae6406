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
    /// It ends in the middle of something: what follows it would become part of that.
    #[error("the {what} that begins at {begin} has no end")]
    Unterminated {
        /// A string, a comment, …
        what: &'static str,
        /// Where it begins.
        begin: Location,
    },
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
            // Where the file could not be read to its end, that is what is told.
            if let Some((begin, what)) = self.splitter.take_open()
                && self.error.is_none()
            {
                let begin = self.start.locate(&self.file, &self.buffer, begin);
                self.error = Some(SplitError::Unterminated { what, begin });
            }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(
        bytes: &[u8],
        wrapper: Wrapper,
        sizes: Sizes,
    ) -> (Vec<Group>, Option<SplitError>, Option<Checksums>) {
        let mut groups = Groups { sizes, ..Groups::new(bytes, "f.sql", wrapper) };
        let mut given = Vec::new();
        let mut error = None;
        for group in &mut groups {
            match group {
                Ok(group) => given.push(group),
                Err(found) => error = Some(found),
            }
        }
        assert!(groups.next().is_none(), "after its end there is nothing");
        (given, error, groups.checksums())
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }

    /// Each statement with its place.
    fn statements(groups: &[Group]) -> Vec<(&str, u32, u32)> {
        let all = groups.iter().flat_map(|group| group.statements.iter().map(move |one| (group, one)));
        all.map(|(group, one)| (group.statement(one), one.line, one.column)).collect()
    }

    #[test]
    fn what_cannot_be_split() {
        let check = |bytes: &[u8], expected: &str, given: &[(&str, u32, u32)]| {
            let (groups, error, checksums) = groups(bytes, Wrapper::Keep, SIZES);
            assert_eq!(error.expect("it cannot be split").to_string(), expected);
            assert_eq!((statements(&groups).as_slice(), checksums), (given, None));
        };
        check(b"a;\nb \xff;", "the file is not valid UTF-8 at f.sql:2:3", &[("a", 1, 1), ("b", 2, 1)]);
        check(b"\xef\xbb\xbf\xc3", "the file is not valid UTF-8 at f.sql:1:1", &[]);
        check(b"\xc3\xa4\0;", "the file holds a NUL byte at f.sql:1:2", &[("ä", 1, 1)]);
        check(b"a\0\xff", "the file holds a NUL byte at f.sql:1:2", &[("a", 1, 1)]);
        check(b"\xff\0", "the file is not valid UTF-8 at f.sql:1:1", &[]);

        let mut broken = Groups::new((&b"a;"[..]).chain(Broken), "f.sql", Wrapper::Keep);
        assert!(matches!(broken.next(), Some(Err(SplitError::Read(_)))));
        assert!(broken.next().is_none());
    }

    #[test]
    fn places_in_the_file() {
        let text = "\u{feff}-- ä\r\n  SELECT 'é', x;é; b\n;";
        let (groups, ..) = groups(text.as_bytes(), Wrapper::Keep, SIZES);
        assert_eq!(statements(&groups), [("SELECT 'é', x", 2, 3), ("é", 2, 17), ("b", 2, 20)]);
        let group = &groups[0];
        let place = |from, characters| group.location("f.sql", from, characters).to_string();
        assert_eq!(place(0, 19), "f.sql:2:14", "a character of the group");
        assert_eq!(place(group.statements[0].range.start, 12), "f.sql:2:15", "a character of a statement");
        assert_eq!(place(group.statements[1].range.start, 0), "f.sql:2:17", "a byte of the group");
        assert_eq!(place(0, 1000), "f.sql:3:2", "the end, where there is no such character");
        assert_eq!(group.location("f.sql", 0, 8).excerpt, "  SELECT 'é', x;é; b");
    }

    #[test]
    fn sizes_of_groups() {
        let row = format!("insert into t values ('{}');\n", "x".repeat(1000));
        let lengths = |bytes: &[u8]| -> Vec<usize> {
            let (groups, error, checksums) = groups(bytes, Wrapper::Keep, SIZES);
            assert!(error.is_none());
            assert_eq!(checksums, Some(Checksums::of(bytes)));
            assert_eq!(groups.iter().map(|group| group.text.as_str()).collect::<String>().as_bytes(), bytes);
            groups.iter().map(|group| group.text.len()).collect()
        };
        let small = row.repeat(1000);
        assert_eq!(lengths(small.as_bytes()), [small.len()], "up to 1 MiB it is one group");
        let large = lengths(row.repeat(5000).as_bytes());
        assert!(large.len() > 10 && large.iter().all(|&length| (SIZES.least..=SIZES.most).contains(&length)));
        let one = format!("select '{}'; select 1", "x".repeat(3 << 20));
        assert_eq!(lengths(one.as_bytes()), [one.len() - " select 1".len(), " select 1".len()]);
        let comments = format!("select 1; {}", "-- x\n".repeat(1 << 20));
        assert_eq!(groups(comments.as_bytes(), Wrapper::Keep, SIZES).0.len(), 1, "none without a statement");
    }

    #[test]
    fn wrappers_are_blanked() {
        let sizes = Sizes { read: 8, least: 16, most: 32 };
        for (open, close) in [("BEGIN", "COMMIT"), ("begin /* é */ work", "End -- é\n Transaction")] {
            let text =
                format!("-- é\n{open};\nselect 'begin';\n{}{close};\n-- end\n", "savepoint s;\n".repeat(9));
            for sizes in [SIZES, sizes] {
                let (kept, ..) = groups(text.as_bytes(), Wrapper::Keep, sizes);
                let (removed, ..) = groups(text.as_bytes(), Wrapper::Remove, sizes);
                let kept = statements(&kept);
                assert_eq!(statements(&removed), kept[1..kept.len() - 1], "{text}");
                let joined: String = removed.iter().map(|group| group.text.as_str()).collect();
                assert!(!joined.to_lowercase().contains("work"), "{joined}");
                assert!(
                    sizes.most == 32
                        || joined.chars().zip(text.chars()).all(|(new, old)| new == old || new == ' ')
                );
            }
        }
        let not_first = "select 1; begin; commit and chain; commit";
        let (groups, ..) = groups(not_first.as_bytes(), Wrapper::Remove, SIZES);
        assert_eq!(groups[0].statements.len(), 3, "only what opens or closes a wrapper");
    }

    const PIECES: &[&str] = &[
        ";",
        "'",
        "''",
        "\"",
        "$$",
        "$a$",
        "$",
        "E'\\'",
        "\\",
        "--",
        "\n",
        "\r\n",
        "/*",
        "*/",
        "(",
        ")",
        " ",
        "a",
        "é",
        "e",
        "1",
        "create function ",
        "begin atomic ",
        "end",
        "case ",
        "select 1;",
        "-",
        "/",
        "*",
    ];

    proptest! {
        #[test]
        fn read_sizes_do_not_matter(
            pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40),
            read in 3_usize..20,
            least in 1_usize..60,
            more in 1_usize..60,
        ) {
            let text = pieces.concat();
            let (whole, _, checksums) = groups(text.as_bytes(), Wrapper::Keep, SIZES);
            let sizes = Sizes { read, least, most: least + more };
            let (pieces, error, pieced_checksums) = groups(text.as_bytes(), Wrapper::Keep, sizes);
            let is_sound = matches!(error, None | Some(SplitError::Unterminated { .. }));
            prop_assert!(is_sound);
            prop_assert_eq!(statements(&pieces), statements(&whole));
            prop_assert_eq!(pieced_checksums, checksums);
            let metas = |groups: &[Group]| groups.iter().map(|group| group.meta_commands.len()).sum::<usize>();
            prop_assert_eq!(metas(&pieces), metas(&whole));
        }
    }
}
