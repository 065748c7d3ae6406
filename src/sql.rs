//! What Nexus knows of SQL without a server: where statements end, which of them cannot be in a
//! migration, and what an index statement is about.
//!
//! A file passes through [`inspect`] before anything of it is executed, and through [`Groups`] when
//! it is. Both read it in pieces: a file of 50 MB costs no more memory than one of 1 MB. The server
//! is the authority on syntax: what it will refuse by itself is not refused here.

mod classify;
mod groups;
mod index;
mod inspect;
mod lexer;
mod parse;
mod position;
mod splitter;

pub use classify::is_atomic;
pub use groups::{Group, Groups, SplitError, Statement, Wrapper};
pub use index::{ConcurrentIndex, IndexAction, concurrent_index};
pub use inspect::{Inspection, inspect};
