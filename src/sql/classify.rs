//! Which statements cannot be in a migration, and why.

use squawk_syntax::ast::{
    self, AlterDatabaseAction, AlterSubscriptionAction, AlterTableAction, AstNode as _, CopyDirection,
    CopySource, CopyTarget, DetachPartitionOption, DiscardTarget, ReindexOption, ReindexTarget, Stmt,
};

use crate::{
    migration::{Code, Mode},
    sql::lexer::{Kind, Lexer, leading_words},
};

/// Why a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
    /// What to do, where the code's own remedy would mislead.
    pub(super) hint: &'static str,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: "" }
    }
}

/// What the first words of a statement, and the words that it holds, say of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FirstLook {
    /// It may stand anywhere: the rest of it need not be understood.
    Harmless,
    /// It begins or ends a transaction.
    Control(&'static str),
    /// It works on savepoints, which exist only inside a transaction.
    Savepoint,
    /// Its syntax tree decides.
    Undecided,
}

/// Looks at a statement's words. The first ones alone tell transaction control, also where the
/// rest is wrong; data statements, however many, are neither parsed nor read beyond the first.
pub(super) fn first_look(statement: &str) -> FirstLook {
    let mut words = leading_words(statement).map(str::to_ascii_lowercase);
    let mut word = || words.next().unwrap_or_default();
    let undecided_if = |is: bool| if is { FirstLook::Undecided } else { FirstLook::Harmless };
    match word().as_str() {
        "begin" => FirstLook::Control("BEGIN"),
        "start" => FirstLook::Control("START TRANSACTION"),
        "end" => FirstLook::Control("END"),
        "abort" => FirstLook::Control("ABORT"),
        "commit" if word() == "prepared" => FirstLook::Control("COMMIT PREPARED"),
        "commit" => FirstLook::Control("COMMIT"),
        "rollback" => match word().as_str() {
            "to" => FirstLook::Savepoint,
            "work" | "transaction" if word() == "to" => FirstLook::Savepoint,
            "prepared" => FirstLook::Control("ROLLBACK PREPARED"),
            _ => FirstLook::Control("ROLLBACK"),
        },
        "prepare" if word() == "transaction" => FirstLook::Control("PREPARE TRANSACTION"),
        "savepoint" | "release" => FirstLook::Savepoint,
        "copy" => undecided_if(has_word(statement, &["stdin", "stdout"])),
        "vacuum" | "reindex" | "cluster" | "discard" => FirstLook::Undecided,
        "create" | "drop" | "alter" => match word().as_str() {
            "database" | "tablespace" | "subscription" | "system" => FirstLook::Undecided,
            "index" | "unique" | "table" => undecided_if(has_word(statement, &["concurrently"])),
            _ => FirstLook::Harmless,
        },
        _ => FirstLook::Harmless,
    }
}

/// Whether a statement that fails, run by itself, leaves nothing behind: what runs transactions of
/// its own (CALL, DO, anything CONCURRENTLY) may leave a part.
pub fn is_atomic(statement: &str) -> bool {
    let runs_its_own = |word: &str| ["call", "do"].iter().any(|verb| word.eq_ignore_ascii_case(verb));
    !leading_words(statement).next().is_some_and(runs_its_own) && !has_word(statement, &["concurrently"])
}

/// Whether one of `wanted` is among a statement's words.
pub(super) fn has_word(statement: &str, wanted: &[&str]) -> bool {
    let mut lexer = Lexer::default();
    std::iter::from_fn(|| lexer.next(statement.as_bytes(), true))
        .filter(|token| token.kind == Kind::Word)
        .any(|token| wanted.iter().any(|wanted| statement[token.range.clone()].eq_ignore_ascii_case(wanted)))
}

/// Why a statement of transaction control is refused.
pub(super) fn control(what: &str, mode: Mode) -> Refusal {
    let hint = match mode {
        Mode::Transactional => "",
        Mode::NonTransactional => {
            "remove it: without a transaction around the file, each statement commits by itself"
        }
    };
    Refusal { hint, ..Refusal::new(Code::TransactionControl, format!("{what} may not stand in a migration")) }
}

/// Why a statement is refused, by its syntax tree.
pub(super) fn refusal(statement: &Stmt, mode: Mode) -> Option<Refusal> {
    if let Some(what) = copy_stream(statement) {
        let message = format!("{what} needs a client that sends or takes the rows");
        return Some(Refusal::new(Code::CopyStream, message));
    }
    if is_discard_all(statement) {
        let (code, message) = match mode {
            Mode::Transactional => (Code::NotInTransaction, "DISCARD ALL cannot run inside a transaction"),
            Mode::NonTransactional => {
                (Code::TransactionControl, "DISCARD ALL would release the lock that guards the migration")
            }
        };
        let hint = "remove it: Nexus resets the session after each file";
        return Some(Refusal { hint, ..Refusal::new(code, message) });
    }
    let what = outside_of_transactions(statement).filter(|_| mode == Mode::Transactional)?;
    Some(Refusal::new(Code::NotInTransaction, format!("{what} cannot run inside a transaction")))
}

