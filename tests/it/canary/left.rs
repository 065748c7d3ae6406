//! What a system has left behind: with sinks, in tables, in files, in processes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use wiremock::MockServer;

use crate::support::{Database, wait};

/// What a sink was sent, without the address that it was sent to.
pub(super) fn bodies(server: &MockServer) -> Vec<u8> {
    let mut all = Vec::new();
    for request in wait(server.received_requests()).expect("requests are recorded") {
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != "authorization") {
            all.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        all.extend([&request.body[..], b"\n"].concat());
    }
    all
}

/// Every table that Nexus keeps in a database, with its rows.
pub(super) fn rows(database: &Database) -> Vec<(String, String)> {
    let tables = "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'nexus' \
                  or tablename in ('schema_migrations', 'nexus_journal') order by 1";
    let read = |table: String| {
        let rows = database.sql(&format!("select row_to_json(t) from {table} t")).join("\n");
        (!rows.is_empty()).then_some((table, rows))
    };
    database.sql(tables).into_iter().filter_map(read).collect()
}

/// Every file below a directory.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("it is read").map(|entry| entry.expect("an entry")) {
        let kind = entry.file_type().expect("it has a type");
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The processes that a process has started, with their names.
pub(super) fn children(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("it is read").filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let child = |child: u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (parent == pid).then(|| (child, head.split_once('(').map_or("", |(_, name)| name).to_owned()))
    };
    pids.filter_map(child).collect()
}
