//! PostgreSQL's grammar, by squawk's parser.

use std::thread;

use squawk_syntax::{
    SourceFile,
    ast::{AstNode as _, Stmt},
};

use crate::sql::lexer::Lexer;

/// The most tokens that a statement may have to be parsed. The parser recurses, and overflows its
/// stack, once per level of nesting, and its time grows with the square of the depth: a token is at
/// most one level.
const MOST_TOKENS: usize = 10_000;

/// Enough for that many levels several times over. It is reserved, and only what is used is taken.
const STACK: usize = 256 << 20;

/// Whether a statement is too large to be parsed safely.
pub(super) fn is_too_large(statement: &str) -> bool {
    let mut lexer = Lexer::default();
    std::iter::from_fn(|| lexer.next(statement.as_bytes(), true)).nth(MOST_TOKENS).is_some()
}

/// Parses one statement; `None` where it is none that the parser knows. To be called on the big
/// stack, of a statement that is not too large.
pub(super) fn statement(text: &str) -> Option<Stmt> {
    let file = SourceFile::cast(SourceFile::parse(text).syntax_node())?;
    file.stmts().next()
}

/// Runs `work` on a thread with a stack that the parser cannot overflow; `None` where there can be
/// no such thread, or the parser panicked.
pub(super) fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("sql-parser".into()).stack_size(STACK);
        builder.spawn_scoped(scope, work).ok()?.join().ok()
    })
}
