//! Where statements end: at each `;` that is not in quotes, in parentheses, or in the body of an
//! SQL function that is written `BEGIN ATOMIC … END`.

use std::ops::Range;

use crate::sql::lexer::{Kind, Lexer, Token};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A statement, from its first to its last token, without the `;`.
    Statement(Range<usize>),
    /// A psql meta-command, to the end of its line. The statement that it stood in is given up.
    Meta(Range<usize>),
}

/// Splits a text that may still be growing, as [`Lexer`] does.
#[derive(Debug, Clone, Default)]
pub(super) struct Splitter {
    lexer: Lexer,
    /// From the first to the last token of the statement that is being read.
    statement: Option<Range<usize>>,
    depth: u32,
    routine: Routine,
}

/// How far a statement has shown itself to be `CREATE [OR REPLACE] FUNCTION … BEGIN ATOMIC`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Routine {
    #[default]
    Start,
    Create,
    CreateOr,
    CreateOrReplace,
    Signature,
    Begin,
    /// In the body. No statement that may stand there begins with END, so that an END which
    /// follows ATOMIC or a `;` closes it, and any other is that of a CASE or a name.
    Body {
        at_start: bool,
    },
    No,
}

impl Splitter {
    /// The end of the last piece, its `;` included.
    pub(super) fn position(&self) -> usize {
        self.lexer.position()
    }

    /// What the whole text ended in the middle of, and where that began; told once.
    pub(super) fn take_open(&mut self) -> Option<(usize, &'static str)> {
        self.lexer.take_open()
    }

    /// Goes on at another position of the text, between two pieces.
    pub(super) fn seek(&mut self, position: usize) {
        self.lexer.seek(position);
    }

    /// The next piece; `None` at the end of `text`, which grows until it is `whole`.
    pub(super) fn next(&mut self, text: &[u8], whole: bool) -> Option<Piece> {
        while let Some(Token { kind, range }) = self.lexer.next(text, whole) {
            match kind {
                Kind::Semicolon if self.depth == 0 && !matches!(self.routine, Routine::Body { .. }) => {
                    if let Some(statement) = self.finish() {
                        return Some(Piece::Statement(statement));
                    }
                    continue;
                }
                Kind::Meta => {
                    self.finish();
                    return Some(Piece::Meta(range));
                }
                Kind::Open => self.depth += 1,
                Kind::Close => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth == 0 {
                self.routine = self.routine.after(kind, &text[range.clone()]);
            }
            self.statement = match self.statement.take() {
                Some(statement) => Some(statement.start..range.end),
                None => Some(range),
            };
        }
        if whole { self.finish().map(Piece::Statement) } else { None }
    }

    fn finish(&mut self) -> Option<Range<usize>> {
        self.depth = 0;
        self.routine = Routine::Start;
        self.statement.take()
    }
}

impl Routine {
    fn after(self, kind: Kind, token: &[u8]) -> Self {
        let is = |word: &str| kind == Kind::Word && token.eq_ignore_ascii_case(word.as_bytes());
        match self {
            Self::Start if is("create") => Self::Create,
            Self::Create if is("or") => Self::CreateOr,
            Self::CreateOr if is("replace") => Self::CreateOrReplace,
            Self::Create | Self::CreateOrReplace if is("function") || is("procedure") => Self::Signature,
            Self::No | Self::Start | Self::Create | Self::CreateOr | Self::CreateOrReplace => Self::No,
            Self::Begin if is("atomic") => Self::Body { at_start: true },
            Self::Signature | Self::Begin if is("begin") => Self::Begin,
            Self::Signature | Self::Begin => Self::Signature,
            Self::Body { at_start: true } if is("end") => Self::Signature,
            Self::Body { .. } => Self::Body { at_start: kind == Kind::Semicolon },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let mut splitter = Splitter::default();
        let pieces = std::iter::from_fn(|| splitter.next(text.as_bytes(), true));
        let statements: Vec<_> = pieces
            .map(|piece| match piece {
                Piece::Statement(range) | Piece::Meta(range) => &text[range],
            })
            .collect();
        assert_eq!(statements, expected, "{text:?}");
    }

    #[test]
    fn ends_of_statements() {
        check("", &[]);
        check(" -- ;\n /* ; */ ;; ; ", &[]);
        check("a;b", &["a", "b"]);
        check("/* x */ a /* y */ b /* z */ ; -- w\n c -- v", &["a /* y */ b", "c"]);
        check("a ';' ; b \";\" ; c $x$;$x$", &["a ';'", "b \";\"", "c $x$;$x$"]);
        check("DO $$ BEGIN a; b; END $$; c;", &["DO $$ BEGIN a; b; END $$", "c"]);
        check(
            "create rule r as on insert to t do (a; b); c",
            &["create rule r as on insert to t do (a; b)", "c"],
        );
        check("a ) ; b", &["a )", "b"]);
        check("a ( ; b", &["a ( ; b"]);
        check("'open; b", &["'open; b"]);
        check("begin; a; end; b", &["begin", "a", "end", "b"]);
        check("a;\n\\copy t; from (\nb;", &["a", "\\copy t; from (", "b"]);
        check("a \\gset\nb;", &["\\gset", "b"]);
        check("a;\u{a0}b", &["a", "\u{a0}b"]);
    }

    #[test]
    fn bodies_of_routines() {
        for body in [
            "create function f() returns int begin atomic select 1; select 2; end",
            "CREATE OR REPLACE PROCEDURE p(a int) LANGUAGE SQL BEGIN ATOMIC END",
            "create function f() begin /* x */ atomic select case when 1 = 1 then case when a then 1 end end; end",
            "create function f() begin atomic select 1 as end; select e.end from (select 1) as e; end",
            "create function f() begin atomic insert into t select (case when a then b end); return 1; end",
            "create function f() returns int return case when a then b end",
            "create function f() as 'begin atomic' language sql",
            "create function begin() returns int as $$ select 1; $$ language sql",
        ] {
            check(&format!("{body}; select 1;"), &[body, "select 1"]);
        }
        check("create view begin as select; atomic; end", &["create view begin as select", "atomic", "end"]);
        check("create table atomic (begin int); end", &["create table atomic (begin int)", "end"]);
    }
}
