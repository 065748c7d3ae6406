//! Everything that needs the built binaries or a PostgreSQL server, in one binary.

mod cli_local;
mod cli_stub;
