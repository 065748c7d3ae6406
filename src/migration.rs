//! The pure core: what a migration is, what a database says of it, and what follows from both.
//!
//! Nothing here reads a file, a clock or a socket. The layers below bring facts (`source` the
//! [`Catalog`], `postgres` the [`Tracked`] rows); this one decides: [`plan`] says what will be done,
//! [`drift`] what is wrong, [`evidence`] what a dirty row means.

pub mod alert;
pub mod attempt;
pub mod catalog;
pub mod checksum;
pub mod digest;
pub mod drift;
pub mod event;
pub mod evidence;
pub mod failure;
pub mod finding;
pub mod header;
pub mod observation;
pub mod operation;
pub mod plan;
pub mod row;
pub mod trace;
pub mod version;

pub use alert::{Acknowledgement, Alert, AlertState};
pub use attempt::{Attempt, AttemptOutcome, Direction, Mode};
pub use catalog::{Catalog, Migration, Script, ScriptReader};
pub use checksum::Checksum;
pub use digest::{Basis, PlanDigest};
pub use event::{Event, EventKind, EventSink};
pub use failure::{Code, Failure, Location};
pub use finding::{Finding, FindingKind, Severity};
pub use observation::{AuditReport, Counts, Observation};
pub use operation::{DatabaseState, GateOutcome, OperationState};
pub use plan::{Plan, Step, StepAction};
pub use row::{AppliedRow, Tracked};
pub use trace::TraceContext;
pub use version::Version;
