//! What a statement that builds or drops an index concurrently is about.

use squawk_syntax::ast::{AstNode as _, Path, PathRef, ReindexTarget, Stmt, normalize_name_node};

use crate::sql::{
    classify::{has_word, is_concurrent},
    lexer::leading_words,
    parse,
};

/// PostgreSQL cuts longer identifiers (`NAMEDATALEN - 1` bytes).
const IDENTIFIER: usize = 63;

/// A statement that leaves an INVALID index behind when it dies. Names are as the catalog has
/// them: folded to lower case where they are not quoted, cut at 63 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcurrentIndex {
    /// What it does.
    pub action: IndexAction,
    /// The schema that is named for the index or, where the index takes it from there, its table.
    pub schema: Option<String>,
    /// The index; `None` where PostgreSQL chooses a name, and for REINDEX TABLE.
    pub name: Option<String>,
    /// The table, where one is named.
    pub table: Option<String>,
    /// Whether it says IF NOT EXISTS.
    pub if_not_exists: bool,
}

/// What is done to an index concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexAction {
    /// CREATE INDEX CONCURRENTLY.
    Create,
    /// DROP INDEX CONCURRENTLY.
    Drop,
    /// REINDEX INDEX or TABLE, CONCURRENTLY.
    Reindex,
}

/// What a statement does to an index concurrently; `None` where it does not.
pub fn concurrent_index(statement: &str) -> Option<ConcurrentIndex> {
    let is_verb =
        |word: &str| ["create", "drop", "reindex"].iter().any(|verb| word.eq_ignore_ascii_case(verb));
    let is_candidate =
        leading_words(statement).next().is_some_and(is_verb) && has_word(statement, &["concurrently"]);
    if !is_candidate || parse::is_too_large(statement) {
        return None;
    }
    parse::on_big_stack(|| parse::statement(statement).as_ref().and_then(of_tree))?
}

fn of_tree(statement: &Stmt) -> Option<ConcurrentIndex> {
    let found = |action, (schema, name), table, if_not_exists| {
        Some(ConcurrentIndex { action, schema, name, table, if_not_exists })
    };
    let none = (None, None);
    match statement {
        Stmt::CreateIndex(create) if create.concurrently_token().is_some() => {
            let name = create.index().and_then(|index| index.path()).as_ref().and_then(new_name);
            let table = create.table_relation_name().and_then(|relation| relation.table_name_ref());
            let (schema, table) = table.and_then(|table| table.path_ref()).map_or(none, |path| names(&path));
            found(IndexAction::Create, (schema, name), table, create.if_not_exists().is_some())
        }
        Stmt::DropIndex(drop) if drop.concurrently_token().is_some() => {
            let path = drop.index_refs().next().and_then(|index| index.path_ref());
            found(IndexAction::Drop, path.map_or(none, |path| names(&path)), None, false)
        }
        Stmt::Reindex(reindex) if is_concurrent(reindex) => match reindex.reindex_target()? {
            ReindexTarget::ReindexTargetIndex(target) => {
                let path = target.index_ref().and_then(|index| index.path_ref());
                found(IndexAction::Reindex, path.map_or(none, |path| names(&path)), None, false)
            }
            ReindexTarget::ReindexTargetTable(target) => {
                let path = target.table_name_ref().and_then(|table| table.path_ref());
                let (schema, table) = path.map_or(none, |path| names(&path));
                found(IndexAction::Reindex, (schema, None), table, false)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The schema and the name of a reference.
fn names(path: &PathRef) -> (Option<String>, Option<String>) {
    let name = |path: &PathRef| path.segment().map(|segment| cut(normalize_name_node(segment.syntax())));
    (path.qualifier().as_ref().and_then(name), name(path))
}

/// The name that a new index is given; PostgreSQL takes no schema there.
fn new_name(path: &Path) -> Option<String> {
    path.segment().map(|segment| cut(normalize_name_node(segment.syntax())))
}

fn cut(mut identifier: String) -> String {
    identifier.truncate(identifier.floor_char_boundary(IDENTIFIER));
    identifier
}

#[cfg(test)]
mod tests {
    use super::{
        IndexAction::{Create, Drop, Reindex},
        *,
    };

    type Names<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);

    #[test]
    fn what_an_index_statement_is_about() {
        let check = |statement: &str, expected: Option<(IndexAction, Names, bool)>| {
            let found = concurrent_index(statement);
            let found = found.as_ref().map(|index| {
                let names = (index.schema.as_deref(), index.name.as_deref(), index.table.as_deref());
                (index.action, names, index.if_not_exists)
            });
            assert_eq!(found, expected, "{statement}");
        };
        check("SELECT 'CREATE INDEX CONCURRENTLY i ON t (a)'", None);
        check("CREATE INDEX i ON t (a)", None);
        check("CREATE INDEX \"concurrently\" ON t (concurrently)", None);
        check("DROP INDEX i", None);
        check("REINDEX TABLE t", None);
        check("REINDEX (CONCURRENTLY off) TABLE t", None);
        check(&format!("CREATE INDEX CONCURRENTLY i ON t ({})", "(".repeat(100_000)), None);
        check("create index concurrently I on T (a)", Some((Create, (None, Some("i"), Some("t")), false)));
        check(
            "-- why\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I \"\"x\" ON ONLY Shop.\"T\" USING gin (a);",
            Some((Create, (Some("shop"), Some("I \"x"), Some("T")), true)),
        );
        check("CREATE INDEX CONCURRENTLY ON t (a)", Some((Create, (None, None, Some("t")), false)));
        check(
            r#"CREATE INDEX CONCURRENTLY U&"d\0061t" ON tÄ ((lower(b)))"#,
            Some((Create, (None, Some("dat"), Some("tÄ")), false)),
        );
        check(
            &format!("CREATE INDEX CONCURRENTLY {}é ON t (a)", "X".repeat(62)),
            Some((Create, (None, Some(&"x".repeat(62)), Some("t")), false)),
        );
        check(
            "DROP INDEX CONCURRENTLY IF EXISTS s.i CASCADE",
            Some((Drop, (Some("s"), Some("i"), None), false)),
        );
        check("REINDEX INDEX CONCURRENTLY s.i", Some((Reindex, (Some("s"), Some("i"), None), false)));
        check(
            "REINDEX (VERBOSE, CONCURRENTLY) TABLE s.t",
            Some((Reindex, (Some("s"), None, Some("t")), false)),
        );
    }
}