/// A COPY whose rows go over the connection. The parser keeps a file's name in the node of
/// PROGRAM, and an empty one for `TO STDIN`, which PostgreSQL takes for STDOUT.
fn copy_stream(statement: &Stmt) -> Option<&'static str> {
    let Stmt::Copy(copy) = statement else { return None };
    let is_file = |program: &ast::CopyProgram| program.literal().is_some();
    match copy.copy_direction()? {
        CopyDirection::CopyFrom(from) => match from.copy_source() {
            Some(CopySource::CopyProgram(program)) if is_file(&program) => None,
            _ => Some("COPY FROM STDIN"),
        },
        CopyDirection::CopyTo(to) => match to.copy_target() {
            Some(CopyTarget::CopyProgram(program)) if is_file(&program) => None,
            _ => Some("COPY TO STDOUT"),
        },
    }
}

fn is_discard_all(statement: &Stmt) -> bool {
    matches!(statement, Stmt::Discard(discard)
        if matches!(discard.discard_target(), Some(DiscardTarget::DiscardAll(_))))
}

/// The statements for which PostgreSQL calls `PreventInTransactionBlock`, as far as their text
/// tells.
fn outside_of_transactions(statement: &Stmt) -> Option<&'static str> {
    match statement {
        Stmt::CreateIndex(create) => create.concurrently_token().map(|_| "CREATE INDEX CONCURRENTLY"),
        Stmt::DropIndex(drop) => drop.concurrently_token().map(|_| "DROP INDEX CONCURRENTLY"),
        Stmt::Reindex(reindex) => match reindex.reindex_target()? {
            ReindexTarget::ReindexTargetDatabase(_) => Some("REINDEX DATABASE"),
            ReindexTarget::ReindexTargetSystem(_) => Some("REINDEX SYSTEM"),
            ReindexTarget::ReindexTargetSchema(_) => Some("REINDEX SCHEMA"),
            ReindexTarget::ReindexTargetIndex(_) | ReindexTarget::ReindexTargetTable(_) => {
                is_concurrent(reindex).then_some("REINDEX CONCURRENTLY")
            }
        },
        Stmt::Vacuum(_) => Some("VACUUM"),
        Stmt::CreateDatabase(_) => Some("CREATE DATABASE"),
        Stmt::DropDatabase(_) => Some("DROP DATABASE"),
        Stmt::AlterDatabase(alter) => match alter.action()? {
            AlterDatabaseAction::SetTablespace(_) => Some("ALTER DATABASE SET TABLESPACE"),
            _ => None,
        },
        Stmt::CreateTablespace(_) => Some("CREATE TABLESPACE"),
        Stmt::DropTablespace(_) => Some("DROP TABLESPACE"),
        Stmt::AlterSystem(_) => Some("ALTER SYSTEM"),
        Stmt::CreateSubscription(create) if !makes_no_slot(create) => Some("CREATE SUBSCRIPTION"),
        Stmt::DropSubscription(_) => Some("DROP SUBSCRIPTION"),
        Stmt::AlterSubscription(alter) => match alter.action()? {
            AlterSubscriptionAction::RefreshPublication(_) => Some("ALTER SUBSCRIPTION REFRESH PUBLICATION"),
            _ => None,
        },
        Stmt::Cluster(cluster) => {
            let names_table = cluster.table_name_ref().is_some() || cluster.cluster_legacy().is_some();
            (!names_table).then_some("CLUSTER without a table")
        }
        Stmt::AlterTable(alter) => {
            let detaches = alter.actions().any(|action| match action {
                AlterTableAction::DetachPartition(detach) => {
                    let option = detach.detach_partition_option();
                    matches!(option, Some(DetachPartitionOption::DetachConcurrently(_)))
                }
                _ => false,
            });
            detaches.then_some("DETACH PARTITION CONCURRENTLY")
        }
        _ => None,
    }
}

/// Whether a REINDEX is concurrent, in either of its two spellings.
pub(super) fn is_concurrent(reindex: &ast::Reindex) -> bool {
    let is_by_word = match reindex.reindex_target() {
        Some(ReindexTarget::ReindexTargetIndex(index)) => index.concurrently_token().is_some(),
        Some(ReindexTarget::ReindexTargetTable(table)) => table.concurrently_token().is_some(),
        _ => false,
    };
    is_by_word
        || reindex.reindex_option_list().is_some_and(|options| {
            options.reindex_options().any(|option| match option {
                ReindexOption::ReindexOptionConcurrently(option) => !is_off(&option.syntax().to_string()),
                _ => false,
            })
        })
}

/// Whether CREATE SUBSCRIPTION leaves the publisher alone, and so may run in a transaction.
fn makes_no_slot(create: &ast::CreateSubscription) -> bool {
    let options = create.with_params().and_then(|params| params.attribute_list());
    options.is_some_and(|options| {
        options.attribute_options().any(|option| {
            let text = option.syntax().to_string();
            let name = leading_words(&text).next().unwrap_or_default();
            ["connect", "create_slot"].iter().any(|known| name.eq_ignore_ascii_case(known)) && is_off(&text)
        })
    })
}

/// Whether an option such as `connect = 'off'` is turned off.
fn is_off(option: &str) -> bool {
    let value = option.rsplit(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    let value = value.trim_matches('\'');
    ["false", "off", "0"].iter().any(|off| value.eq_ignore_ascii_case(off))
}
