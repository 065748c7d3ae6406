//! What a user is told when something fails: a stable code, one sentence, a hint.

use std::fmt;

use crate::redact::mask_sql;

/// A place in a migration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// The file's name.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The text of that line, cut at 200 characters, and before a credential: for the operator's
    /// terminal, never for a log.
    pub excerpt: String,
}

/// Stands where an excerpt is cut before a credential.
const CUT: char = '…';

impl Location {
    /// A place in a file, and the text of its line, or the beginning of it.
    pub fn new(file: &str, line: u32, column: u32, text: &str) -> Self {
        let masked = mask_sql(text);
        let excerpt = if masked == text {
            text.to_owned()
        } else {
            let same = text.chars().zip(masked.chars()).take_while(|(own, shown)| own == shown);
            same.map(|(own, _)| own).chain([CUT]).collect()
        };
        Self { file: file.to_owned(), line, column, excerpt }
    }

    /// Whether what stands there is not shown, as it may be a credential.
    pub fn is_hidden(&self) -> bool {
        self.excerpt.ends_with(CUT) && self.column as usize >= self.excerpt.chars().count()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Why something failed or was refused, as it is told to people, to the log and over gRPC.
///
/// Every layer has its own error type; this is what they become when they leave the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// What went wrong, in one sentence without a period; the runbook's words where it has some.
    pub message: String,
    /// What to do; the code's own hint where this is empty.
    pub hint: String,
    /// The migration concerned.
    pub version: Option<String>,
    /// The place in its file.
    pub location: Option<Box<Location>>,
    /// PostgreSQL's SQLSTATE.
    pub sqlstate: Option<String>,
    /// PostgreSQL's message, already stripped of values (see `redact`).
    pub server_message: Option<String>,
    /// What the script itself raised, which may hold anything: for the operator's terminal, never
    /// for a log.
    pub operator_message: Option<String>,
    /// PostgreSQL's own hint.
    pub server_hint: Option<String>,
    /// One line for each further object concerned: every mismatch, every blocker.
    pub details: Vec<String>,
}

impl Failure {
    /// A failure with a code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: String::new(),
            version: None,
            location: None,
            sqlstate: None,
            server_message: None,
            operator_message: None,
            server_hint: None,
            details: Vec::new(),
        }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, about one migration.
    #[must_use]
    pub fn version(mut self, version: impl fmt::Display) -> Self {
        self.version = Some(version.to_string());
        self
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(Box::new(location));
        self
    }

    /// The same, with a line for each further object concerned.
    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        if self.hint.is_empty() { self.code.remedy() } else { &self.hint }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The kind of a failure, from which `rpc` derives the gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request or a file is wrong.
    InvalidArgument,
    /// What was named does not exist.
    NotFound,
    /// The database or the directory is not in a state for it.
    FailedPrecondition,
    /// Somebody else is at work.
    Aborted,
    /// The database or the log cannot be reached now.
    Unavailable,
    /// It is not known who asks.
    Unauthenticated,
    /// Who asks may not do it.
    PermissionDenied,
    /// There are too many of it: what is asked for, or who asks.
    Exhausted,
    /// It took too long.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// The migration's SQL failed.
    Failed,
    /// Nexus itself is at fault.
    Internal,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $kind:ident, $remedy:literal;)*) => {
        /// The stable code of a failure; `docs/errors.md` has a section for each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code as it is shown, such as `NX0012`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The kind, from which the gRPC status follows.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind),* }
            }

            /// What to do in general; a [`Failure`] may know better.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy),* }
            }
        }
    };
}

