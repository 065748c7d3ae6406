//! What the server and the session raise, told as failures.

use crate::{
    migration::{Code, Failure, Location, Step, StepAction, Version},
    postgres::{
        error::SqlFault,
        session::{Session, SessionError},
    },
};

/// What to do where a row is not as it was written, and that showed in a step.
const ROW_HINT: &str = "remove the statement that does it or, where none does, the trigger or rule that keeps the row (in psql: \\d schema_migrations)";

/// What a session's error means outside a migration's own SQL.
pub(super) fn of_session(error: SessionError, doing: &str) -> Failure {
    match error {
        SessionError::Sql(fault) => of_own_sql(fault, doing),
        SessionError::Lost => {
            Failure::new(Code::ConnectionLost, format!("The connection was lost while {doing}"))
        }
        SessionError::Cancelled => Failure::new(Code::Cancelled, "The operation was cancelled"),
        SessionError::LockHeld { holder } => {
            let holder = if holder.is_empty() { "another session".to_owned() } else { holder };
            Failure::new(Code::LockHeld, "Another run holds the database's lock")
                .details(vec![format!("held by {holder}")])
        }
        SessionError::RowGone => row_kept(doing),
        SessionError::Pooler => Failure::new(
            Code::Pooler,
            "A pooler in transaction mode stands between Nexus and PostgreSQL: the session does not keep its settings",
        ),
        SessionError::Standby => {
            Failure::new(Code::UnfitServer, "The server is a standby: it can only be read")
        }
        SessionError::TableGone => Failure::new(
            Code::TableGone,
            "The table schema_migrations is gone, and its journal, which knows what was applied, is not",
        ),
        SessionError::Shape(error) => Failure::new(Code::ForeignTable, error.to_string()),
    }
}

/// The same while a row of Nexus's own is written, which a trigger, a rule or a constraint of others may keep.
pub(super) fn of_row(error: SessionError, doing: &str) -> Failure {
    let SessionError::Sql(fault) = error else { return of_session(error, doing) };
    if Session::escaped(&fault).is_some() {
        return row_kept(doing);
    }
    match fault.sqlstate.as_str() {
        "P0001" | "0A000" => {}
        class if class.starts_with("23") => {}
        _ => return of_own_sql(fault, doing),
    }
    with_fault(Failure::new(Code::RowKept, format!("{} while {doing}", fault.message)), fault)
}

fn of_own_sql(fault: SqlFault, doing: &str) -> Failure {
    let code = match fault.sqlstate.as_str() {
        "42501" => Code::Privilege,
        "25006" => Code::UnfitServer,
        "55P03" | "40P01" => Code::LockTimeout,
        "57014" => Code::StatementTimeout,
        "3F000" => Code::BadConfig,
        class if class.starts_with("53") || class.starts_with("58") => Code::Unreachable,
        _ => Code::Internal,
    };
    with_fault(Failure::new(code, format!("{} while {doing}", fault.message)), fault)
}

fn row_kept(doing: &str) -> Failure {
    let message = "Something else kept or removed the row of schema_migrations";
    Failure::new(Code::RowKept, format!("{message} while {doing}"))
}

/// What an error in a migration's SQL means. `partly` tells how many statements of how many were
/// done, where the script does not run in a transaction.
pub(super) fn of_script(
    fault: SqlFault,
    step: &Step,
    location: Option<Location>,
    partly: Option<(u32, u32)>,
) -> Failure {
    let is_hidden = location.as_ref().is_some_and(Location::is_hidden);
    let fault = if is_hidden { fault.without_quoted_sql() } else { fault };
    let failure = if let Some(what) = Session::escaped(&fault) {
        let message = format!("Migration {} changed {what}, and was stopped", step.version);
        let failure = at(Failure::new(Code::Escaped, message).version(&step.version), location);
        let is_row = what == Session::ROW;
        return if is_row { failure.hint(ROW_HINT) } else { failure };
    } else if let Some((done, total)) = partly {
        let message = format!("Migration {} failed after {done} of {total} statements", step.version);
        Failure::new(Code::PartlyApplied, message)
    } else {
        match fault.sqlstate.as_str() {
            "55P03" | "40P01" => Failure::new(
                Code::LockTimeout,
                "Migration failed and was rolled back: a lock could not be had in time",
            ),
            "57014" if fault.message.contains("timeout") => Failure::new(
                Code::StatementTimeout,
                "Migration failed and was rolled back: a statement ran longer than allowed",
            ),
            _ => Failure::new(Code::MigrationFailed, "Migration failed and was rolled back"),
        }
    };
    let failure = match step.action {
        StepAction::Rollback => failure.hint("correct the down file, then: nexusctl rollback --from file"),
        StepAction::Undo => failure.hint("correct the down file, then: nexusctl recover"),
        _ => failure,
    };
    with_fault(at(failure.version(&step.version), location), fault)
}

/// The failure of a step that was cancelled.
pub(super) fn cancelled(version: &Version) -> Failure {
    let message = format!("The operation was cancelled while {version} was running: it was rolled back");
    Failure::new(Code::Cancelled, message).version(version)
}

fn at(failure: Failure, location: Option<Location>) -> Failure {
    match location {
        Some(location) => failure.at(location),
        None => failure,
    }
}

fn with_fault(mut failure: Failure, fault: SqlFault) -> Failure {
    failure.sqlstate = Some(fault.sqlstate);
    failure.server_message = Some(fault.message);
    failure.operator_message = fault.shown;
    failure.server_hint = fault.hint;
    failure
}

/// One failure of several: the first one's code and place, and a line for each.
pub(super) fn several(mut failures: Vec<Failure>) -> Option<Failure> {
    if failures.len() < 2 {
        return failures.pop();
    }
    let details = failures.iter().map(|failure| match &failure.location {
        Some(location) => format!("{location}: {} [{}]", failure.message, failure.code),
        None => format!("{} [{}]", failure.message, failure.code),
    });
    let details = details.collect();
    let first = failures.swap_remove(0);
    Some(first.details(details))
}
