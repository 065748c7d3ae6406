//! One connection's words: how a server is named, reached over TLS, and spoken to.

pub mod connect;
pub mod counters;
pub mod discover;
pub mod embedded;
pub mod error;
pub mod executor;
pub mod index;
pub mod journal;
pub mod look;
pub mod names;
pub mod notify;
pub mod observer;
pub mod pool;
pub mod quote;
pub mod repair;
pub mod session;
mod trace;
pub mod tracking;
pub mod url;

mod passfile;
mod tls;

pub use connect::{Connection, connect};
pub use error::{ConnectError, SqlFault};
pub use pool::Pool;
pub use quote::{quote_ident, quote_literal};
pub use url::{Target, UrlError};