codes! {
    /// A `.sql` file's name is not of the expected form.
    MalformedName = "NX0001", InvalidArgument, "rename the file to NUMBER_description.up.sql or .down.sql, or move it out of the migration directory";
    /// Two files with one number, or one version in two places.
    DuplicateVersion = "NX0002", InvalidArgument, "give one of the two files another number";
    /// The file holds only white space and comments.
    EmptyMigration = "NX0003", InvalidArgument, "add SQL to the file (`SELECT 1;` will do), or delete both files of the migration";
    /// The file is not UTF-8.
    InvalidUtf8 = "NX0004", InvalidArgument, "save the file as UTF-8";
    /// The file holds a NUL byte.
    NulByte = "NX0005", InvalidArgument, "remove the NUL byte: PostgreSQL cannot store it";
    /// The file is larger than the cap.
    FileTooLarge = "NX0006", InvalidArgument, "split the migration, or raise max_file_size";
    /// The file holds a psql meta-command.
    MetaCommand = "NX0007", InvalidArgument, "remove it: only psql understands lines that begin with a backslash; write plain SQL";
    /// The file controls transactions itself.
    TransactionControl = "NX0008", InvalidArgument, "remove it: Nexus runs the file in a transaction of its own; use `-- nexus: no-transaction` for statements that cannot run in one";
    /// COPY from STDIN or to STDOUT.
    CopyStream = "NX0009", InvalidArgument, "write the rows as INSERT statements, or load them from the server's side";
    /// A statement that cannot run inside a transaction, in a transactional file.
    NotInTransaction = "NX0010", InvalidArgument, "put `-- nexus: no-transaction` in the file's header, with this statement alone in the file where possible";
    /// A down file without its up file, or a pair that does not belong together.
    MissingUp = "NX0011", InvalidArgument, "restore the up file, or delete the down file";
    /// The policy asks for a down file and there is none.
    MissingDown = "NX0012", InvalidArgument, "write the down file, or set missing_down = \"warn\"";
    /// The header holds a directive that is unknown or malformed.
    BadDirective = "NX0013", InvalidArgument, "see the README's list of `-- nexus:` directives";
    /// The migration directory does not exist or cannot be read.
    DirectoryUnreadable = "NX0014", FailedPrecondition, "create the directory, or correct `migrations` in the configuration, and let the daemon's user read it";
    /// A migration file cannot be read.
    FileUnreadable = "NX0015", FailedPrecondition, "let the daemon's user read the file";
    /// A file changed between the moment the catalog was read and the moment it was to be run.
    FileChanged = "NX0016", Aborted, "run the command again: it will see the directory as it is now";
    /// A statement is nested too deeply to be checked.
    TooDeep = "NX0017", InvalidArgument, "split the statement";
    /// A string, a quoted identifier or a comment has no end.
    Unterminated = "NX0018", InvalidArgument, "close it: whatever follows the file would become part of it";

    /// The file of an applied migration was changed.
    ChecksumMismatch = "NX0020", FailedPrecondition, "restore the file as it was applied (git log FILE) and put the change in a new migration; if the change is harmless: nexusctl repair accept-checksum VERSION --reason …";
    /// A pending migration is older than an applied one.
    OutOfOrder = "NX0021", FailedPrecondition, "give the migration a number above the newest applied one, or set out_of_order = \"allow\"";
    /// An applied migration has no file.
    MissingFile = "NX0022", FailedPrecondition, "restore the file, or: nexusctl repair forget VERSION --reason …";
    /// There are dirty rows and recovery was turned off.
    Dirty = "NX0023", FailedPrecondition, "run it without --no-auto-recover, or settle the row: nexusctl recover, nexusctl repair";
    /// A dirty row whose down script is needed and does not exist.
    NoDownForDirty = "NX0024", FailedPrecondition, "create the down file, or settle the row by hand: nexusctl repair clear-dirty|forget VERSION --reason …";
    /// A rollback without a down script.
    NoDown = "NX0025", FailedPrecondition, "create the down file and run the rollback again";
    /// More steps than applied migrations, or less than one.
    BadSteps = "NX0026", InvalidArgument, "see nexusctl status for what is applied";
    /// `to` names no known version.
    UnknownVersion = "NX0027", InvalidArgument, "see nexusctl status for the versions";
    /// The table has another tool's shape.
    ForeignTable = "NX0028", FailedPrecondition, "set `table` or `schema` in the configuration to a place of Nexus's own";
    /// A repair that does not fit the row.
    BadRepair = "NX0029", FailedPrecondition, "see nexusctl status for how the row stands";

    /// The SQL failed, and the server kept nothing of it.
    MigrationFailed = "NX0030", Failed, "correct the SQL and run apply again: nothing of the failed attempt was kept";
    /// The SQL of a non-transactional migration failed part-way.
    PartlyApplied = "NX0031", Failed, "correct the SQL, then run apply (undoes the part with the down file first) or apply --resume (goes on after the last finished statement)";
    /// The file escaped its transaction, its lock or its role.
    Escaped = "NX0032", Failed, "remove the statement that does it, and check the schema before you run apply again";
    /// A lock could not be had in time, in every attempt.
    LockTimeout = "NX0033", Aborted, "end or wait for the sessions that block it, or raise lock_timeout";
    /// A statement ran longer than allowed.
    StatementTimeout = "NX0034", Failed, "raise statement_timeout, or split the migration";
    /// An invalid index stands in the way.
    InvalidIndex = "NX0035", Failed, "drop the invalid index concurrently, then run apply again";
    /// The connection was lost in the middle of a step.
    ConnectionLost = "NX0036", Unavailable, "see nexusctl status; the next apply settles what was interrupted by the journal's evidence";

    /// Somebody else holds the database's lock.
    LockHeld = "NX0040", Aborted, "wait for the other run to end, or raise lock_wait";
    /// The database cannot be reached.
    Unreachable = "NX0041", Unavailable, "check that the server runs and that the URL's host, port and TLS parameters are right";
    /// The server refused the credentials.
    Authentication = "NX0042", FailedPrecondition, "check the user and the password in the database's URL";
    /// The role may not do what is needed.
    Privilege = "NX0043", FailedPrecondition, "grant the role what it lacks, or use another role";
    /// A pooler in transaction mode stands between.
    Pooler = "NX0044", FailedPrecondition, "connect Nexus to PostgreSQL itself, not through a pooler in transaction mode: session locks do not hold there";
    /// The server is older than Nexus supports, or read-only.
    UnfitServer = "NX0045", FailedPrecondition, "use a primary server of PostgreSQL 14 or newer";
    /// A row of Nexus's own tables did not become what was written, or was gone.
    RowKept = "NX0046", FailedPrecondition, "see nexusctl status for how the row stands, and what else writes to Nexus's tables: triggers and rules (in psql: \\d schema_migrations), other sessions";

    /// The selection names no database.
    UnknownDatabase = "NX0050", NotFound, "nexusctl databases lists what the daemon knows";
    /// Several databases and no selection.
    NoSelection = "NX0051", InvalidArgument, "name them: --database NAME, --selector key=value, or --all";
    /// The request itself is malformed.
    BadRequest = "NX0052", InvalidArgument, "see nexusctl --help";
    /// The log cannot be written.
    LogUnwritable = "NX0053", Unavailable, "make the log file writable by the daemon's user; nothing is changed while it cannot be recorded";
    /// The operation was cancelled.
    Cancelled = "NX0054", Cancelled, "run the command again when you are ready";
    /// The daemon is stopping.
    ShuttingDown = "NX0055", Unavailable, "wait for the daemon to start again";
    /// The configuration is wrong.
    BadConfig = "NX0056", InvalidArgument, "see deploy/nexus.toml, where every key is explained";
    /// The request's id has already been at work on the database.
    RepeatedRequest = "NX0057", FailedPrecondition, "nexusctl history tells what the request did; to do it again, use a new request id";
    /// What an attempt left behind is not known.
    Undecided = "NX0058", FailedPrecondition, "look at the schema, bring it to one side by hand, and settle the row: nexusctl repair clear-dirty|forget VERSION --reason …";
    /// The tracking table is gone, and its journal is not.
    TableGone = "NX0059", FailedPrecondition, "restore the table, see nexusctl history for what was applied; where the schema is empty, drop the journal too to begin anew";
    /// No audit of that id is remembered.
    UnknownAudit = "NX0060", NotFound, "nexusctl audit list shows those that are remembered, nexusctl audit run makes one";
    /// No alert has this id.
    UnknownAlert = "NX0065", NotFound, "nexusctl alerts --resolved lists them, with their ids";
    /// The configuration cannot be taken over: the last good inventory stays.
    InventoryInvalid = "NX0070", InvalidArgument, "correct the file, which is read again at once; nexusd check-config shows every error";
    /// What a discovery found cannot be taken over: its last good databases stay.
    DiscoveryRefused = "NX0071", FailedPrecondition, "change the [[discover]] entry or what it finds; it is looked for again by itself, or at once with nexusctl reload";
    /// A discovery's query failed.
    DiscoveryFailed = "NX0072", FailedPrecondition, "run the query in psql as the same role; its columns may be name, dbname, schema and labels";
    /// A selector cannot be read.
    BadSelector = "NX0073", InvalidArgument, "write expressions with commas between them: env=prod,region!=eu,name~orders-*";
    /// No operation of that id is remembered.
    UnknownOperation = "NX0075", NotFound, "nexusctl operation list shows those that are remembered, since nexusd was started; nexusctl status and history know what earlier ones did";
    /// The command does not fit the state of the operation.
    OperationState = "NX0076", FailedPrecondition, "nexusctl operation show tells how it stands";
    /// The migration directory is another one than the operation began with.
    CatalogMoved = "NX0077", FailedPrecondition, "put the files back as they were, or go on with what is there now: --accept-new-catalog";
    /// A database is no longer one of the fleet's.
    TargetGone = "NX0078", FailedPrecondition, "put it back into the inventory and retry the operation, or leave it out";
    /// Another operation is about the same database, and the policy is to refuse.
    Overlap = "NX0079", Aborted, "wait for the other operation to end, or cancel it: nexusctl operation show, nexusctl operation cancel";
    /// Somebody who watches is too slow.
    TooSlow = "NX0080", Aborted, "nexusctl operation watch attaches again";
    /// Something was applied on top of what is to be rolled back.
    AppliedSince = "NX0081", FailedPrecondition, "look at what was applied since: nexusctl status, nexusctl history; then roll back by hand, the newest first";
    /// The strategy cannot be meant, or does not fit the databases.
    BadStrategy = "NX0082", InvalidArgument, "see docs/strategies.md for what goes together; nexusctl plan with the same flags shows the waves";
    /// The configuration has no strategy of this name.
    UnknownStrategy = "NX0083", NotFound, "name one that the daemon's configuration has, or say it with flags: --canary, --wave, --max-failures";
    /// What a plan was made over is not what is there now.
    PlanMoved = "NX0084", FailedPrecondition, "run nexusctl plan again with the same flags, read what has changed, and apply with its new digest";
    /// Nothing says who asks, and the daemon wants to know.
    NoCredential = "NX0085", Unauthenticated, "give a token or a certificate: nexusctl context add, or --token-file; docs/security.md says which there are";
    /// What was given to say who asks is not known to the daemon.
    BadCredential = "NX0086", Unauthenticated, "see whether the token is one of this daemon's, whole, and still in its file of tokens";
    /// The token has expired.
    ExpiredCredential = "NX0087", Unauthenticated, "have an admin make a new one: nexusctl token create";
    /// Whoever asks has no role that is high enough.
    RoleTooLow = "NX0088", PermissionDenied, "ask somebody who has the role, or have an admin grant it: docs/security.md";
    /// The role is granted, but not on these databases.
    NotGranted = "NX0089", PermissionDenied, "leave these databases out, or have an admin grant the role on them: docs/security.md";
    /// More is to be rolled back than an operator may.
    RollbackTooFar = "NX0090", PermissionDenied, "roll back fewer steps, ask an admin, or raise max_rollback_steps";
    /// The file of those who are let in, or a certificate, cannot be taken over: what was good last stays.
    AccessUnreadable = "NX0091", FailedPrecondition, "correct the file, which is read again at once: who was taken away from it is let in until then";
    /// A bug.
    Internal = "NX0099", Internal, "please report it, with the daemon's log";
    /// The control database cannot be used.
    ControlUnavailable = "NX0100", Unavailable, "what runs ends its step and goes on when the control database is back; until then nothing new is begun: see the daemon's log, and [control] in its configuration";
    /// The daemon that has to do it does not answer.
    OwnerSilent = "NX0101", Unavailable, "try again: another nexusd takes over from one that is silent, within its lease";
    /// A protected database, and it is not proven who asks.
    IdentityUnproven = "NX0102", Unauthenticated, "give `file` in [access] and restart nexusd, and say who you are: docs/security.md";
    /// There is no plan that could be approved.
    NoPlanToApprove = "NX0103", FailedPrecondition, "see nexusctl plan with the same flags, correct what it says, and ask again";
    /// Whoever asked for the operation would approve it.
    OwnApproval = "NX0104", PermissionDenied, "somebody else who may do it has to approve it: nexusctl operation approve";
    /// What would be done now is not what the approval was asked for.
    ApprovalStale = "NX0105", FailedPrecondition, "ask for it again: the same command, or nexusctl operation retry; then what is there now is approved";
    /// The time for an approval is over.
    ApprovalTooLate = "NX0106", FailedPrecondition, "ask for it again: the same command, or nexusctl operation retry";
    /// A protected database would be changed without an approval.
    NotApproved = "NX0107", FailedPrecondition, "ask for it again, so that a second person can approve it: a new operation, or nexusctl operation retry";
    /// The audit log cannot be written.
    AuditLogUnwritable = "NX0110", Unavailable, "make the file of [log] audit_file writable by the daemon's user; nothing is changed while it cannot be recorded";
    /// One caller asks for more than they may at once.
    TooManyRequests = "NX0115", Exhausted, "wait as long as it says, and ask again; one request may be about many databases";
    /// A request took too long until its answer began.
    RequestTimedOut = "NX0116", TimedOut, "what was begun goes on: see nexusctl operation list; ask for fewer databases at once, or raise request_timeout in [limits]";
    /// So many clients are connected that one more is only told so.
    TooManyClients = "NX0117", Exhausted, "close connections that are not needed and try again, or raise max_clients or max_clients_per_address in [limits]";
    /// Everybody may write to a migration directory of a protected database.
    OpenDirectory = "NX0118", FailedPrecondition, "take the right to write away from the others: chmod o-w";
    /// A link in a migration directory leads out of it.
    LeavesDirectory = "NX0119", FailedPrecondition, "put the file itself into the migration directory, or a link to a file that is in it";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
