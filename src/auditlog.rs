//! The audit log: who asked for what, whether it was allowed, which files were used, and what came of it.
//! (An *audit* is something else: a read-only check of databases.)
//!
//! A JSONL file that is only ever appended to. Each record holds its number, the hash of the record before
//! it and its own ([`chain`]), so that whoever reads the file from its beginning sees what was altered,
//! taken out or put in ([`verify`]). [`file`] goes on with the chain of a file, whatever the last daemon left
//! behind; [`writer`] is the one task that writes it; [`call`] is what the services record with.
//!
//! [`chain`] and [`verify`] are pure: the client verifies a file without a daemon.

mod asked;
pub mod call;
pub mod chain;
mod entry;
mod events;
mod file;
mod follow;
mod refusals;
pub mod verify;
mod writer;

pub use asked::Asked;
pub use call::{Allowed, Call};
pub use chain::Head;
pub use entry::{Entry, UsedFile};
pub use file::{OpenError, head_path, read_head};
pub use follow::{Batch, Followed, Follower};
pub use writer::{AuditLog, Told, Writer};
